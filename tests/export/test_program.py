"""The function that an export holds: which outputs, of which numbers, and what is refused."""

import jax
import numpy as np
import pytest
from tiny_exports import images, outputs, tiny

from vit_jax.export.program import abstract_images, make_program, read_boxes
from vit_jax.types import Outputs, UserError


def test_a_model_gives_what_it_has_unless_another_output_is_asked_for():
    assert make_program(tiny()).output == "probabilities"
    assert make_program(tiny("yolos")).output == "boxes"
    assert make_program(tiny("mae")).output == "features"
    assert make_program(tiny(num_classes=0)).names == ("features",)
    assert make_program(tiny(), "features").classes == ()
    named = make_program(tiny(meta={"class_names": ["cat", "dog"]}))
    assert named.classes == ("cat", "dog", "class 2", "class 3", "class 4")


def test_what_a_model_lacks_is_refused():
    with pytest.raises(UserError, match="tiny_vit is no detector and has no boxes"):
        make_program(tiny(), "boxes")
    with pytest.raises(UserError, match="tiny_mae has no head to classify with"):
        make_program(tiny("mae"), "probabilities")
    with pytest.raises(UserError, match="finds objects and gives an image no class"):
        make_program(tiny("yolos"), "probabilities")
    with pytest.raises(UserError, match="output is 'logits'; expected probabilities, features, boxes"):
        make_program(tiny(), "logits")


@pytest.mark.slow
def test_scores_follow_the_kind_of_target():
    found = {}
    for target in ("ClassId", "ClassSet", "Values"):
        program = make_program(tiny(meta={"target": target}))
        (found[target],) = outputs(program, images(2)).values()
        assert program.names == (("values",) if target == "Values" else ("probabilities",))
    logits = found["Values"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["ClassId"], shares, rtol=1e-4)
    np.testing.assert_allclose(found["ClassSet"], 1 / (1 + np.exp(-logits)), rtol=1e-4)


def test_boxes_are_corners_and_no_object_has_no_score():
    extra = {
        "boxes": np.array([[[0.5, 0.25, 0.2, 0.5]]], np.float32),
        "class_logits": np.log(np.array([[[0.2, 0.5, 0.3]]], np.float32)),
    }
    found = read_boxes(Outputs(None, None, None, None, extra=extra))
    np.testing.assert_allclose(found["boxes"], [[[0.4, 0.0, 0.6, 0.5]]], atol=1e-6)
    np.testing.assert_allclose(found["scores"], [[[0.2, 0.5]]], atol=1e-6)


@pytest.mark.slow
def test_layers_are_unrolled_with_the_plain_attention_and_any_batch():
    program = make_program(tiny("scanned", attention="splash"))
    shape = abstract_images(program)
    assert (str(shape.shape), shape.dtype, program.channels) == ("(b, 8, 12, 3)", np.uint8, 3)
    text = str(jax.make_jaxpr(program.run)(images(1)))
    assert "scan" not in text
    assert "pallas" not in text
