"""The page beside an export says what goes in and what comes out."""

from tiny_exports import tiny

from vit_jax.export.page import describe
from vit_jax.export.program import make_program


def test_the_page_names_input_output_and_recipe():
    page = describe(make_program(tiny(meta={"preprocessing": {"recipe": "eval_crop"}})), "onnx", "model.onnx")
    assert "# tiny_vit: probabilities" in page
    assert "`images`, uint8 (b, 8, 12, 3), b of any size, RGB" in page
    assert "`probabilities`, float32 (b, 5)" in page
    assert "recipe `eval_crop`" in page
    assert "the aspect ratio kept, crop: central" in page
    boxes = describe(make_program(tiny("yolos")), "stablehlo", "model.stablehlo")
    assert "`scores`, float32 (b, q, 5)" in boxes
    assert "recipe `detect_eval`" in boxes
    for text in (page, boxes):
        compile(text.split("```python\n")[1].split("```")[0], "page", "exec")
