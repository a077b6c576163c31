"""The page beside an export says what goes in and what comes out."""

import yaml
from tiny_exports import tiny

from vit_jax.cards.facts import of_loaded
from vit_jax.export.page import describe
from vit_jax.export.program import make_program


def page_of(loaded, format):
    return describe(make_program(loaded), format, f"model.{format}", of_loaded(loaded, "out", "orbax"))


def test_the_page_names_input_output_and_recipe():
    page = page_of(tiny(meta={"preprocessing": {"recipe": "eval_crop"}}), "onnx")
    header = yaml.safe_load(page.split("---")[1])
    assert (header["library_name"], header["pipeline_tag"]) == ("onnxruntime", "image-classification")
    assert "# tiny\\_vit\\: probabilities" in page
    assert "`images`, uint8 (b, 8, 12, 3), b of any size, RGB" in page
    assert "`probabilities`, float32 (b, 5)" in page
    assert "recipe `eval_crop`" in page
    assert "the aspect ratio kept, crop: central" in page
    boxes = page_of(tiny("yolos"), "stablehlo")
    assert "`scores`, float32 (b, q, 5)" in boxes
    assert "recipe `detect_eval`" in boxes
    for text in (page, boxes):
        compile(text.split("```python\n")[1].split("```")[0], "page", "exec")
