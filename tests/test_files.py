"""Files that are no files, are too large, or hold no JSON: one error each, and no waiting."""

import json
import os
import socket

import pytest

from vit_jax import files
from vit_jax.types import UserError


def test_reads_what_a_regular_file_holds_through_a_link_too(tmp_path):
    (tmp_path / "a").write_bytes(b"\0abc" * 100_000)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert files.read_regular(tmp_path / "link", limit=400_000) == b"\0abc" * 100_000


def test_a_pipe_a_device_a_socket_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "named pipe"), ("zeros", "device"), ("folder", "folder")):
        with pytest.raises(files.UnreadableFile, match=f"{name} is a {kind}; expected a regular file"):
            files.open_regular(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(OSError, match="No such device"):
            files.open_regular(tmp_path / "s")


def test_a_file_above_the_limit_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    with pytest.raises(files.UnreadableFile, match="has 5 bytes; expected at most 4"):
        files.open_regular(tmp_path / "a", limit=4)


def test_a_large_file_of_holes_is_not_read_and_a_small_one_is(tmp_path):
    for name, size in (("large", 2**33), ("small", 2**20)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    with pytest.raises(files.UnreadableFile, match=r"8,589,934,592 bytes, of which 0 are on disk"):
        files.open_regular(tmp_path / "large")
    assert len(files.read_regular(tmp_path / "small")) == 2**20


def test_no_descriptor_is_left_open_by_a_refusal(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(files.UnreadableFile):
            files.open_regular(tmp_path / "pipe")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1', "cannot be read as JSON"),
        (b'{"a": "\xff"}', "cannot be read as JSON .*utf-8"),
        (b"[" * 200_000, "cannot be read as JSON .nested too deeply"),
        (b"3", "holds int; expected a JSON object"),
        (b"[]", "holds list; expected a JSON object"),
        (b"", "cannot be read as JSON"),
    ],
)
def test_what_is_no_json_object_is_one_error_with_advice(tmp_path, content, reason):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"x.json {reason}.*; mend it"):
        files.read_json(tmp_path / "x.json", advice="mend it")


def test_a_json_file_that_is_not_there_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        files.read_json(tmp_path / "x.json")


def test_reads_a_json_object(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": [1, "ü"]}))
    assert files.read_json(tmp_path / "x.json") == {"a": [1, "ü"]}


def test_a_file_that_grows_or_shrinks_while_it_is_opened_is_read_to_its_end(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"0123456789")
    for size in (3, 200):
        monkeypatch.setattr(files, "open_descriptor", lambda name, size=size, **_: (os.open(name, os.O_RDONLY), size))
        assert files.read_regular(tmp_path / "a") == b"0123456789"
        assert files.read_regular(tmp_path / "a", limit=10) == b"0123456789"
