"""The images that a detector gets most wrong, as a sheet of pictures: the objects in blue, what it finds in orange."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw

from vit_jax.evals import coco

SURE = 0.5  # of detections that count here; COCO's scores count all
OVERLAP = 0.5
CELL, GAP, CAPTION, COLUMNS = 256, 6, 16, 4  # pixels: longer side of a picture, space between two, height of a caption
OBJECT, FOUND = "#0072B2", "#E69F00"  # a blue and an orange that the colour-blind tell apart (Okabe and Ito)


class Errors(NamedTuple):
    """The errors in each of n images: objects that no sure detection of their class finds, and sure detections of nothing."""

    missed: np.ndarray
    false: np.ndarray


def count_errors(examples: Mapping[str, np.ndarray]) -> Errors:
    """Counts errors at an overlap of a half; a crowd is never missed, and detections in it are not false.

    Args:
      examples: the arrays that `Detection` keeps for each image, in pixels.
    """
    missed, false = (np.zeros(len(examples["score"]), int) for _ in range(2))
    for i in range(len(missed)):
        there, sure = examples["true_valid"][i] > 0, examples["score"][i] >= SURE
        crowd = examples["true_crowd"][i][there] > 0
        kinds, found = examples["true_kind"][i][there], examples["kind"][i][sure]
        mine, theirs = coco.as_sides(examples["box"][i][sure]), coco.as_sides(examples["true_box"][i][there])
        hits = (coco.overlaps(mine, theirs, crowd) >= OVERLAP) & (found[:, None] == kinds)  # detections objects
        free = ~crowd
        for d in np.argsort(-examples["score"][i][sure], kind="stable"):
            (objects,) = np.nonzero(hits[d] & free)
            if len(objects):
                free[objects[0]] = False
            elif not (hits[d] & crowd).any():
                false[i] += 1
        missed[i] = free.sum()
    return Errors(missed, false)


def draw_worst(
    examples: Mapping[str, np.ndarray], classes: Sequence[str], read: Callable[[int], np.ndarray], most: int
) -> np.ndarray:
    """A sheet of up to `most` images with errors, the worst first: uint8 (h, w, 3).

    Args:
      examples: see `count_errors`; `index` is each image's place in the split.
      classes: names of the classes.
      read: from the place of an image in the split to its pixels, uint8 (h, w, 3).
      most: number of images.
    """
    errors = count_errors(examples)
    total = errors.missed + errors.false
    worst = [i for i in np.argsort(-total, kind="stable")[:most] if total[i]]
    columns = min(COLUMNS, max(len(worst), 1))
    rows = -(-len(worst) // columns)
    height, width = CAPTION + rows * (CELL + CAPTION + GAP), max(columns * (CELL + GAP), 2 * CELL)
    sheet = PIL.Image.new("RGB", (width, height), "white")
    draw = PIL.ImageDraw.Draw(sheet)
    head = f"{total.sum():,} errors in {(total > 0).sum():,} of {len(total):,} images"
    draw.text((GAP, 2), f"{head}; blue: objects, orange: found with {SURE:.0%}", fill="black")
    for place, i in enumerate(worst):
        left, top = place % columns * (CELL + GAP), CAPTION + place // columns * (CELL + CAPTION + GAP)
        text = f"image {examples['index'][i]}: {errors.missed[i]} missed, {errors.false[i]} false"
        draw.text((left + GAP, top + 2), text, fill="black")
        sheet.paste(_draw_image(examples, i, classes, read(int(examples["index"][i]))), (left, top + CAPTION))
    return np.asarray(sheet)


def _draw_image(
    examples: Mapping[str, np.ndarray], i: int, classes: Sequence[str], pixels: np.ndarray
) -> PIL.Image.Image:
    """One image with its frames."""
    scale = CELL / max(pixels.shape[:2])
    h, w = (max(1, round(side * scale)) for side in pixels.shape[:2])
    image = PIL.Image.fromarray(pixels).resize((w, h))
    draw = PIL.ImageDraw.Draw(image)
    there, sure = examples["true_valid"][i] > 0, examples["score"][i] >= SURE
    for color, boxes, kinds in (
        (OBJECT, examples["true_box"][i][there], examples["true_kind"][i][there]),
        (FOUND, examples["box"][i][sure], examples["kind"][i][sure]),
    ):
        for box, kind in zip((boxes * scale).tolist(), kinds, strict=True):
            left, right = (min(max(x, 0), w - 1) for x in (box[0], box[2]))
            top, bottom = (min(max(y, 0), h - 1) for y in (box[1], box[3]))
            draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=color, width=2)
            # Names of objects stand inside their frames at the top, those of detections at the bottom.
            at = (left + 3, top + 2 if color == OBJECT else max(top, bottom - 13))
            draw.text(at, classes[kind], fill=color, stroke_width=1, stroke_fill="white")
    return image
