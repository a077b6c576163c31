"""Reads and classifies image files, for notebooks and scripts/predict.py."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from vit_jax.data.formats.listing import PATTERNS, list_images
from vit_jax.data.image.decode import decode
from vit_jax.data.image.encoded import MAX_BYTES
from vit_jax.data.image.recipes import RECIPES, Transform, make_transform
from vit_jax.files import read_regular
from vit_jax.types import UserError, itemize

THREADS = 4


class Prediction(NamedTuple):
    """The likeliest classes of an image file.

    Args:
      file: its path.
      classes: (name, probability) of the likeliest classes, best first; empty where the file cannot be read.
      error: why it cannot be read; empty where it can.
    """

    file: str
    classes: tuple[tuple[str, float], ...]
    error: str = ""


def read_images(files: Iterable[str | os.PathLike[str]], resolution: tuple[int, int]) -> np.ndarray:
    """Reads image files as a model of `load_model` takes them, prepared as evaluation prepares them.

    Args:
      files: JPEG, PNG or whatever else Pillow reads; turned upright, gray made RGB.
      resolution: (h, w) in pixels that every image is squashed to, bilinearly without antialiasing, as the release does.

    Returns:
      float32 (b, h, w, 3) in [-1, 1], the range of all released weights.

    Raises:
      UserError: files that cannot be read as images; names them.
    """
    transform = make_transform("eval", resolution)
    images, wrong = [], []
    for file in files:
        image = _read(os.fspath(file), transform)
        if isinstance(image, str):
            wrong.append(f"{os.fspath(file)}: {image}")
        else:
            images.append(image)
    if wrong or not images:
        raise UserError(f"these files cannot be read as images:\n{itemize(wrong or ['none was given'])}")
    return np.stack(images).astype(np.float32) / 127.5 - 1


def find_images(paths: Sequence[str]) -> list[str]:
    """Files as they are given, and of a folder all images in it and below, in order; hidden ones are left out.

    Raises:
      UserError: a folder without images.
    """
    files: list[str] = []
    wrong = []
    for path in paths:
        place = Path(path).expanduser()
        if not place.is_dir():
            files.append(str(place))
            continue
        images = [str(place / image) for image in list_images(epath.Path(place))[0]]
        if not images:
            wrong.append(f"{path}: no file in it or below matches {PATTERNS}")
        files += images
    if wrong:
        raise UserError(f"expected image files and folders of them:\n{itemize(wrong)}")
    return files


def classify(
    model: str,
    paths: Sequence[str],
    *,
    weights: str = "raw",
    top: int = 5,
    batch_size: int = 32,
    **overrides: Any,
) -> Iterator[Prediction]:
    """Classifies image files with a checkpoint of any format, in order, a batch at a time. Images are prepared as the run of
    the checkpoint prepared those that it was scored on, or, where the checkpoint does not tell, squashed as the release does.

    Args:
      model: as of `load_model`.
      paths: as of `find_images`.
      weights: of a run of ours, `raw` or `average`.
      top: classes of each image.
      batch_size: images that are computed at once.
      **overrides: as of `load_model`.

    Yields:
      A prediction of each file; one that cannot be read has an error in place of classes.

    Raises:
      UserError: no such files, no such checkpoint, or a head that was never trained.
    """
    import jax

    from vit_jax.convert.load import check_head, load, resolution_of
    from vit_jax.models.build import make_forward

    files = find_images(paths)
    loaded = load(model, weights=weights, stored_pixels=True, **{"channels": 3, **overrides})
    check_head(loaded)
    transform = make_transform(_recipe_of(loaded.source.meta), resolution_of(loaded))
    names = loaded.source.meta.get("class_names") or []
    forward = jax.jit(make_forward(loaded.module))
    size = min(batch_size, len(files))  # of every batch, the last one filled up: one program is compiled
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), size):
            chunk = files[start : start + size]
            images = list(pool.map(_read, chunk, [transform] * len(chunk)))
            batch = np.zeros((size, *transform.resolution, 3), np.uint8)
            for row, image in zip(batch, images, strict=False):
                if not isinstance(image, str):
                    row[...] = image
            shares = np.asarray(jax.nn.softmax(forward(loaded.params, batch).logits))
            for file, image, share in zip(chunk, images, shares, strict=False):
                best = np.argsort(-share)[: 0 if isinstance(image, str) else top]
                classes = tuple((names[i] if i < len(names) else f"class {i}", float(share[i])) for i in best)
                yield Prediction(file, classes, image if isinstance(image, str) else "")


def _recipe_of(meta: Mapping[str, Any]) -> str:
    """The recipe that a checkpoint says it was scored with; that of the release where it names none without chance in it."""
    saved = (meta.get("preprocessing") or {}).get("recipe")
    return saved if saved in RECIPES and not RECIPES[saved].is_random else "eval"


def _read(file: str, transform: Transform) -> np.ndarray | str:
    """uint8 (h, w, 3), or why it cannot be read."""
    try:
        image = decode(read_regular(file, limit=MAX_BYTES))
        return transform.map_image(image, np.random.default_rng(0))
    except (OSError, ValueError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return reason or type(error).__name__
