"""What an objective is: the loss of each example, and the facts about it that the training step needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vit_jax.train import masking
from vit_jax.train.masking import Drawn
from vit_jax.types import Batch, Outputs, UserError

Values = Callable[[Outputs, Batch], dict[str, Float[Array, " b"]]]


def _count_examples(batch: Batch) -> Float[Array, " b"]:
    return batch.mask


def _as_it_is(batch: Batch) -> Batch:
    return batch


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and the facts about it that the training step needs.

    Args:
      values: (outputs, batch) -> {name: (b,)}; "loss" is minimised, the others are logged under their names.
      weight: batch -> (b,), the weight of each example in the mean; 0 for padding. By default the mask.
      linear: whether the loss is linear in the target, which mixup and CutMix require.
      reads: fields of `Outputs`, or keys of its `extra`, that `values` reads; `check_reads` compares them with the model.
      draw: keys (b,) -> what is drawn for each example before the forward pass; None for nothing.
      counts: batch -> (b, k), how often each of k classes is among an example's targets; None if the targets are no classes.
      picture: (outputs, batch) -> {caption: (b, h, w, c) in [-1, 1]}, pictures of what was hidden and predicted.
      target: kinds of target that it reads, classes of `vit_jax.targets`; empty for any.
      prepare: batch -> batch, on the whole batch before it is cut into micro-batches: for normalisers that many examples share.
      over: mesh -> `values` on that mesh, for a loss that must not leave its split to XLA; None for any other.
    """

    values: Values
    weight: Callable[[Batch], Float[Array, " b"]] = _count_examples
    linear: bool = False
    reads: frozenset[str] = frozenset({"logits"})
    draw: Callable[[jax.Array], Drawn] | None = None
    counts: Callable[[Batch], Float[Array, "b k"]] | None = None
    picture: Callable[[Outputs, Batch], dict[str, jax.Array]] | None = None
    target: tuple[str, ...] = ()
    prepare: Callable[[Batch], Batch] = _as_it_is
    over: Callable[[Mesh], Values] | None = None

    def on_mesh(self, mesh: Mesh) -> Objective:
        """The objective for a mesh."""
        return dataclasses.replace(self, values=self.over(mesh), over=None) if self.over else self

    def run(self, forward: Callable[..., Outputs], params: Any, image: Any, drawn: Drawn, **options: Any) -> Outputs:
        """The outputs of a model for a batch of images and what was drawn for them."""
        outputs = forward(params, image, **options, **drawn.inputs)
        return outputs._replace(extra={**outputs.extra, **drawn.extra}) if drawn.extra else outputs

    def run_fixed(self, forward: Callable[..., Outputs], params: Any, image: Any) -> Outputs:
        """The same in evaluation: what is drawn for an image depends on the image alone."""
        drawn = self.draw(masking.keys_of_images(image)) if self.draw else Drawn()
        return self.run(forward, params, image, drawn)

    def check_reads(self, outputs: Outputs, *, objective: str, model: str) -> None:
        """Refuses a model that does not return the outputs which the loss reads.

        Args:
          outputs: the model's outputs, as arrays or shapes.
          objective, model: their names, for the message.

        Raises:
          UserError: names the objective, the model, every missing output and the existing ones.
        """
        there = {name for name, x in outputs._asdict().items() if name != "extra" and x is not None} | set(
            outputs.extra
        )
        if missing := sorted(self.reads - there):
            raise UserError(
                f"config.objective.name={objective} reads {' and '.join(missing)} of the model's outputs, and "
                f"config.model.name={model} as configured returns {', '.join(sorted(there))}; choose another objective or model"
            )
