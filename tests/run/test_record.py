"""What a run leaves in its workdir, read back: damaged files are one message each."""

import json
import os

import pytest
from etils import epath

from vit_jax.config import SECTIONS
from vit_jax.run.record import read_run, saved_config
from vit_jax.types import UserError

CONFIG = {name: {} for name in SECTIONS} | {"evals": {"test": {"every": 5}}, "seed": 0}
RUN = {
    "config": CONFIG,
    "scores": {"eval/test/top1": 0.5},
    "versions": {},
    "git": {},
    "steps": 16,
    "num_params": 7,
    "train_flops_per_image": 9,
    "data": [],
    "devices": ["cpu"],
    "seconds": 1.5,
}
NO_JSON = [b"", b"{", b"3", b"[]", b'"x"', b"null", b"\xff{}", b"[" * 100_000, b'{"a": ' * 100_000]


def test_configs_and_runs_come_back(tmp_path):
    folder = epath.Path(tmp_path)
    assert saved_config(folder) is None
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert saved_config(folder) is None  # nothing is saved yet: it may be corrected
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"more": 1}))
    assert saved_config(folder) == CONFIG
    assert read_run(folder) == RUN | {"more": 1}


@pytest.mark.parametrize("data", NO_JSON, ids=range(len(NO_JSON)))
@pytest.mark.parametrize(
    ("file", "read", "advice"), [("config", saved_config, "put a copy"), ("run", read_run, "remove it")]
)
def test_what_is_no_json_object_is_one_message_with_advice(tmp_path, data, file, read, advice):
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (tmp_path / f"{file}.json").write_bytes(data)
    with pytest.raises(UserError, match=rf"^{tmp_path}/{file}\.json .*; {advice}"):
        read(epath.Path(tmp_path))


def test_what_is_no_regular_file_is_one_message_too(tmp_path):
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    os.mkfifo(tmp_path / "config.json")  # would block for ever
    with pytest.raises(UserError, match=r"config\.json is a named pipe"):
        saved_config(epath.Path(tmp_path))


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"data": []}, "data"), ({"init": None, "model": "vit"}, "model, init"), ({"evals": {"test": 3}}, "evals.test")],
)
def test_sections_of_another_kind_are_named(tmp_path, changed, named):
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changed))
    with pytest.raises(UserError, match=rf"is damaged: {named} should be sections of a config; put a copy of it back"):
        saved_config(epath.Path(tmp_path))
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"config": CONFIG | changed}))
    with pytest.raises(UserError, match=rf"run\.json is damaged: {named} should be sections of a config; remove it"):
        read_run(epath.Path(tmp_path))


def test_what_a_run_should_say_and_does_not_is_named(tmp_path):
    left = {key: value for key, value in RUN.items() if key not in ("steps", "data")} | {"seconds": "1"}
    (tmp_path / "run.json").write_text(json.dumps(left))
    with pytest.raises(UserError, match=r"run\.json is damaged: it has no steps, data, seconds; remove it"):
        read_run(epath.Path(tmp_path))
