"""The loss of a masked objective on held-out images, with fixed masks, and pictures of what was hidden and predicted."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageDraw

from vit_jax import partition
from vit_jax.evals.base import Bound, Scorer, Scores, read_split
from vit_jax.evals.split import ScoredSplit
from vit_jax.metrics.means import Mean
from vit_jax.train.objectives import Objective
from vit_jax.types import Batch, UserError

CAPTION, GAP, LEAST = 14, 4, 96  # pixels: height of a caption, space between pictures, and their shorter side


@dataclasses.dataclass(kw_only=True)
class Reconstruction(ScoredSplit):
    """Scores a masked objective: the means of its loss and of all that it logs, and num_examples. What is hidden in an image
    depends on the image alone, so a score repeats.

    If the targets are colours, it adds two baselines of the whole split: `entropy`, the loss of knowing only how frequent each
    colour is, and `commonest`, the accuracy of always naming the commonest.

    Args:
      pictures: number of examples, the first ones of the split, that are drawn beside their reconstructions in one PNG at each
        evaluation; 0 for none.
      Others: see `ScoredSplit`.
    """

    pictures: int = 0

    def check_head(self, num_classes: int) -> None:
        """Nothing is classified."""

    def bind(self, model: Bound) -> Scorer:
        """See `Evaluator.bind`.

        Raises:
          UserError: the objective hides nothing.
        """
        objective = model.objective
        if objective is None or objective.draw is None:
            raise UserError("a reconstruction is scored for objectives that hide patches: simmim, mae or patches")
        score = super().bind(model)
        if not self.pictures or objective.picture is None:
            return score
        draw = self._bind_pictures(model, objective)
        return lambda params: score(params)._replace(picture=draw(params))

    def _bind_pictures(self, model: Bound, objective: Objective) -> Callable[[Any], np.ndarray]:
        """Returns the function from parameters to a sheet of the first examples."""
        picture = objective.picture
        assert picture is not None
        step = jax.jit(
            lambda params, batch: picture(objective.run_fixed(model.forward, params, batch.image), batch),
            out_shardings=partition.replicated(model.mesh),
        )

        def draw(params: Any) -> np.ndarray:
            batches = read_split(
                self.source.subset(np.arange(min(self.pictures, len(self.source)))),
                recipe=self.recipe,
                resolution=self.resolution,
                batch_size=self.batch_size,
                mesh=model.mesh,
                max_corrupt=self.max_corrupt,
                exif=self.exif,
            )
            parts = [(jax.device_get(step(params, batch)), rows) for batch, rows in batches]
            names = sorted(parts[0][0], key=lambda name: name != "original")  # then masked and reconstructed
            return lay_out({name: np.concatenate([part[name][:rows] for part, rows in parts]) for name in names})

        return draw

    def score_batch(self, model: Bound, params: Any, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Sums what the objective logs, and counts the classes of its targets."""
        assert model.objective is not None
        values = model.objective.values(model.objective.run_fixed(model.forward, params, batch.image), batch)
        sums = {name: jnp.where(batch.mask > 0, value, 0.0).sum() for name, value in values.items()}
        if model.objective.counts:
            sums["counts"] = jnp.einsum("b,bk->k", batch.mask, model.objective.counts(batch))
        return sums | {"count": batch.mask.sum()}, {"mask": batch.mask}

    def summarize(self, sums: dict[str, Any], rows: dict[str, np.ndarray], seen: np.ndarray) -> Scores:
        """Means over the examples, and the baselines."""
        count, counts = sums.pop("count"), sums.pop("counts", None)
        values = {name: Mean(total, count).value for name, total in sums.items()}
        if counts is not None:
            shares = counts[counts > 0] / counts.sum()
            values |= {"entropy": float(-(shares * np.log(shares)).sum()), "commonest": float(shares.max())}
        return Scores(values | {"num_examples": int(count)})


def lay_out(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """A sheet of pictures, a row for each example: {caption: (n, h, w, c) in [-1, 1]} -> uint8 (H, W, 3)."""
    n, h, w = next(iter(columns.values())).shape[:3]
    times = -(-LEAST // min(h, w))
    h, w = h * times, w * times
    caption = " | ".join(columns)
    font = PIL.ImageDraw.ImageDraw(PIL.Image.new("RGB", (1, 1))).textlength(caption)
    width = max(len(columns) * (w + GAP), int(font) + 2 * GAP)
    sheet = PIL.Image.new("RGB", (width, CAPTION + n * (h + GAP)), "white")
    PIL.ImageDraw.Draw(sheet).text((GAP, 1), caption, fill="black")
    for (i, images), row in itertools.product(enumerate(columns.values()), range(n)):
        pixels = np.clip(np.round((images[row] + 1) * 127.5), 0, 255).astype(np.uint8)
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).repeat(times, axis=0).repeat(times, axis=1)
        sheet.paste(PIL.Image.fromarray(pixels), (i * (w + GAP), CAPTION + row * (h + GAP)))
    return np.asarray(sheet)
