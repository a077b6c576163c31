"""Where checkpoints can lie: a path that they cannot be read back from is refused before anything is written."""

import os

import numpy as np
import pytest
from etils import epath

from vit_jax import config as configs
from vit_jax.run import run
from vit_jax.train.checkpoint import read_params, write_params
from vit_jax.train.folders import (
    check_folder,
    committed_steps,
    how_to_go_on,
    named_steps,
    run_folder,
    steps_among,
    stored_model,
)
from vit_jax.types import UserError

META = {"grid": [1, 1], "config": {"model": {}}}
ODD = (
    "x{b}",
    "x#1",
    "x%5B",
    "x|y",
    "x y",
    "x'y",
    'x"y',
    "x:y",
    "x@2=1,+~",
    "x$HOME&;<y>",
    "e\u0301",
    "-x",
    "!x",
    "x.tmp",
)


@pytest.mark.parametrize(
    "name", ["lr[0.1]", "x]", "x*y", "x**", "x?", "x\\y", "x\ny", "x\x1by", os.fsdecode(b"caf\xe9")]
)
def test_a_folder_that_loses_its_checkpoints_is_refused_and_not_made(tmp_path, name):
    for place in (tmp_path / name, tmp_path / name / "run"):
        with pytest.raises(
            UserError, match=r"^workdir '.*: checkpoints (there )?cannot be (read back|written)"
        ) as caught:
            check_folder(place)
        assert str(caught.value).isprintable()  # the odd letters are spelt out
        with pytest.raises(UserError, match="cannot be"):
            write_params(epath.Path(place), {"a": np.zeros(1)}, META)
        with pytest.raises(UserError, match=r"^workdir .* cannot be"):
            run(configs.load("configs/quickstart.py:pretrain,smoke"), str(place))
    assert list(tmp_path.iterdir()) == []


def test_every_other_folder_gives_back_the_bits(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name in ODD:
        check_folder(tmp_path / name)
        write_params(epath.Path(tmp_path / name), {"a": {"kernel": kernel}}, META)
        found, _ = read_params(run_folder(str(tmp_path / name)), average=False)
        assert found["a/kernel"].tobytes() == kernel.tobytes(), name


def test_the_folder_that_the_command_runs_in_counts_too(tmp_path, monkeypatch):
    (tmp_path / "a[1]").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]")
    with pytest.raises(UserError, match="has '\\[' and '\\]' in its path"):
        check_folder("runs/mine")


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match=r"/run is a file; give a folder, new or of a run to resume$"):
        check_folder(tmp_path / "run")


def make_steps(workdir, scores):
    for step, score in scores.items():
        for item in ("meta", "params"):
            (workdir / "checkpoints" / str(step) / item).mkdir(parents=True)
        if score is not None:
            (workdir / "checkpoints" / str(step) / "metrics").mkdir()
            (workdir / "checkpoints" / str(step) / "metrics" / "metrics").write_text(f'{{"eval/digits/top1": {score}}}')


def test_a_checkpoint_of_a_run_has_a_name(tmp_path):
    make_steps(tmp_path / "a@b", {4: 0.5, 8: 0.75, 12: 0.75, 16: 0.25})
    place = tmp_path / "a@b"
    assert named_steps(place) == {"last": 16, "best": 12}
    for name, step in {"": 16, "@last": 16, "@best": 12, "@4": 4}.items():
        assert run_folder(f"{place}{name}") == place / "checkpoints" / str(step), name
    with pytest.raises(
        UserError, match=r"a@b@5: the run .* has no checkpoint @5; expected one of @last, @best, @4, @8"
    ):
        run_folder(f"{place}@5")
    make_steps(tmp_path / "plain", {4: None})
    assert named_steps(tmp_path / "plain") == {"last": 4}
    with pytest.raises(
        UserError, match=r"no checkpoint @best; it was trained without checkpoint.keep_best.*of @last, @4"
    ):
        run_folder(f"{tmp_path / 'plain'}@best")
    assert run_folder(f"{tmp_path / 'nothing'}@best") is None


def test_the_best_has_a_score_and_of_equal_ones_is_the_later(tmp_path):
    make_steps(tmp_path, {4: "NaN", 8: 0.25, 12: 0.25, 16: None})
    assert named_steps(tmp_path) == {"last": 16, "best": 12}


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path):
    make_steps(tmp_path, {8: None, 16: None})
    for name in ("24.orbax-checkpoint-tmp-0", "32.partial", "notes.txt"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert committed_steps(tmp_path / "checkpoints") == [8, 16]
    assert committed_steps(tmp_path / "nothing") == []


def test_the_folder_of_a_step_is_a_checkpoint_and_a_relative_path_is_found(tmp_path, monkeypatch):
    make_steps(tmp_path / "run", {8: None, 16: None})
    monkeypatch.chdir(tmp_path)
    assert run_folder("run/checkpoints/8") == tmp_path / "run" / "checkpoints" / "8"
    assert run_folder("run") == tmp_path / "run" / "checkpoints" / "16"
    assert run_folder("run/checkpoints") is None
    assert run_folder("nothing") is None


def test_advice_about_damage_names_the_folder_to_remove_and_the_step_that_is_left(tmp_path):
    make_steps(tmp_path, {8: 0.5, 16: "unreadable", 24: 0.75})
    place = epath.Path(tmp_path / "checkpoints")
    assert (
        how_to_go_on(place, 24) == f"\nIf the folder is damaged, remove {place}/24: the run then resumes from step 16"
    )
    # The scores of 16 cannot be read.
    assert how_to_go_on(place) == f"\nIf the folder is damaged, remove {place}/16: the run then resumes from step 24"
    make_steps(tmp_path / "other", {8: 0.5})
    place = epath.Path(tmp_path / "other" / "checkpoints")
    assert how_to_go_on(place, 8) == f"\nIf the folder is damaged, remove {place}/8: the run then starts over"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": []}', '{"config": {"model": 3}}', "{"])
def test_a_checkpoint_that_does_not_say_its_model_has_none(tmp_path, text):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "metadata").write_text(text)
    assert stored_model(tmp_path) == {}
    (tmp_path / "meta" / "metadata").write_text('{"config": {"model": {"name": "vit"}}}')
    assert stored_model(tmp_path) == {"name": "vit"}
    assert stored_model(tmp_path / "nothing") == {}


def test_steps_at_a_url_count_unless_they_are_being_uploaded():
    names = [
        "10/meta/x",
        "2/params/y",
        "4/meta/x",
        "4.uploading",
        "6.uploading",
        "\u00b2/meta/x",
        "007/meta/x",
        "8",
        "tmp/a",
    ]
    assert steps_among([f"checkpoints/{name}" for name in names] + ["12/meta/x", "config.json"]) == [2, 10]
