"""Reads and classifies images, for notebooks and `vit_jax predict`."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from vit_jax.data.formats.pictures import find_images, read_picture
from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import RECIPES, Transform, make_transform
from vit_jax.types import UserError, itemize

if TYPE_CHECKING:  # it imports jax
    from vit_jax.convert.load import Loaded

THREADS = 4
Picture = str | os.PathLike[str] | np.ndarray | PIL.Image.Image


class Prediction(NamedTuple):
    """The likeliest classes of an image file.

    Args:
      file: its path.
      classes: (name, probability) of the likeliest classes, best first; (name, number) in order if the model predicts numbers;
        empty if the file cannot be read.
      error: why the file cannot be read; empty if it can.
    """

    file: str
    classes: tuple[tuple[str, float], ...]
    error: str = ""


def read_images(files: Iterable[str | os.PathLike[str]], resolution: tuple[int, int]) -> np.ndarray:
    """Reads image files for a model of `load_model`, prepared as evaluation prepares them.

    Args:
      files: JPEG, PNG or any other format that Pillow reads; turned upright, gray converted to RGB.
      resolution: (h, w) in pixels that every image is squashed to, bilinearly without antialiasing, as the release does.

    Returns:
      float32 (b, h, w, 3) in [-1, 1], the range of all released weights.

    Raises:
      UserError: names the files that cannot be read as images.
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


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A checkpoint that is ready to classify images: `Predictor.load("runs/mine")(["cat.jpg"])`.

    Args:
      classes: names of the classes, in the order of the scores; `class 0` and so on if the checkpoint has none.
      transform: how images are prepared: as the checkpoint's run prepared those that it scored, or, if the checkpoint does
        not record that, squashed as the release does.
      batch_size: images per batch.
      forward: the compiled model, uint8 (b, h, w, 3) -> Outputs.
      target: the kind of target that it was trained on: ClassId; ClassSet, whose probabilities are each class's own; or Values,
        whose scores are the predicted numbers.
    """

    classes: tuple[str, ...]
    transform: Transform
    batch_size: int
    forward: Callable[[np.ndarray], Any]
    target: str = "ClassId"

    @classmethod
    def load(cls, model: str | os.PathLike[str], *, batch_size: int = 32, **overrides: Any) -> Predictor:
        """Loads a checkpoint of any format; see `load_model` for the arguments.

        Raises:
          UserError: the checkpoint is missing, or its head was never trained.
        """
        from vit_jax.convert.load import load

        return cls.of(load(model, stored_pixels=True, **{"channels": 3, **overrides}), batch_size=batch_size)

    @classmethod
    def of(cls, loaded: Loaded, *, batch_size: int = 32) -> Predictor:
        """Makes a predictor of a model that was loaded with `stored_pixels=True`; errors as in `load`."""
        import jax

        from vit_jax.convert.load import check_head
        from vit_jax.models.build import make_forward

        check_head(loaded)
        forward = functools.partial(jax.jit(make_forward(loaded.module)), loaded.params)
        target = str(loaded.source.meta.get("target", "ClassId"))
        return cls(classes_of(loaded), transform_of(loaded), batch_size, forward, target)

    def __call__(self, images: Sequence[Picture]) -> np.ndarray:
        """Returns probabilities or predicted numbers, float32 (b, c), of images: files, PIL images, or arrays, uint8
        (h, w, 3) of any size, or (h, w) for gray.

        Raises:
          UserError: names the files that cannot be read as images.
        """
        rows = list(self._scored(images))
        named = (f"image {i}" if isinstance(x, np.ndarray | PIL.Image.Image) else x for i, x in enumerate(images))
        wrong = [f"{name}: {row}" for name, row in zip(named, rows, strict=True) if isinstance(row, str)]
        if wrong or not rows:
            raise UserError(f"these files cannot be read as images:\n{itemize(wrong or ['none was given'])}")
        return np.stack(rows)

    def files(self, files: Sequence[str], top: int = 5) -> Iterator[Prediction]:
        """Yields the likeliest classes of each file, in order, batch by batch; an unreadable file has an error instead."""
        for file, row in zip(files, self._scored(files), strict=True):
            if isinstance(row, str):
                yield Prediction(file, (), row)
            else:
                order = range(len(row)) if self.target == "Values" else np.argsort(-row)[:top]
                yield Prediction(file, tuple((self.classes[i], float(row[i])) for i in order))

    def _scored(self, images: Sequence[Picture]) -> Iterator[np.ndarray | str]:
        """Yields the probabilities (c,) of each image, or why it cannot be read."""
        import jax

        size = min(self.batch_size, len(images))  # the last batch is padded, so that one program is compiled
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(images), max(size, 1)):
                read = list(pool.map(self._to_pixels, images[start : start + size]))
                batch = np.zeros((size, *self.transform.resolution, 3), np.uint8)
                for row, image in zip(batch, read, strict=False):
                    if not isinstance(image, str):
                        row[...] = image
                logits = self.forward(batch).logits
                links = {"ClassSet": jax.nn.sigmoid, "Values": lambda x: x}
                shares = np.asarray(links.get(self.target, jax.nn.softmax)(logits))
                for image, share in zip(read, shares, strict=False):
                    yield image if isinstance(image, str) else share

    def _to_pixels(self, image: Picture) -> np.ndarray | str:
        if isinstance(image, PIL.Image.Image):
            image = np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.shape[2:] not in ((), (1,), (3,)) or not image.size:
                return f"an array of {image.dtype} {image.shape}; expected uint8 (h, w, 3), or (h, w) for gray"
            image = image if image.ndim == 3 else image[..., None]
            whole = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
            return self.transform.map_image(whole, np.random.default_rng(0))
        return _read(os.fspath(image), self.transform)


def classify(
    model: str, paths: Sequence[str], *, top: int = 5, batch_size: int = 32, **overrides: Any
) -> Iterator[Prediction]:
    """Classifies image files with a checkpoint of any format, in order, batch by batch; see `Predictor`.

    Args:
      model: see `load_model`.
      paths: see `find_images`.
      top: number of classes to return for each image.
      batch_size: images per batch.
      **overrides: see `load_model`.

    Yields:
      The prediction for each file; for an unreadable file, with an error instead of classes.

    Raises:
      UserError: a file or the checkpoint is missing, or its head was never trained.
    """
    files = find_images(paths)
    yield from Predictor.load(model, batch_size=batch_size, **overrides).files(files, top)


def transform_of(loaded: Loaded) -> Transform:
    """How a checkpoint's images are prepared: by its own evaluation recipe; by the release's if it names none, or one that draws
    random numbers."""
    from vit_jax.convert.load import resolution_of

    saved = str((loaded.source.meta.get("preprocessing") or {}).get("recipe"))
    known = saved in RECIPES and not RECIPES[saved].is_random
    return make_transform(saved if known else "eval", resolution_of(loaded))


def classes_of(loaded: Loaded) -> tuple[str, ...]:
    """The names of a checkpoint's classes, in the order of the scores; `class 0` and so on where it has none."""
    names = loaded.source.meta.get("class_names") or []
    return tuple(names[i] if i < len(names) else f"class {i}" for i in range(loaded.settings["num_classes"]))


def _read(file: str, transform: Transform) -> np.ndarray | str:
    """Reads uint8 (h, w, 3), or returns why the file cannot be read."""
    try:
        image = decode(read_picture(file))
        return transform.map_image(image, np.random.default_rng(0))
    except (OSError, ValueError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return reason or type(error).__name__
