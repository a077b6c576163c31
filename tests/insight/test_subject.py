"""What models of each family capture, found without running them."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from subjects import loaded

from vit_jax.insight.subject import BYTES, Tokens, prepare

HYBRID = {"stem": "resnet", "stem_depths": (1,), "stem_width": 8, "patch_size": (1, 1)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"registers": 2, "resolution": (16, 24)}, Tokens(True, 2, (4, 6), 0)),
        ({"pool": "map"}, Tokens(False, 0, (4, 4), 0)),
        (HYBRID, Tokens(True, 0, (4, 4), 0)),
        ({"name": "yolos", "queries": 5}, Tokens(True, 0, (4, 4), 5)),
    ],
)
def test_attention_is_captured_and_tokens_are_found_in_their_order(fields, tokens):
    subject = prepare(loaded(**fields))
    assert (subject.capture, subject.tokens, subject.depth) == (("layers", "attention"), tokens, 2)
    assert tokens.patches.stop - tokens.patches.start == tokens.grid[0] * tokens.grid[1]
    assert ["detection tokens" in note for note in subject.notes] == [True] * bool(tokens.after) + [False] * (
        "pool" in fields
    )
    assert subject.classifies == (not tokens.after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "capture", "lines"),
    [
        ({"axial": True, "pool": "gap"}, ("layers",), 1),
        ({"name": "mixer"}, ("layers",), 1),
        ({"name": "resnet", "depths": (1,), "resolution": (32, 32)}, (), 2),
    ],
)
def test_a_model_without_attention_says_in_a_line_what_it_does_not_have(fields, capture, lines):
    subject = prepare(loaded(**fields))
    assert subject.capture == capture
    assert len(subject.notes) == lines
    assert "no attention weights among all patches" in subject.notes[0]


def test_layers_that_are_stacked_are_taken_apart_and_batches_fit_into_memory(monkeypatch):
    monkeypatch.setattr("vit_jax.insight.subject.BYTES", 5 * 2 * 3 * 17 * 17 * 4)  # of five images
    stacked = loaded(scan=True)
    subject = prepare(stacked)
    assert not subject.module.scan
    assert subject.batch_size == 5 < BYTES
    name = "LayerNorm_0/scale"
    flat, whole = (flatten_dict(dict(x), sep="/") for x in (subject.params, stacked.params))
    for layer in range(2):
        np.testing.assert_array_equal(
            flat[f"Transformer/encoderblock_{layer}/{name}"], whole[f"Transformer/encoderblock/{name}"][layer]
        )
