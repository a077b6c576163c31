"""A page in the browser on which checkpoints are tried: an image in; classes, attention or boxes out, side by side.

Gradio serves it: the extra `demo`. Nothing of the page leaves the machine.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax import detect
from vit_jax.convert.load import Loaded, load
from vit_jax.data.image.decode import Image, decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.files import UnreadableFile, read_regular
from vit_jax.insight.attention import joint_attention
from vit_jax.insight.pictures import from_output
from vit_jax.insight.subject import prepare
from vit_jax.models.build import count_params
from vit_jax.predict import Predictor
from vit_jax.report.maps import enlarged, overlay
from vit_jax.types import UserError, printable

MAX_MEGABYTES = 20  # of an upload
TOP = 5  # classes that are shown
SIDE = 320  # pixels, at least, of the shorter side of a map


@dataclasses.dataclass(frozen=True)
class Shown:
    """One checkpoint on the page.

    Args:
      title, about: its name and a line about it.
      answers: {label of an output: function from an image, uint8 (h, w, 3), to its value}, {class: probability} or a picture.
    """

    title: str
    about: str
    answers: Mapping[str, Callable[[Image], Any]]


def show(model: str, **overrides: Any) -> Shown:
    """Loads a checkpoint of any format and finds out what it answers with.

    Raises:
      UserError: the checkpoint is missing, or answers with nothing that can be shown.
    """
    loaded = load(model, stored_pixels=True, **{"channels": 3, **overrides})
    answers: dict[str, Callable[[Image], Any]] = {}
    if detect.is_detector(loaded):
        answers["Objects"] = functools.partial(_find_objects, detect.Detector.of(loaded, batch_size=1))
    elif loaded.settings.get("num_classes"):
        answers["Classes"] = functools.partial(_classify, Predictor.of(loaded, batch_size=1))
    attend = _make_attention(loaded)
    if attend is not None:
        answers["Attention"] = attend
    if not answers:
        raise UserError(f"{model} has no head, and no attention among its patches: there is nothing to show of it")
    title = Path(model).resolve().name if Path(model).exists() else model
    return Shown(title, f"{loaded.settings['name']}, {count_params(loaded.params):,} parameters", answers)


def _classify(predictor: Predictor, image: Image) -> dict[str, float]:
    """{class: probability} of the likeliest classes."""
    (row,) = predictor([image])
    return {predictor.classes[i]: float(row[i]) for i in np.argsort(-row)[:TOP]}


def _find_objects(detector: detect.Detector, image: Image) -> Image:
    """The image with a frame around each object."""
    return detect.draw(detector.find(image), detector.classes)


def _make_attention(loaded: Loaded) -> Callable[[Image], Image] | None:
    """From an image to attention rollout over it; None for a model without attention among all patches."""
    subject = prepare(loaded)
    if "attention" not in subject.capture or subject.tokens is None:
        return None
    tokens, transform = subject.tokens, make_transform(subject.recipe, subject.resolution)
    forward = subject.compiled(("attention",))

    def attend(image: Image) -> Image:
        pixels = transform.map_image(image, np.random.default_rng(0))
        outputs = forward(pixels[None])
        joint = joint_attention([np.asarray(x) for x in outputs.attention or ()])
        return overlay(enlarged(pixels, SIDE), from_output(joint, tokens, outputs.extra.get("probe"))[0])

    return attend


def read_upload(file: str) -> Image:
    """The pixels of an uploaded file.

    Raises:
      UserError: it is no image, or too large.
    """
    try:
        return decode(read_regular(file, limit=MAX_MEGABYTES * 2**20))
    except (OSError, ValueError, MemoryError) as error:
        reason = f"{error}" if isinstance(error, UnreadableFile | ValueError) else type(error).__name__
        raise UserError(f"this file cannot be read as an image ({printable(reason)}); try a JPEG or a PNG") from error


def build(shown: Sequence[Shown]) -> Any:
    """The page, a `gradio.Blocks`."""
    gr = import_gradio()

    def answer(file: str | None) -> list[Any]:
        if file is None:
            return [None] * len(outputs)
        try:
            image = read_upload(file)
            return [function(image) for one in shown for function in one.answers.values()]
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    title = " and ".join(one.title for one in shown)
    outputs: list[Any] = []
    with gr.Blocks(analytics_enabled=False, title=title) as page:
        # A file, and not Gradio's image: its decoder answers a broken one with a traceback.
        file = gr.File(label=f"An image, at most {MAX_MEGABYTES} MB", type="filepath", elem_id="upload")
        with gr.Row():
            for one in shown:
                with gr.Column(min_width=280):
                    gr.HTML(f"<h2>{html.escape(one.title)}</h2><p>{html.escape(one.about)}</p>")
                    for label in one.answers:
                        kind = gr.Label if label == "Classes" else gr.Image
                        outputs.append(kind(label=label, **({} if label == "Classes" else {"buttons": ["download"]})))
        file.change(answer, file, outputs, api_name="answer")
    return page


def import_gradio() -> Any:
    """Gradio, which sends no figures of its use.

    Raises:
      UserError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise UserError("the demo is served by Gradio, which is missing: pip install 'vit_jax[demo]'") from error
    return gradio


def serve(shown: Sequence[Shown], *, host: str, port: int, wait: bool = True) -> Any:
    """Serves the page until it is interrupted; without `wait` it returns the running page.

    Raises:
      UserError: Gradio is missing, or the port is taken.
    """
    page = build(shown)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            show_error=True,
            max_file_size=MAX_MEGABYTES * 2**20,
            prevent_thread_lock=True,
            footer_links=[],
        )
    except OSError as error:
        raise UserError(
            f"port {port} of {host} cannot be had: another program listens there? Try --port={port + 1}"
        ) from error
    print(f"http://{host}:{port}  (Ctrl-C ends it)", flush=True)
    if wait:
        page.block_thread()
    return page
