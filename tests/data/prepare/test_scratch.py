"""A folder that is written beside its place: one process at a time, and nothing of a stopped one looks finished."""

import pytest
from etils import epath

from vit_jax.data.prepare.scratch import LOCK, PARTIAL, scratch_beside
from vit_jax.types import UserError


def test_two_processes_do_not_write_one_folder_and_what_a_killed_one_left_is_cleared_away(tmp_path):
    left = tmp_path / f".packed{PARTIAL}"
    left.mkdir()
    (left / "shard-00000-of-00009").write_bytes(b"half")
    (left / LOCK).write_bytes(b"")
    target = epath.Path(tmp_path / "packed")
    with scratch_beside(target) as scratch:
        (scratch / "shard-00000-of-00001").write_bytes(b"whole")
        with (
            pytest.raises(
                UserError, match=r"another process is packing into .*packed; wait for it, or give another --to"
            ),
            scratch_beside(target),
        ):
            pytest.fail("both have it")
    assert [p.name for p in tmp_path.iterdir()] == ["packed"]
    assert [p.name for p in (tmp_path / "packed").iterdir()] == ["shard-00000-of-00001"]


def test_a_folder_that_another_process_finished_meanwhile_is_not_overwritten(tmp_path):
    def write():
        with scratch_beside(epath.Path(tmp_path / "packed")):
            (tmp_path / "packed").mkdir()
            (tmp_path / "packed" / "theirs").write_bytes(b"")

    with pytest.raises(UserError, match="was made by someone else meanwhile"):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["packed"]
    assert [p.name for p in (tmp_path / "packed").iterdir()] == ["theirs"]


def test_an_error_inside_leaves_nothing(tmp_path):
    def write():
        with scratch_beside(epath.Path(tmp_path / "packed")) as scratch:
            (scratch / "half").write_bytes(b"")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == []
