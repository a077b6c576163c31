"""What a run makes of errors of the file system, without training."""

import errno
import os
from types import SimpleNamespace

import pytest
from etils import epath

from vit_jax import config as configs
from vit_jax.resolve import resolve
from vit_jax.run import execute, record
from vit_jax.run.schema import SCHEMA
from vit_jax.types import UserError


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            errno.EACCES,
            r"workdir {0} cannot be used: .*Permission denied.*; give another --workdir, with --config.init={0}",
        ),
        (errno.EROFS, r"workdir {0} cannot be used: .*Read-only file system"),
        (
            errno.ENOSPC,
            r"a file in {0} could not be written: .*No space left.*\nno checkpoint was saved before; free disk",
        ),
        (errno.EDQUOT, r"a file in {0} could not be written: .*\nno checkpoint was saved before; free disk space"),
        (errno.EBADF, None),
    ],
)
def test_a_file_that_cannot_be_written_is_told_by_its_cause(monkeypatch, tmp_path, number, message):
    def build_job(config, overrides, old, begun):
        config = resolve(config, SCHEMA)
        return SimpleNamespace(config=config, settled=[], to_steps=lambda duration: 10)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(execute, "build_job", build_job)
    monkeypatch.setattr(execute, "_run_job", fail)
    config, workdir = configs.load("configs/quickstart.py:pretrain,smoke"), tmp_path / "run"
    with pytest.raises(UserError if message else OSError) as caught:
        execute.run(config, workdir)
    if message:
        assert caught.match("^" + message.format(workdir))
    assert not workdir.exists()


def test_a_workdir_that_may_only_be_read_is_refused_before_anything_is_computed(monkeypatch, tmp_path):
    record.check_writable(epath.Path(tmp_path))
    record.check_writable(epath.Path(tmp_path / "new"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(UserError, match="cannot be used: it may only be read; give another --workdir"):
        record.check_writable(epath.Path(tmp_path))
