"""The documents point to what is there: links, images, files and verbs; and CONTRIBUTING.md's map is the package's."""

import re
from pathlib import Path

import pytest
from test_architecture import MAY_IMPORT

import vit_jax
from vit_jax.cards.released import markdown
from vit_jax.cli.main import VERBS
from vit_jax.convert.released import BY_NAME

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_and_four_pages_are_found_and_the_readme_is_short():
    names = {path.name for path in DOCUMENTS}
    assert names >= {
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "data.md",
        "weights.md",
        "sweeps.md",
        "benchmark.md",
    }
    assert len((ROOT / "README.md").read_text().splitlines()) < 250


def test_the_readme_links_to_every_page_of_docs():
    readme = (ROOT / "README.md").read_text()
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == set(re.findall(r"\]\(docs/(\w+\.md)\)", readme))


@each_document
def test_every_relative_link_and_image_exists(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        assert place.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(place), f"{path.name} links to {target}"
        if place.suffix == ".png":
            assert place.stat().st_size > 10_000


@each_document
def test_every_verb_that_a_document_names_is_one(path):
    found = re.findall(r"(?:^|`)(?:python -m )?vit_jax ([a-z]+)", path.read_text(), re.MULTILINE)
    assert set(found) <= set(VERBS), path.name


@each_document
def test_every_file_of_the_project_that_a_document_names_is_there(path):
    if path.name == "CHANGELOG.md":  # names files of older versions
        return
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE) + path.read_text()
    for name in re.findall(
        r"(?<![\w/.-])((?:configs|scripts|docs|tests|vit_jax)/[\w./-]*\w|requirements[\w-]*\.\w+)", text
    ):
        assert (ROOT / name).exists(), f"{path.name} names {name}"
    for module in re.findall(r"python -m (vit_jax\.[\w.]+)", text):
        place = ROOT / Path(*module.split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file(), f"{path.name} names {module}"


def test_the_citation_and_the_changelog_know_the_version():
    citation, changelog = (ROOT / "CITATION.cff").read_text(), (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {vit_jax.__version__}\n" in citation
    headings = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1].startswith(f"{vit_jax.__version__} - ")


def test_the_page_of_released_models_is_what_the_verb_writes():
    assert (ROOT / "docs" / "models.md").read_text() == markdown()


def test_every_released_model_that_the_documents_name_is_one():
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    found = set(re.findall(r"(?:augreg|imagenet21k(?:\+imagenet2012)?|bit-[sm]):[\w+-]+(?:/\d+)?", text))
    assert len(found) >= 4
    assert found <= set(BY_NAME)


def test_the_map_in_contributing_names_every_room_and_module_once():
    block = CONTRIBUTING.split("## The map of the house")[1].split("```")[1]
    named = re.findall(r"^ {2}(\w+)(?:\.py|/) ", block, re.MULTILINE)
    assert sorted(named) == sorted(MAY_IMPORT.keys() - {"__main__"})


def test_the_table_of_imports_in_contributing_is_that_of_test_architecture():
    block = CONTRIBUTING.split("| room | may import |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", block, re.MULTILINE)
    assert len(rows) == 7
    for room, cell in rows:
        assert set(re.findall(r"`([\w.]+)`", cell)) == MAY_IMPORT[room], room
