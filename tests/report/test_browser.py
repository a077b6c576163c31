"""The page in a real Chromium: its tables say what result.json says, nothing complains, nothing sticks out on a phone.

With REPORT_SCREENSHOTS=FOLDER the pages are photographed there, at desktop and phone width, light and dark.
"""

import dataclasses
import json
import os
import statistics
from pathlib import Path

import chromium
import numpy as np
import pytest
from folders import (
    HOSTILE,
    result,
    vtab_score,
    vtab_sweep,
    write_mistakes,
    write_predictions,
    write_run,
    write_sweep,
    write_transfer,
)
from test_explained import write as write_explanation

from vit_jax.data.vtab.tasks import TASKS
from vit_jax.report.explained import write_explained
from vit_jax.report.page import write_report

pytestmark = pytest.mark.browser

DESKTOP, PHONE = 1280, 390
TABLE = """(id => [...document.getElementById(id).rows].map(row => [...row.cells].map(cell => {
    const text = cell.cloneNode(true);
    text.querySelectorAll('small').forEach(small => small.prepend(' '));
    return text.textContent.trim().replace(/\\s+/g, ' ');
})))"""
STICKS_OUT = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.fixture(scope="module")
def browser():
    found = chromium.find_chromium()
    assert found, "no Chromium on this machine: leave these tests out with -m 'not browser', or set CHROMIUM"
    with chromium.start(found) as page:
        yield page


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{name: page}: two sweeps of table 9, a transfer sweep with hostile names, both, an empty one, and an explanation."""
    place = tmp_path_factory.mktemp("sweeps")
    tasks = vtab_sweep().tasks
    missing = (*tasks[:7], dataclasses.replace(tasks[7], missing="patch_camelyon is not prepared"), *tasks[8:])
    for label, own in (("pretrained", tasks), ("from scratch", missing)):
        sweep = vtab_sweep(label=label, tasks=own)
        (place / label).mkdir()
        write_sweep(place / label, sweep)
        for number, (task, spec) in enumerate(zip(own, TASKS.values(), strict=True)):
            names = tuple(f"class {n}" for n in range(spec.classes))
            for seed in sweep.seeds if not task.missing else ():
                score = vtab_score(number, seed)
                run = write_run(place / label, result(task.name, score, seed=seed, names=names), curves=number < 2)
                labels = [n % spec.classes for n in range(200)]
                right = round(score * 200)
                wrong = [(n + 1) % spec.classes for n in labels[right:]]
                write_predictions(run, labels, [*labels[:right], *wrong])
                if number < 2:
                    write_mistakes(run, files=[f"{n}.png" for n in range(5)])
    write_transfer(
        place / "transfer", names=(HOSTILE, "a-very-long-name-of-a-class-" * 8), label=HOSTILE, title=HOSTILE
    )
    (place / "empty").mkdir()
    write_sweep(place / "empty", vtab_sweep())
    folders = {
        "vtab": ["pretrained", "from scratch"],
        "transfer": ["transfer"],
        "mixed": ["pretrained", "transfer"],
        "empty": ["empty"],
    }
    for name, chosen in folders.items():
        write_report([place / folder for folder in chosen], place / "pages" / name)
    (place / "pages" / "explained").mkdir()
    facts = {"checkpoint": "runs/" + "a-very-long-name-" * 20, "object_classes": ["cat"]}
    objects = {"boxes": np.array([[[1, 1, 4, 3]]]), "box_classes": np.array([[0]]), "box_scores": np.array([[0.75]])}
    write_explanation(place / "pages" / "explained", facts, **objects)
    write_explained(place / "pages" / "explained")
    named = [*folders, "explained"]
    return {name: place / "pages" / name / "index.html" for name in named} | {"sweep": place / "pretrained"}


def shoot(browser, name):
    if folder := os.environ.get("REPORT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")


def expected_row(sweep_folder):
    """Table 9's row, from the result files alone."""
    cells = []
    for name in TASKS:
        files = sorted(sweep_folder.glob(f"runs/vtab-{name}/*/result.json"))
        scores = [100 * json.loads(file.read_text())["scores"]["top1"] for file in files]
        assert len(scores) == 3
        cells.append(scores)
    means = [
        [statistics.fmean(scores) for scores in zip(*cells[a:b], strict=True)] for a, b in ((0, 7), (7, 11), (11, 19))
    ]
    overall = [statistics.fmean(scores) for scores in zip(*cells, strict=True)]
    return [f"{statistics.fmean(found):.1f} ± {statistics.stdev(found):.1f}" for found in (*cells, *means, overall)]


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no_scripts"])
def test_cells_of_table_9_are_the_numbers_of_the_result_files(browser, pages, scripts):
    browser.open(pages["vtab"], width=DESKTOP, scripts=scripts)
    rows = browser.value(f"{TABLE}('table9')")
    assert rows[1] == [
        "model",
        *(task.title for task in TASKS.values()),
        "Natural",
        "Specialized",
        "Structured",
        "All 19",
    ]
    assert rows[2] == ["pretrained 3 seeds", *expected_row(pages["sweep"])]
    scratch = rows[3]
    assert scratch[0] == "from scratch 3 seeds"
    assert [scratch[8], scratch[21], scratch[23]] == ["–"] * 3  # noqa: RUF001  # Camelyon and the means over it
    assert rows[4][0] == "difference to pretrained, points"
    assert rows[5][:3] == ["ViT-H/14 (JFT) table 9", "95.3", "85.5"]
    assert len(rows) == 8


@pytest.mark.parametrize("name", ["vtab", "transfer", "mixed", "empty", "explained"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_nothing_sticks_out_and_nothing_complains(browser, pages, name, dark, width):
    browser.complaints.clear()
    browser.open(pages[name], width=width, dark=dark)
    assert browser.value(STICKS_OUT) == 0
    shoot(browser, f"{name}-{width}-{'dark' if dark else 'light'}")
    browser.value(OPEN_ALL)
    assert browser.value(STICKS_OUT) == 0
    assert browser.value("[...document.images].filter(image => !image.naturalWidth).length") == 0
    if name == "transfer":
        shoot(browser, f"{name}-{width}-{'dark' if dark else 'light'}-open")
    assert browser.complaints == []


def test_a_wide_table_scrolls_in_its_box_with_its_first_column_in_place(browser, pages):
    browser.open(pages["vtab"], width=PHONE)
    browser.value("box = document.getElementById('table9').parentElement, box.scrollLeft = 300")
    assert browser.value("[box.scrollLeft, box.scrollWidth > box.clientWidth]") == [300, True]
    assert browser.value("box.querySelector('tbody th').getBoundingClientRect().left") == 16  # the margin


def test_table_9_fits_on_a_landscape_page(browser, pages):
    browser.open(pages["vtab"], width=1031, media="print")  # A4 less its margins, 273 mm at 96 dpi
    assert browser.value(STICKS_OUT) == 0
    assert browser.value("document.getElementById('table9').getBoundingClientRect().right") < 1031
    shoot(browser, "vtab-print")


def test_colours_follow_the_scheme_in_drawings_too(browser, pages):
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    found = []
    for dark in (False, True):
        browser.open(pages["transfer"], width=DESKTOP, dark=dark)
        paper = browser.value("getComputedStyle(document.body).backgroundColor")
        found.append((paper, browser.value(ink)))
    assert found == [("rgb(253, 253, 251)", "rgb(102, 101, 95)"), ("rgb(22, 22, 20)", "rgb(160, 158, 150)")]


def test_hostile_names_are_read_as_text_and_run_nothing(browser, pages):
    browser.complaints.clear()
    browser.open(pages["transfer"], width=DESKTOP)
    assert browser.value("document.querySelector('h1').textContent") == HOSTILE
    assert browser.value("document.querySelectorAll('img[onerror]').length") == 0
    assert browser.complaints == []


def test_a_link_to_a_task_opens_it_and_paper_shows_every_task(browser, pages):
    browser.open(pages["vtab"], width=DESKTOP)
    assert browser.value("document.querySelectorAll('details[open]').length") == 0
    browser.value("location.hash = document.querySelectorAll('details')[4].id")
    browser.value("new Promise(done => setTimeout(done, 100))")
    browser.value("dispatchEvent(new Event('hashchange'))")
    assert browser.value("document.querySelectorAll('details')[4].open") is True
    browser.value("dispatchEvent(new Event('beforeprint'))")
    assert browser.value("document.querySelectorAll('details:not([open])').length") == 0


def test_the_browser_does_notice_what_these_tests_look_for(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<body style='margin:0'><div style='width:2000px'>x</div><img src=gone.png><script>console.error('no')</script>"
    )
    browser.complaints.clear()
    browser.open(page, width=PHONE)
    assert browser.value("document.documentElement.scrollWidth") == 2000
    assert browser.value("[...document.images].filter(image => !image.naturalWidth).length") == 1
    assert any("no" in complaint for complaint in browser.complaints)
    assert any("gone.png" in complaint for complaint in browser.complaints)
    browser.complaints.clear()
