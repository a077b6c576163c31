"""The notebooks: saved without outputs, opening with what they show, installing first; their configs and imports exist.

They are executed, each in a kernel of its own, by tests/peers/test_notebooks.py: that takes minutes and needs Jupyter.
"""

import ast
import importlib
import json
from pathlib import Path

import pytest

from vit_jax import config as configs

FILES = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[str]:
    """The sources of a notebook's cells of one kind, in order."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def program(path: Path) -> ast.Module:
    """All cells but the first, which installs."""
    return ast.parse("\n".join(cells(path, "code")[1:]))


def test_the_five_notebooks_are_there():
    names = ["own_images", "released_weights", "sweeps", "what_did_it_learn", "without_labels"]
    assert [path.stem for path in FILES] == names


@each_notebook
def test_a_notebook_has_no_outputs_opens_with_its_subject_and_installs_first(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    first, second, *rest = notebook["cells"]
    assert first["cell_type"] == "markdown"
    assert first["source"][0].startswith("# ")
    assert "REPOSITORY" in "".join(second["source"])
    assert len({cell["id"] for cell in notebook["cells"]}) == len(rest) + 2
    for cell in [second, *rest]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@each_notebook
def test_what_a_notebook_imports_of_ours_exists(path):
    found = 0
    for node in ast.walk(program(path)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "vit_jax":
            module = importlib.import_module(node.module)
            for name in node.names:
                found += 1
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")
    assert found >= 2


@each_notebook
def test_the_configs_of_a_notebook_load_by_name(path):
    for node in ast.walk(program(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "configs.load":
            spec = node.args[0]
            configs.load(spec.value if isinstance(spec, ast.Constant) else "quickstart:finetune,init=runs/any")
