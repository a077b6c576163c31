"""`vit_jax report`: where its page goes, what it prints, and mistakes on its command line."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from folders import (
    result,
    transfer_sweep,
    write_run,
    write_sweep,
    write_vtab,
)

ROOT = Path(__file__).parents[2]


def start_watching(folder, said):
    """The program itself; its lines gather in `said`."""
    program = [sys.executable, "-u", "-m", "vit_jax", "report", folder, "--watch=1"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    threading.Thread(target=lambda: said.extend(process.stdout), daemon=True).start()
    return process


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_ctrl_c_ends_the_watch_and_leaves_a_page_that_stands_still(tmp_path):
    write_sweep(tmp_path, transfer_sweep(titles=("Digits",)))
    said = []
    process = start_watching(tmp_path, said)
    try:
        wait_for(lambda: said)
        write_run(tmp_path, result("digits", 0.5, phase="dev", lr=0.001))
        wait_for(lambda: len(said) > 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: len(said) > 2)
    process.stdout.close()
    assert said == ["page written: 0 of 7 runs done\n", "page written: 1 of 7 runs done\n", "stopped watching\n"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Unfinished: 1 of 7 runs done." in page
    assert "refresh" not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}/nothing"], "error: {tmp}/nothing is no sweep: it has no sweep.json"),
        (["{tmp}/s", "{tmp}/s2"], "error: 2 sweeps make one page; say where with --to=FOLDER"),
        (["{tmp}/s", "--to={tmp}/file"], "error: --to {tmp}/file is a file"),
        (["{tmp}/s", "--to={tmp}/file/deeper"], "error: the report cannot be written to {tmp}/file/deeper"),
        (["{tmp}/s", "--watch=0"], "expected 1 to 86400 seconds, found 0"),
    ],
)
def test_mistakes_on_the_command_line_are_one_message_each(tmp_path, arguments, said):
    write_sweep(tmp_path / "s", transfer_sweep()) if (tmp_path / "s").mkdir() is None else None
    (tmp_path / "file").write_text("")
    program = [sys.executable, "-m", "vit_jax", "report", *(a.format(tmp=tmp_path) for a in arguments)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said.format(tmp=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_of_a_real_sweep_folder_is_written_where_it_says(tmp_path):
    write_vtab(tmp_path, seeds=(0,))
    program = [sys.executable, "-m", "vit_jax", "report", tmp_path]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/report/index.html\n"
    scores = [json.loads(file.read_text())["scores"]["top1"] for file in tmp_path.glob("runs/*/*/result.json")]
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(f">{100 * score:.1f}<" in page for score in scores)
