"""Downloads from a server of this machine's own, which breaks off, stalls, lies, or answers with something else."""

import concurrent.futures
import time
import urllib.error

import pytest
from weights_server import npz, put, refused, there

from vit_jax.convert import download
from vit_jax.convert.released import fetch


def test_a_download_that_is_cut_off_stays_apart_and_goes_on_where_it_stopped(cached, server):
    content = npz(1_000_000)
    row = put(server, "b.npz", content)
    server.hang_up_after = 400_000
    assert f": it ended after 400,000 of {len(content):,} bytes\nStart the same command again to resume; " in refused(
        row
    )
    assert there(cached) == ["b.npz.part"]
    assert (cached / "b.npz.part").read_bytes() == content[:400_000]
    server.hang_up_after = None
    server.log.clear()
    assert fetch(row).read_bytes() == content
    assert server.starts() == [400_000]
    assert there(cached) == ["b.npz"]


def test_a_part_longer_than_the_file_is_started_anew(cached, server):
    content = npz(100_000)
    row = put(server, "c.npz", content)
    cached.mkdir(parents=True)
    for size in (len(content) + 1, len(content)):
        (cached / "c.npz.part").write_bytes(b"x" * size)
        assert fetch(row).read_bytes() == content
        assert there(cached) == ["c.npz"]
        (cached / "c.npz").unlink()


def test_an_error_page_is_not_taken_for_the_file(cached, server):
    content = npz(200_000)
    row = put(server, "d.npz", content)
    cached.mkdir(parents=True)
    (cached / "d.npz.part").write_bytes(content[:50_000])
    server.page = b"<html>Please log in to this network</html>"
    assert "the file there has 42 bytes; expected 198," in refused(row)
    assert (cached / "d.npz.part").read_bytes() == content[:50_000]
    server.page = None
    assert fetch(row).read_bytes() == content


def test_a_file_of_the_right_size_that_is_no_npz_is_not_stored(cached, server):
    row = put(server, "e.npz", b"<html>" * 20_000)
    assert "the file there is no npz file (File is not a zip file)" in refused(row)
    damaged = bytearray(npz(100_000))
    damaged[50_000] ^= 1
    row = put(server, "f.npz", bytes(damaged))
    assert "the file there is damaged: the checksum of a.npy is wrong" in refused(row)
    assert there(cached) == []


def test_a_part_that_was_not_asked_for_is_not_appended(cached, server):
    content = npz(200_000)
    row = put(server, "g.npz", content)
    cached.mkdir(parents=True)
    (cached / "g.npz.part").write_bytes(content[:50_000])
    server.shift = 7
    assert fetch(row).read_bytes() == content
    assert server.starts() == [50_000, 0]


def test_more_than_was_announced_is_not_kept(cached, server):
    content = npz(200_000)
    row = put(server, "h.npz", content)
    cached.mkdir(parents=True)
    (cached / "h.npz.part").write_bytes(content[:50_000])
    server.more = b"x"
    assert fetch(row).read_bytes() == content
    assert server.starts() == [50_000, 0]


@pytest.mark.parametrize("tag", [None, True])
def test_a_file_that_changes_in_the_middle_is_fetched_whole(cached, server, tag, capsys):
    old, new = npz(300_000), npz(300_000, seed=1)
    row = put(server, "i.npz", old)
    server.tag, server.hang_up_after, server.changes = tag, 100_000, [new]

    def stop_hanging_up(seconds):
        server.hang_up_after = None

    download.time.sleep, real = stop_hanging_up, download.time.sleep
    try:
        assert fetch(row).read_bytes() == new
    finally:
        download.time.sleep = real
    assert there(cached) == ["i.npz"]
    assert ("the file on the server has changed" in capsys.readouterr().err) == (tag is None)


def test_a_file_of_another_size_after_a_break_is_started_anew(server):
    old, new = npz(300_000), npz(301_000)
    row = put(server, "j.npz", old)
    server.hang_up_after, server.changes = 100_000, [new]

    class Sleep:
        def __call__(self, seconds):
            server.hang_up_after = None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download.time, "sleep", Sleep())
        assert fetch(row).read_bytes() == new


@pytest.mark.parametrize("after", [None, 0, 100_000])
def test_a_server_that_stalls_is_given_up(cached, server, monkeypatch, after, capsys):
    content = npz(200_000)
    row = put(server, "k.npz", content)
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.stall_after = after
    if after is None:
        server.answer = lambda request: server.going_on.wait(10)
    began = time.monotonic()
    assert "the server sent nothing for 0 s" in refused(row)
    assert time.monotonic() - began < 5
    assert "trying again in 0 s" in capsys.readouterr().err
    assert there(cached) == (["k.npz.part"] if after else [])


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, capsys):
    content = npz(100_000)
    row = put(server, "l.npz", content)
    server.statuses = [500, 503, 429]
    assert fetch(row).read_bytes() == content
    assert len(server.log) == 4
    assert capsys.readouterr().err.count("trying again") == 3
    server.log.clear()
    server.statuses = [503] * 9
    assert "HTTP Error 503: Service Unavailable" in refused(put(server, "m.npz", content))
    assert len(server.log) == 4
    server.log.clear()
    server.statuses = []
    assert "HTTP Error 404: " in refused(row._replace(name="mine:n", path="vit_models/n.npz"))
    assert len(server.log) == 1


def test_two_at_once_fetch_one_file_once(cached, server, capsys):
    content = npz(400_000)
    row = put(server, "o.npz", content)
    server.stall_after = 100_000
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = [pool.submit(fetch, row) for _ in range(3)]
        while "waiting for that" not in (said := capsys.readouterr().err):
            assert not any(f.done() for f in found), said
            time.sleep(0.01)
        assert server.stalled.wait(10)
        server.stall_after = None
        server.going_on.set()  # the first is cut off, and goes on
        assert {f.result(timeout=20) for f in found} == {cached / "o.npz"}
    assert (cached / "o.npz").read_bytes() == content
    assert there(cached) == ["o.npz"]
    assert server.starts() == [0, 100_000]


def test_another_process_that_finished_meanwhile_leaves_nothing_to_do(tmp_path, capsys):
    place = tmp_path / "a.npz"
    place.write_bytes(b"whole")
    download.download_npz("http://127.0.0.1:9/a.npz", place, sizes=(1, 10), title="a")  # nobody listens there
    assert place.read_bytes() == b"whole"
    assert there(tmp_path) == ["a.npz"]
    assert capsys.readouterr().err == ""


def test_a_local_file_is_copied_whole_and_another_size_is_not(tmp_path):
    content = npz(5000)
    (tmp_path / "source.npz").write_bytes(content)
    place = tmp_path / "there.npz"
    with pytest.raises(OSError, match=f"the file there has {len(content):,} bytes; expected 10 to 20"):
        download.download_npz(str(tmp_path / "source.npz"), place, sizes=(10, 20), title="a")
    (tmp_path / "there.npz.part").write_bytes(b"of another copy")
    download.download_npz(str(tmp_path / "source.npz"), place, sizes=(10, 10_000), title="a")
    assert place.read_bytes() == content
    assert there(tmp_path) == ["source.npz", "there.npz"]


def test_errors_are_clauses_of_a_message():
    assert download.describe(TimeoutError()) == "the server sent nothing for 30 s"
    assert download.describe(urllib.error.URLError(TimeoutError("timed out"))) == "the server sent nothing for 30 s"
    assert download.describe(urllib.error.URLError(OSError(113, "No route to host"))) == "[Errno 113] No route to host"
    assert download.describe(ConnectionResetError()) == "ConnectionResetError"
