"""Finds objects in image files with a detector of any format, draws them, and writes COCO's results; for notebooks and
`vit_jax predict`."""

from __future__ import annotations

import colorsys
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from vit_jax.convert.load import Loaded, resolution_of
from vit_jax.data.formats.pictures import read_picture
from vit_jax.data.image.boxes import to_stored_pixels
from vit_jax.data.image.decode import Image, decode
from vit_jax.data.image.recipes import Transform, make_transform
from vit_jax.types import UserError, printable

RECIPES = ("eval", "detect_eval")
RESULTS = "results.json"
THRESHOLD = 0.5  # of the scores that are shown; COCO's results hold all detections


class Found(NamedTuple):
    """The detections in one image file, q in all, best first.

    Args:
      file: its path.
      image: uint8 (h, w, 3); None if the file cannot be read.
      box: float (q, 4), left, top, right, bottom in pixels of the image.
      kind: int (q,), classes.
      score: float (q,).
      error: why the file cannot be read; empty if it can.
    """

    file: str
    image: Image | None
    box: np.ndarray
    kind: np.ndarray
    score: np.ndarray
    error: str = ""


def is_detector(loaded: Loaded) -> bool:
    """Whether a loaded model finds objects."""
    return bool(loaded.settings["name"] == "yolos")


@dataclasses.dataclass(frozen=True)
class Detector:
    """A checkpoint that is ready to find objects: `Detector.of(load("runs/mine", stored_pixels=True))`.

    Args:
      classes: names of the classes.
      class_ids: number of each class in COCO's results.
      transform: how images are prepared: as the checkpoint's run prepared those that it scored; else fitted into the size of
        its positions.
      batch_size: images per batch.
      forward: the compiled model, uint8 (b, h, w, 3) -> Outputs.
    """

    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    transform: Transform
    batch_size: int
    forward: Callable[[np.ndarray], Any]

    @classmethod
    def of(cls, loaded: Loaded, *, batch_size: int = 8) -> Detector:
        """Makes a detector of a model that was loaded with `stored_pixels=True`."""
        import jax

        from vit_jax.models.build import make_forward

        meta: Mapping[str, Any] = loaded.source.meta
        recipe = (meta.get("preprocessing") or {}).get("recipe")
        transform = make_transform(recipe if recipe in RECIPES else "detect_eval", resolution_of(loaded))
        count, names = loaded.settings["num_classes"], meta.get("class_names") or []
        classes = tuple(names[i] if i < len(names) else f"class {i}" for i in range(count))
        ids = tuple(meta.get("class_ids") or range(count))
        forward = jax.jit(make_forward(loaded.module))
        return cls(classes, ids, transform, batch_size, lambda images: forward(loaded.params, images))

    def files(self, files: Sequence[str]) -> Iterator[Found]:
        """Yields the detections in each file, in order, batch by batch; an unreadable file has an error instead."""
        size = min(self.batch_size, len(files))  # the last batch is padded, so that one program is compiled
        for start in range(0, len(files), max(size, 1)):
            some = files[start : start + size]
            images = [_read(file) for file in some]
            yield from self._answer(some, images, size)

    def find(self, image: Image) -> Found:
        """The detections in one image, uint8 (h, w, 3) of any size."""
        return next(self._answer([""], [image], 1))

    def _answer(self, files: Sequence[str], images: Sequence[Image | str], size: int) -> Iterator[Found]:
        """Runs the model on up to `size` images; a text is the reason why one cannot be read."""
        batch = np.zeros((size, *self.transform.resolution, 3), np.uint8)
        for row, image in zip(batch, images, strict=False):
            if not isinstance(image, str):
                row[...] = self.transform.map_image(image, np.random.default_rng(0))
        extra = self.forward(batch).extra
        logits, boxes = (np.asarray(extra[name], np.float64) for name in ("class_logits", "boxes"))
        for file, image, scores, box in zip(files, images, logits, boxes, strict=False):
            yield self._found(file, image, scores, box)

    def _found(self, file: str, image: Image | str, logits: np.ndarray, boxes: np.ndarray) -> Found:
        if isinstance(image, str):
            return Found(file, None, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), image)
        corners, kind, score = rank(logits, boxes)
        padded = self.transform.recipe == "detect_eval"
        h, w = image.shape[:2]
        pixels = to_stored_pixels(corners[None], np.array([[h, w]]), self.transform.resolution, padded=padded)[0]
        return Found(file, image, np.clip(pixels, 0, [w, h, w, h]), kind, score)


def rank(logits: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A detector's answers for one image, best first.

    Args:
      logits: float64 (q, c + 1), no object last.
      boxes: float64 (q, 4): centre x, centre y, width and height, shares of the image.

    Returns:
      (corners, kind, score): float64 (q, 4), left, top, right, bottom, shares of the image; int (q,), the likeliest class;
        float64 (q,), its probability.
    """
    share = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share = (share / share.sum(axis=-1, keepdims=True))[:, :-1]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=-1)
    kind, score = share.argmax(axis=-1), share.max(axis=-1)
    order = np.argsort(-score, kind="stable")
    return corners[order], kind[order], score[order]


def _read(file: str) -> Image | str:
    try:
        return decode(read_picture(file))
    except (OSError, ValueError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return reason or type(error).__name__


def describe(found: Found, classes: Sequence[str], threshold: float = THRESHOLD) -> str:
    """One line: `photo.jpg: cat 97% at 10,20,110,220; dog 80% at ...`."""
    shown = [
        f"{classes[kind]} {score:.0%} at {','.join(str(round(x)) for x in box)}"
        for box, kind, score in zip(found.box.tolist(), found.kind, found.score, strict=True)
        if score >= threshold
    ]
    return printable(f"{found.file}: {'; '.join(shown) or 'nothing found'}")


def draw(found: Found, classes: Sequence[str], threshold: float = THRESHOLD) -> Image:
    """The image with a frame and a label for each detection at or above a threshold; a small image is enlarged first."""
    assert found.image is not None
    h, w = found.image.shape[:2]
    scale = max(1, round(512 / max(h, w)))
    picture = np.repeat(np.repeat(found.image, scale, axis=0), scale, axis=1)
    thick = max(1, round(max(picture.shape) / 300))
    for box, kind, score in list(zip(found.box, found.kind, found.score, strict=True))[::-1]:
        if score < threshold:
            continue
        color = tuple(round(255 * x) for x in colorsys.hsv_to_rgb(kind * 0.618 % 1, 0.75, 1.0))
        left, top, right, bottom = (round(float(x) * scale) for x in box)
        cv2.rectangle(picture, (left, top), (right, bottom), color, thick)
        text, size = f"{printable(classes[kind])} {score:.0%}", thick / 4 + 0.15
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        below = max(top, height + 4)
        cv2.rectangle(picture, (left, below - height - 4), (left + width + 2, below), color, -1)
        cv2.putText(picture, text, (left + 1, below - 3), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def results(found: Found, class_ids: Sequence[int], image_id: int) -> list[dict[str, Any]]:
    """COCO's results of one image: left, top, width and height in pixels."""
    return [
        {
            "image_id": image_id,
            "category_id": int(class_ids[kind]),
            "bbox": [round(x, 2) for x in (left, top, right - left, bottom - top)],
            "score": round(float(score), 5),
            "file_name": printable(os.path.basename(found.file)),
        }
        for (left, top, right, bottom), kind, score in zip(found.box.tolist(), found.kind, found.score, strict=True)
    ]


def number_images(files: Sequence[str]) -> list[int]:
    """The number of each image in COCO's results: that in its name, `000000039769.jpg`, if all have one of their own; else its
    place, from 1."""
    names = [re.fullmatch(r"(?:.*\D)?(\d{1,18})", Path(file).stem) for file in files]
    numbers = [int(name[1]) for name in names if name]
    return numbers if len(set(numbers)) == len(files) else list(range(1, len(files) + 1))


def write(
    found: Iterator[Found], detector: Detector, files: Sequence[str], to: str, threshold: float
) -> Iterator[Found]:
    """Writes a picture of each image into a new folder, and COCO's results of all at the end; passes the detections on.

    Raises:
      UserError: the folder exists, or cannot be written.
    """
    folder = Path(to).expanduser()
    try:
        folder.mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        for number, one in zip(number_images(files), found, strict=True):
            if one.image is not None:
                rows += results(one, detector.class_ids, number)
                picture = draw(one, detector.classes, threshold)
                place = folder / f"{Path(one.file).stem}_{number}.png"
                place.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
            yield one
        (folder / RESULTS).write_text(json.dumps(rows) + "\n")
    except FileExistsError as error:
        raise UserError(f"--to={to} exists; give a folder that does not") from error
    except OSError as error:
        raise UserError(f"{to} cannot be written ({error}); give another --to") from error
