"""Files of a page on disk: written as a whole, left alone where nothing changed, refused in one message."""

import os

import pytest

from vit_jax.report.render import Progress, fill, write_files
from vit_jax.types import UserError


def test_a_file_is_written_only_where_its_text_changed(tmp_path):
    write_files(tmp_path / "page", {"a.csv": "1\n", "b.csv": "2\n"})
    for name in ("a.csv", "b.csv"):
        os.utime(tmp_path / "page" / name, (1, 1))
    write_files(tmp_path / "page", {"a.csv": "1\n", "b.csv": "3\n"})
    assert (tmp_path / "page" / "a.csv").stat().st_mtime == 1
    assert (tmp_path / "page" / "b.csv").read_text() == "3\n"
    assert sorted(file.name for file in (tmp_path / "page").iterdir()) == ["a.csv", "b.csv"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "page").write_text("mine")
    with pytest.raises(UserError, match=r"page.*give another folder with --to"):
        write_files(tmp_path / "page", {"a.csv": "1"})


def test_progress_is_finished_when_every_requested_run_is_done():
    assert [Progress(done, 2).finished for done in (0, 1, 2)] == [False, False, True]


def test_a_template_is_filled_with_text_escaped(tmp_path, monkeypatch):
    (tmp_path / "t.html").write_text("{{ name }}|{{ css }}")
    (tmp_path / "page.css").write_text("a > b {}")
    monkeypatch.setattr("vit_jax.report.render.TEMPLATES", tmp_path)
    assert fill("t.html", {"name": "<b>"}) == "&lt;b&gt;|a > b {}"
