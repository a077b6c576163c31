"""The page as a file: hostile names, the same bytes twice, files replaced whole, a page that follows a running sweep."""

import dataclasses
import html.parser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import (
    HOSTILE,
    result,
    transfer_sweep,
    vtab_sweep,
    write_predictions,
    write_run,
    write_sweep,
    write_transfer,
    write_vtab,
)

from vit_jax.report.page import write_report
from vit_jax.report.render import Progress
from vit_jax.types import UserError

ROOT = Path(__file__).parents[2]


class Reader(html.parser.HTMLParser):
    """Tags, attributes and text; whether every tag is closed."""

    VOID = ("meta", "link", "img", "br", "progress")

    def __init__(self, text):
        super().__init__()
        self.found, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write_and_read(*folders, to):
    write_report(folders, to)
    return (to / "index.html").read_text()


@pytest.mark.slow
def test_hostile_names_stay_text(tmp_path):
    sweep = transfer_sweep()
    tasks = (dataclasses.replace(sweep.tasks[0], title=HOSTILE), *sweep.tasks[1:])
    write_transfer(tmp_path / "s", names=(HOSTILE, "dog"), label=HOSTILE, title=HOSTILE, tasks=tasks)
    page = write_and_read(tmp_path / "s", to=tmp_path / "page")
    read = Reader(page)
    assert read.open == []
    assert read.found.count("script") == 1  # our own
    assert not [pair for pair in read.attributes if pair[1].startswith("on")]
    assert not [pair for pair in read.attributes if pair[1] == "src" and pair[2] == "x"]
    assert HOSTILE in read.text
    assert "49" not in re.findall(r"quoted' (\S+)", read.text)


@pytest.mark.slow
def test_ids_are_unique_and_every_reference_inside_the_page_has_its_target(tmp_path):
    write_transfer(tmp_path / "a", label="A")
    write_transfer(tmp_path / "b", label="B")
    write_vtab(tmp_path / "c")
    page = write_and_read(tmp_path / "a", tmp_path / "b", tmp_path / "c", to=tmp_path / "page")
    ids = [value for _, name, value in Reader(page).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page))
    assert {a or b for a, b in wanted} <= set(ids)


@pytest.mark.slow
def test_links_work_from_disk_and_lead_to_existing_files(tmp_path):
    place = tmp_path / "runs of 100% & more"
    write_transfer(place)
    page = write_and_read(place, to=tmp_path / "pages" / "deep")
    links = {
        value
        for tag, name, value in Reader(page).attributes
        if tag in ("a", "img") and name in ("href", "src") and not value.startswith("#")
    }
    from urllib.parse import unquote

    files = [(tmp_path / "pages" / "deep" / unquote(link)).resolve() for link in links]
    assert [file for file in files if not file.is_file()] == []
    names = {file.name for file in files}
    assert {"result.json", "config.json", "metrics.jsonl", "log.txt", "0.png", "sweep.json", "table2.csv"} <= names
    assert str(tmp_path) not in page


@pytest.mark.slow
def test_the_same_files_give_the_same_bytes(tmp_path):
    write_transfer(tmp_path / "one" / "s")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for place in ("one", "two"):
        script = "import sys; from pathlib import Path; from vit_jax.report.page import write_report; "
        script += "write_report([Path(sys.argv[1])], Path(sys.argv[2]))"
        arguments = [sys.executable, "-c", script, tmp_path / place / "s", tmp_path / place / "page"]
        hashes = {"PYTHONHASHSEED": "1" if place == "one" else "2"}
        subprocess.run(arguments, check=True, cwd=ROOT, env=os.environ | hashes, timeout=120)
    files = sorted(file.name for file in (tmp_path / "one" / "page").iterdir())
    assert files[0] == "index.html"
    assert len(files) == 1 + 3 * 3
    for name in files:
        assert (tmp_path / "one" / "page" / name).read_bytes() == (tmp_path / "two" / "page" / name).read_bytes()


@pytest.mark.slow
def test_colours_of_drawings_are_the_pages_and_text_stays_text(tmp_path):
    write_transfer(tmp_path / "s")
    page = write_and_read(tmp_path / "s", to=tmp_path / "page")
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 1 + 3 * 3  # compute; candidates, loss and top-1 of three tasks
    colors = {color for drawing in drawings for color in re.findall(r"#[0-9a-fA-F]{6}", drawing)}
    assert colors <= {"#000000"}  # nothing visible: matplotlib's default of what is covered by a style
    assert "<metadata>" not in page  # it would hold the time
    assert "var(--series-0)" in drawings[1]
    assert ">optim.lr</text>" in drawings[1]
    assert ">0.003</text>" in drawings[1]


def test_labels_that_matplotlib_would_read_as_formulas_or_hide_are_drawn_as_they_are(tmp_path):
    for number, label in enumerate(("_hidden", r"$\nonsense{$", "long " * 30)):
        write_transfer(tmp_path / str(number), label=label, titles=("Digits",))
    page = write_and_read(*(tmp_path / str(n) for n in range(3)), to=tmp_path / "page")
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL)[:2]:
        drawn = drawing.partition("</title>")[2]
        assert "_hidden" in drawn
        assert r"$\nonsense{$" in drawn
        assert "long long" in drawn
        assert "long " * 30 not in drawn


def test_an_empty_sweep_gives_a_page_that_says_so(tmp_path):
    write_sweep(tmp_path, vtab_sweep())
    assert write_report([tmp_path], tmp_path / "page") == Progress(0, 57)
    text = Reader((tmp_path / "page" / "index.html").read_text()).text
    assert "No results yet: 0 of 57 runs done." in text
    assert "not done yet: Caltech101, CIFAR-100" in text


def test_differences_in_what_made_the_numbers_are_said(tmp_path):
    sweep = transfer_sweep(candidates={"optim.lr": (0.01,)}, seeds=(0,))
    write_sweep(tmp_path, sweep)
    about = result("cifar10", 0.5).surroundings
    write_run(tmp_path, result("cifar10", 0.5))
    write_run(tmp_path, result("oxford_iiit_pet", 0.5, resolution=(224, 224)))
    changed = about | {"git": {"commit": "f" * 40, "modified": True}, "versions": {"jax": "0.12.0"}}
    write_run(tmp_path, result("digits", 0.5, surroundings=changed))
    text = Reader(write_and_read(tmp_path, to=tmp_path / "page")).text
    differ = "Runs of one table differ in"
    assert f"{differ} resolution: 384 × 384 px (cifar10, digits); 224 × 224 px (oxford_iiit_pet)." in text  # noqa: RUF001
    assert f"{differ} git commit: 0123456789ab (cifar10, oxford_iiit_pet); ffffffffffff (digits)." in text
    assert f"{differ} package versions: " in text
    assert f"{differ} preprocessing" not in text
    assert "1 of 3 runs were made from files that differ from their commit." in text


def test_a_candidate_that_the_development_split_speaks_against_is_said(tmp_path):
    sweep = transfer_sweep(titles=("Digits",), seeds=(0,))
    write_sweep(tmp_path, sweep)
    write_run(tmp_path, result("digits", 0.7, phase="dev", lr=0.001))
    write_run(tmp_path, result("digits", 0.9, phase="dev", lr=0.003))
    write_run(tmp_path, result("digits", 0.8, lr=0.001))
    text = Reader(write_and_read(tmp_path, to=tmp_path / "page")).text
    assert "The final runs have optim.lr 0.001; on the development split optim.lr 0.003 is better." in text


def test_many_classes_are_shown_as_the_most_confused_pairs(tmp_path):
    sweep = transfer_sweep(titles=("Digits",), seeds=(0,), candidates={"optim.lr": (0.01,)})
    write_sweep(tmp_path, sweep)
    names = tuple(f"class {n}" for n in range(31))
    place = write_run(tmp_path, result("digits", 28 / 31, num_examples=31, names=names))
    predicted = list(range(31))
    predicted[3], predicted[4], predicted[30] = 5, 5, 0
    write_predictions(place, range(31), predicted)
    page = write_and_read(tmp_path, to=tmp_path / "page")
    assert '<table class="matrix"' not in page
    assert "Most confused of 31 classes" in page
    rows = re.findall(
        r'<th scope="row">(class \d+)</th><td class="left">(class \d+)</td><td>1</td><td>100.0%</td>', page
    )
    assert rows == [("class 3", "class 5"), ("class 4", "class 5"), ("class 30", "class 0")]


def test_a_failed_report_leaves_the_old_page_and_nothing_half_written(tmp_path):
    write_vtab(tmp_path / "s", seeds=(0,))
    write_report([tmp_path / "s"], tmp_path / "page")
    before = {file: file.read_bytes() for file in (tmp_path / "page").iterdir()}
    (tmp_path / "s" / "sweep.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        write_report([tmp_path / "s"], tmp_path / "page")
    assert {file: file.read_bytes() for file in (tmp_path / "page").iterdir()} == before
