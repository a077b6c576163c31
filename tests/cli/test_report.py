"""`vit_jax report`: where its page goes, what it prints, and mistakes on its command line."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from folders import (
    result,
    transfer_sweep,
    write_run,
    write_sweep,
    write_vtab,
)

from vit_jax.cli.report import main


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


@pytest.mark.slow
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
        (["{tmp}/s", "{tmp}/s2"], "error: 2 sweeps or runs make one page; say where with --to=FOLDER"),
        (["{tmp}/s", "--to={tmp}/file"], "error: --to {tmp}/file is a file"),
        (["{tmp}/s", "--to={tmp}/file/deeper"], "error: the report cannot be written to {tmp}/file/deeper"),
        (["{tmp}/s", "--watch=0"], "expected 1 to 86400 seconds, found 0"),
    ],
)
def test_mistakes_on_the_command_line_are_one_message_each(tmp_path, capsys, arguments, said):
    (tmp_path / "s").mkdir()
    write_sweep(tmp_path / "s", transfer_sweep())
    (tmp_path / "file").write_text("")
    try:
        code = main([argument.format(tmp=tmp_path) for argument in arguments])
    except SystemExit as end:  # of the parser
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert said.format(tmp=tmp_path) in err


def test_the_page_of_a_real_sweep_folder_is_written_where_it_says(tmp_path, capsys):
    write_vtab(tmp_path, seeds=(0,))
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr() == (f"{tmp_path}/report/index.html\n", "")
    scores = [json.loads(file.read_text())["scores"]["top1"] for file in tmp_path.glob("runs/*/*/result.json")]
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(f">{100 * score:.1f}<" in page for score in scores)


def test_an_unfinished_sweep_says_how_far_it_is_and_what_was_left_out(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_sweep(tmp_path / name, transfer_sweep(titles=("Digits",), label=name))
    write_run(tmp_path / "a", result("digits", 0.5, phase="dev", lr=0.001))
    torn = write_run(tmp_path / "b", result("digits", 0.5, phase="dev", lr=0.003)) / "result.json"
    torn.write_text("{")
    assert main([f"{tmp_path}/a", f"{tmp_path}/b", f"--to={tmp_path}/page"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/page/index.html (1 of 14 runs are done)\n"  # of each sweep four rates and three seeds
    assert err.startswith(f"left out: {torn} ")
    assert (tmp_path / "page" / "index.html").exists()
