"""A workdir at a URL: a real FTP server in another process, kill -9 in the middle of a copy, and a start after it."""

import subprocess
import sys

import pytest

# pyftpdlib's own server, which prints its port; files are written in place, so a kill leaves half of one.
SERVER = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

class Handler(FTPHandler):
    authorizer = DummyAuthorizer()

Handler.authorizer.add_user("user", "secret", sys.argv[1], perm="elradfmw")
server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
print(server.address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def store(tmp_path):
    """(URL, the local folder that the server serves under it)."""
    folder = tmp_path / "store"
    folder.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", SERVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield f"ftp://user:secret@127.0.0.1:{int(server.stdout.readline())}/runs/mine", folder / "runs" / "mine"
        finally:
            server.kill()


def test_a_run_at_a_url_killed_during_a_copy_ends_bit_identical_to_one_never_stopped(
    program, reading, undisturbed, store, tmp_path, monkeypatch
):
    url, there = store
    monkeypatch.setitem(program.env, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = program.start(url)
    run.wait_until(
        lambda: (
            (there / "checkpoints").exists()
            and reading.steps(there)[2:]
            and any(name.endswith(".uploading") for name in reading.unfinished(there))
        )
    )
    run.kill()
    copied = reading.unfinished(there)
    assert copied != []
    assert (there / ".lease").exists()
    begun = {name.partition(".")[0] for name in copied}
    last = max(step for step in reading.steps(there) if str(step) not in begun)
    assert 0 < last < 16

    finished = program.run(url)
    assert finished.code == 0, finished.err
    assert f"resuming {url} from step {last}" in finished.out
    assert f"checkpoints are in {url}" in finished.out
    assert reading.unfinished(there) == []
    assert not (there / ".lease").exists()
    reading.assert_same_run(there, undisturbed)
    assert not [path for path in (tmp_path / "cache" / "vit_jax" / "workdirs").rglob("*") if path.is_file()]

    model = [
        f"--model={url}@best",
        "--dataset=digits",
        "--split=test[:20]",
        f"--data-dir={program.data_dir}",
        "--json",
    ]
    scores = program.execute(["-m", "vit_jax", "evaluate", *model]).finish()
    assert scores.code == 0, scores.err
    assert '"num_examples": 20' in scores.out
