"""The model card beside an exported model: what goes in, what comes out, and five lines that run it."""

from __future__ import annotations

import dataclasses

from vit_jax.cards.card import Facts, Usage, render, short_name
from vit_jax.data.image.recipes import describe_transform
from vit_jax.export.program import Program

STABLEHLO = """import cv2, json, numpy as np
from jax import export
model = export.deserialize(bytearray(open("{file}", "rb").read()))
image = cv2.resize(cv2.imread("photo.jpg")[..., ::-1], ({w}, {h}))
found = model.call(image[None])"""
ONNX = """import cv2, json, numpy as np
import onnxruntime
model = onnxruntime.InferenceSession("{file}")
image = cv2.resize(cv2.imread("photo.jpg")[..., ::-1], ({w}, {h}))
found = dict(zip([x.name for x in model.get_outputs()], model.run(None, {{"images": image[None]}})))"""
LAST = {
    "probabilities": 'print(json.load(open("labels.json"))[np.argmax(found["probabilities"][0])])',
    "values": 'print(dict(zip(json.load(open("labels.json")), np.asarray(found["values"][0]))))',
    "features": 'print(found["features"].shape)',
    "boxes": 'print(found["boxes"][0][np.max(found["scores"][0], axis=-1) > 0.5])',
}
OUTPUTS = {
    "probabilities": "`probabilities`, float32 (b, {count}): of each class in `labels.json`, in its order",
    "values": "`values`, float32 (b, {count}): the numbers that `labels.json` names, in its order",
    "features": "`features`, float32 (b, d): what the model's head reads",
    "boxes": "`boxes`, float32 (b, q, 4): left, top, right and bottom as shares of the image's width and height; and `scores`, "
    "float32 (b, q, {count}): of each class in `labels.json`, in its order. A box whose scores are all low is none",
}


def describe(program: Program, format: str, file: str, facts: Facts) -> str:
    """The card, in Markdown.

    Args:
      program: what was exported.
      format: `stablehlo` or `onnx`.
      file: its name.
      facts: of the checkpoint, from `cards.facts.of_loaded`; how it is loaded is replaced.
    """
    h, w = program.transform.resolution
    code = (STABLEHLO if format == "stablehlo" else ONNX).format(file=file, h=h, w=w)
    library = "jax" if format == "stablehlo" else "onnxruntime"
    facts = dataclasses.replace(
        facts,
        title=f"{short_name(program.source)}: {program.output}",
        library=library,
        place="The lines run inside this folder.",
        usage=[Usage(library, python=f"{code}\n{LAST[program.names[0]]}")],
    )
    return f"{render(facts)}\n{_input_and_output(program, format, file)}"


def _input_and_output(program: Program, format: str, file: str) -> str:
    h, w = program.transform.resolution
    facts = describe_transform(program.transform)
    needs = "jax and flatbuffers, on a CPU, a CUDA GPU or a TPU"
    if format == "onnx":
        needs = "onnxruntime, or any other runtime of ONNX (opset 18)"
    size = f"resized to {facts['resized_to'][0]}x{facts['resized_to'][1]}" if facts["resized_to"] else "resized"
    crop = "" if facts["crop"] == "none" else f", crop: {facts['crop']}"
    keeps = "the aspect ratio kept" if facts["keep_aspect"] else "the aspect ratio not kept"
    return f"""## Input and output

`{file}` is the whole model, without vit_jax. It runs with {needs}.

- Input: `images`, uint8 (b, {h}, {w}, {program.channels}), b of any size, RGB, values 0 to 255.
  The file maps them to the model's own range. It does not resize.
- Images were prepared by the recipe `{facts["recipe"]}` ({facts["source"]}):
  {size}, {facts["kernel"]}, {keeps}{crop}.
- Output: {OUTPUTS[program.names[0]].format(count=len(program.classes))}.
"""
