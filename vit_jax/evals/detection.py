"""COCO's scores of a detector on a whole split: every image once, boxes compared in the pixels of the image as stored."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.image.boxes import to_stored_pixels
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals import coco
from vit_jax.evals.base import Bound, Scores
from vit_jax.evals.split import ScoredSplit
from vit_jax.targets import Boxes
from vit_jax.types import Batch, Outputs, UserError

NAMED_CLASSES = 20  # of more, the record would hold little else


@dataclasses.dataclass(kw_only=True)
class Detection(ScoredSplit):
    """Scores a detector: COCO's twelve numbers (ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, ar10, ar100, ar_small,
    ar_medium, ar_large; -1 where no object has such an area), for up to 20 classes `ap_of_CLASS` and `ap50_of_CLASS`, and
    num_examples; for each image its detections.

    As published, each query gives its likeliest class and its box: no threshold, and no suppression of duplicates.

    Args:
      recipe: `eval` squashes images to the resolution; `detect_eval` keeps their aspect and fills the rest with grey.
      Others: see `ScoredSplit`.
    """

    recipe: Literal["eval", "detect_eval"] = "eval"  # type: ignore[assignment]
    batch_size: int = 64

    def open_split(self) -> Source:
        """The split's source, whose labels are boxes."""
        source = open_source(self.dataset, self.split, self.data_dir, boxes=True)
        if not isinstance(source.spec.target, Boxes):
            raise UserError(f"{self.dataset}: an evaluator named detection scores boxes, and this data has none")
        return source

    def check_head(self, num_classes: int) -> None:
        """Refuses a model whose classes are not the data's.

        Raises:
          UserError: the data has more classes than the model.
        """
        if self.spec.num_classes > num_classes:
            raise UserError(
                f"{self.spec.name} has {self.spec.num_classes:,} classes and the model scores {num_classes:,}; evaluate on data "
                "of the training set's classes"
            )

    def score_batch(self, model: Bound, params: Any, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns no sums; for each image, its objects and detections."""
        found = detections(model.forward(params, batch.image))
        objects = {f"true_{name}": x for name, x in batch.target._asdict().items()}
        return {}, found | objects | {"mask": batch.mask}

    def summarize(self, sums: dict[str, float], rows: dict[str, np.ndarray], seen: np.ndarray) -> Scores:
        """COCO's numbers over all images."""
        rows = {name: x[seen] for name, x in rows.items()}
        n, q = rows["score"].shape
        size = rows["true_size"]
        boxes = to_stored_pixels(rows["box"], size, self.resolution, padded=self.recipe == "detect_eval")  # n q 4
        image = np.repeat(np.arange(n), q)
        guesses = coco.Detections(
            image, rows["kind"].reshape(-1), _as_coco(boxes).reshape(-1, 4), rows["score"].reshape(-1)
        )
        truth = to_stored_pixels(rows["true_box"], size, self.resolution, padded=self.recipe == "detect_eval")
        image, at = np.nonzero(rows["true_valid"])
        box = _as_coco(truth)[image, at]
        area = rows["true_area"][image, at].astype(np.float64)
        area = np.where(area > 0, area, box[:, 2:].prod(axis=-1))
        objects = coco.Objects(image, rows["true_kind"][image, at], box, area, rows["true_crowd"][image, at] > 0)
        table = coco.tabulate(objects, guesses, self.spec.num_classes)
        values = coco.summarize(table)
        if self.spec.num_classes <= NAMED_CLASSES:
            for key, each in coco.score_classes(table).items():
                pairs = zip(self.spec.class_names, each, strict=True)
                values |= {f"{key}_of_{name}": float(x) for name, x in pairs if x == x}
        values["num_examples"] = n
        (index,) = np.nonzero(seen)
        held = {"index": index.astype(np.int32), "image_id": rows["true_image_id"], "box": boxes.astype(np.float32)}
        return Scores(values, held | {"kind": rows["kind"], "score": rows["score"]})


def detections(outputs: Outputs) -> dict[str, jax.Array]:
    """`kind` int32 (b, q), `score` float32 (b, q) and `box` (b, q, 4), corners as shares of the image, of all queries."""
    logits, boxes = outputs.extra["class_logits"], outputs.extra["boxes"]
    share = jax.nn.softmax(logits, axis=-1)[..., :-1]
    corners = jnp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=-1)
    return {"kind": share.argmax(axis=-1).astype(jnp.int32), "score": share.max(axis=-1), "box": corners}


def _as_coco(corners: np.ndarray) -> np.ndarray:
    """Corners to left, top, width, height, in float64."""
    corners = corners.astype(np.float64)
    return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=-1)
