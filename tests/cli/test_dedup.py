"""`vit_jax dedup`: which threshold counts, and what the search is given."""

from pathlib import Path

import pytest

from vit_jax.cli import dedup
from vit_jax.data.dedup import search
from vit_jax.insight.representation import Representation

WORDS = ["--train=photos", "--against=cifar10@test", "--against=pets", "--to=out"]


@pytest.fixture
def asked(monkeypatch):
    """The searches that were asked for; none is made, and no model is loaded."""
    found = []
    monkeypatch.setattr(search, "deduplicate", found.append)
    monkeypatch.setattr(Representation, "load", lambda *arguments, **settings: (arguments, settings))
    monkeypatch.setattr(dedup, "set_up_process", lambda: None)
    return found


def test_without_a_model_pixels_confirm_by_their_correlation(asked):
    assert dedup.main([*WORDS, "--correlation=0.8", "--similarity=0.1", "--radius=6", "--pairs=5", "--threads=3"]) == 0
    (given,) = asked
    assert (given.train, given.against, given.to) == ("photos", ["cifar10@test", "pets"], "out")
    assert (given.least, given.radius, given.shown, given.threads) == (0.8, 6, 5, 3)
    assert (given.model, given.neighbours) == (None, False)


def test_with_a_model_its_representations_confirm_by_their_cosine_and_are_kept_in_the_folder(asked):
    words = ["--checkpoint=x.npz", "--neighbours", "--set=channels=1", "--weights=average", "--batch=16", "--threads=2"]
    assert dedup.main([*WORDS, *words]) == 0
    (given,) = asked
    arguments, settings = given.model
    assert arguments == ("x.npz", Path("out") / "embeddings")
    assert settings == {
        "settings": ["channels=1"],
        "batch_size": 16,
        "threads": 2,
        "weights": "average",
        "channels": 1,
    }
    assert (given.least, given.neighbours) == (0.9, True)
