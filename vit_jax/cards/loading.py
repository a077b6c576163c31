"""How five libraries load a model: ours, transformers, timm, torch and jax; the parts of a card that are code."""

from __future__ import annotations

import shlex
from typing import Literal

from vit_jax.cards.card import Usage

Form = Literal["run", "hf", "timm", "orbax"]
Task = Literal["image-classification", "object-detection", "image-feature-extraction", "fill-mask"]
AUTO = {
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "image-feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForPreTraining",
}
OURS = {
    "image-classification": """
from vit_jax import Predictor

predictor = Predictor.load({folder})
probabilities = predictor(["photo.jpg"])  # (1, c), in the order of predictor.classes
""",
    "object-detection": """
from vit_jax.convert.load import load
from vit_jax.detect import Detector

detector = Detector.of(load({folder}, stored_pixels=True))
(found,) = detector.files(["photo.jpg"])  # boxes in pixels, classes and scores
""",
    "other": """
from vit_jax import load_model, read_images

module, params = load_model({folder})
tokens = module.apply({{"params": params}}, read_images(["photo.jpg"], {resolution})).tokens  # (1, n, d)
""",
}
TRANSFORMERS = """
from PIL import Image
from transformers import AutoImageProcessor, {auto}

processor = AutoImageProcessor.from_pretrained({folder})
model = {auto}.from_pretrained({folder})
outputs = model(**processor(Image.open("photo.jpg").convert("RGB"), return_tensors="pt"))
"""
TIMM = """
import timm

model = timm.create_model("local-dir:" + {folder}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
"""
TORCH = """
from safetensors.torch import load_file

state = load_file({file})  # {{name: tensor}}, under the names of {library}
"""
JAX = """
from safetensors.flax import load_file

params = load_file({file})  # {{name: jax.Array}}, under the names of {library}
"""
JAX_NPZ = """
import jax.numpy as jnp
import numpy as np

params = {{name: jnp.asarray(x) for name, x in np.load({file}).items()}}  # under the released files' names
"""
TORCH_NPZ = """
import numpy as np
import torch

state = {{name: torch.from_numpy(x) for name, x in np.load({file}).items()}}  # under the released files' names
"""


def usage_of(
    folder: str,
    form: Form,
    *,
    task: str = "image-classification",
    refused: dict[str, str] | None = None,
    resolution: tuple[int, int] = (224, 224),
) -> list[Usage]:
    """What a card says of each library.

    Args:
      folder: the folder's name, as the code is to write it.
      form: what the folder is.
      task: Hugging Face's name of the model's task.
      refused: {`hf` or `timm`: why that format cannot hold the model}.
      resolution: (h, w) in pixels.
    """
    refused = refused or {}
    places = {other: folder if other == form else f"{folder}_{other}" for other in ("hf", "timm")}
    places["npz"] = f"{folder}.npz"
    steps = {other: "" if place == folder else _convert(folder, place, other) for other, place in places.items()}
    ours = OURS.get(task, OURS["other"]).format(folder=repr(folder), resolution=resolution)
    listed = [Usage("vit_jax", "", ours)]
    auto = TRANSFORMERS.format(auto=AUTO.get(task, "AutoModel"), folder=repr(places["hf"]))
    for name, other, code in (("transformers", "hf", auto), ("timm", "timm", TIMM.format(folder=repr(places["timm"])))):
        why_not = refused.get(other, "")
        listed.append(Usage(name, "", "", why_not) if why_not else Usage(name, steps[other], code))
    other = next((o for o in dict.fromkeys((form, "hf", "timm")) if o in ("hf", "timm") and o not in refused), "npz")
    if other == "npz":
        file = repr(places["npz"])
        return [
            *listed,
            *(Usage(n, steps["npz"], c.format(file=file)) for n, c in (("torch", TORCH_NPZ), ("jax", JAX_NPZ))),
        ]
    options = {
        "file": repr(f"{places[other]}/model.safetensors"),
        # Those of transformers 5's own modules differ.
        "library": "the Hub's files, which from_pretrained reads" if other == "hf" else other,
    }
    torch = Usage("torch", steps[other], TORCH.format(**options))
    if form in ("hf", "timm"):
        return [*listed, torch, Usage("jax", "", JAX.format(**options))]
    return [*listed, torch, Usage("jax", steps["npz"], JAX_NPZ.format(file=repr(places["npz"])))]


def _convert(folder: str, place: str, form: str) -> str:
    return f"vit_jax convert {shlex.quote(f'--model={folder}')} {shlex.quote(f'--to={place}')} --format={form}"
