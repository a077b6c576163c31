"""What a card says of each library: a command where the folder must be converted first, and why where it cannot be."""

import ast
import shlex

import pytest

from vit_jax.cards.loading import usage_of
from vit_jax.cli.convert import make_parser


@pytest.mark.parametrize("form", ["run", "hf", "timm", "orbax"])
@pytest.mark.parametrize("task", ["image-classification", "object-detection", "image-feature-extraction"])
def test_all_five_libraries_have_python_that_parses_and_commands_that_the_verb_takes(form, task):
    listed = usage_of("it's a run", form, task=task)
    assert [usage.library for usage in listed] == ["vit_jax", "transformers", "timm", "torch", "jax"]
    for usage in listed:
        ast.parse(usage.python)
        if usage.shell:
            flags = make_parser().parse_args(shlex.split(usage.shell)[2:])
            assert flags.model == "it's a run"
            assert repr(flags.to)[1:-1] in usage.python


def test_a_folder_of_a_library_is_loaded_by_it_without_conversion():
    steps = {form: {u.library: bool(u.shell) for u in usage_of("x", form)} for form in ("run", "hf", "timm")}
    assert steps["hf"] == {"vit_jax": False, "transformers": False, "timm": True, "torch": False, "jax": False}
    assert steps["timm"] == {"vit_jax": False, "transformers": True, "timm": False, "torch": False, "jax": False}
    assert steps["run"] == {"vit_jax": False, "transformers": True, "timm": True, "torch": True, "jax": True}


def test_a_library_that_cannot_hold_the_model_says_why_and_torch_takes_another_file():
    listed = {u.library: u for u in usage_of("x", "run", refused={"hf": "it has registers", "timm": "it is axial"})}
    assert (listed["transformers"].why_not, listed["timm"].why_not) == ("it has registers", "it is axial")
    assert listed["transformers"].python == listed["timm"].python == ""
    assert "x.npz" in listed["torch"].python
    assert "x_timm" in {u.library: u for u in usage_of("x", "run", refused={"hf": "why"})}["torch"].python
