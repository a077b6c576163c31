"""Where checkpoints can lie: a path that they cannot be read back from is refused before anything is written."""

import os

import numpy as np
import pytest
from etils import epath

from vit_jax import config as configs
from vit_jax.run import run
from vit_jax.train.checkpoint import read_params, write_params
from vit_jax.train.folders import check_folder, run_folder
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
