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
from vit_jax.evals.misses import draw_worst
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
      pictures: number of images, those with the most errors, that are drawn in one PNG at each evaluation; 0 for none.
      Others: see `ScoredSplit`.
    """

    recipe: Literal["eval", "detect_eval"] = "eval"  # type: ignore[assignment]
    batch_size: int = 64
    pictures: int = 0

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
        size, padded = rows["true_size"], self.recipe == "detect_eval"
        for name in ("box", "true_box"):
            rows[name] = to_stored_pixels(rows[name], size, self.resolution, padded=padded)
        table = coco.tabulate(*coco.as_pairs(rows), self.spec.num_classes)
        values = coco.summarize(table)
        if self.spec.num_classes <= NAMED_CLASSES:
            for key, each in coco.score_classes(table).items():
                pairs = zip(self.spec.class_names, each, strict=True)
                values |= {f"{key}_of_{name}": float(x) for name, x in pairs if x == x}
        values["num_examples"] = len(size)
        (index,) = np.nonzero(seen)
        held = {"index": index.astype(np.int32), "image_id": rows["true_image_id"]}
        held |= {name: rows[name].astype(np.float32) for name in ("box", "true_box")}
        held |= {name: rows[name] for name in ("kind", "score", "true_kind", "true_valid", "true_crowd", "true_area")}
        picture = None
        if self.pictures:
            picture = draw_worst(held, self.spec.class_names, self._read_image, self.pictures)
        return Scores(values, held, picture)

    def _read_image(self, index: int) -> np.ndarray:
        """The pixels of an image as stored."""
        return self.source.decode(self.source.read(index)[0])


def detections(outputs: Outputs) -> dict[str, jax.Array]:
    """`kind` int32 (b, q), `score` float32 (b, q) and `box` (b, q, 4), corners as shares of the image, of all queries."""
    logits, boxes = outputs.extra["class_logits"], outputs.extra["boxes"]
    share = jax.nn.softmax(logits, axis=-1)[..., :-1]
    corners = jnp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=-1)
    return {"kind": share.argmax(axis=-1).astype(jnp.int32), "score": share.max(axis=-1), "box": corners}
