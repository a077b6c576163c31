"""The watch on a sweep: the page is written again when results come, and stands still at its end."""

import shutil

from folders import (
    result,
    transfer_sweep,
    write_run,
    write_sweep,
)

from vit_jax.report.watch import watch


def test_watching_rewrites_the_page_when_results_come_and_ends_with_the_sweep(tmp_path):
    sweep = transfer_sweep(titles=("Digits",), seeds=(0, 1), candidates={"optim.lr": (0.01,)})
    write_sweep(tmp_path, sweep)
    page, said, waits = tmp_path / "page" / "index.html", [], []

    def sleep(seconds):
        waits.append(seconds)
        assert '<meta http-equiv="refresh" content="5">' in page.read_text()
        if len(waits) == 2:  # nothing happened in the first
            assert len(said) == 1
            write_run(tmp_path, result("digits", 0.5))
        if len(waits) == 3:
            damaged = tmp_path / "runs" / "digits" / "later"
            damaged.mkdir()
            (damaged / "result.json").write_text("{")
        if len(waits) == 4:
            shutil.rmtree(tmp_path / "runs" / "digits" / "later")
            write_run(tmp_path, result("digits", 0.7, seed=1))

    watch([tmp_path], tmp_path / "page", 5, said.append, sleep=sleep)
    assert waits == [5, 5, 5, 5]
    assert said[0] == "page written: 0 of 2 runs done"
    assert said[1] == "page written: 1 of 2 runs done"
    assert said[2].startswith(f"page written: 1 of 2 runs done\nleft out: {tmp_path}/runs/digits/later/result.json")
    assert said[3] == "page written: all 2 runs are done"
    assert "refresh" not in page.read_text()
    assert "60.00 ± 14.14" in page.read_text().replace("<small>", " ")
