"""Maps of a few images: rollout, gradient-weighted rollout for a class, attention of single heads, and norms of tokens; and what
a detector finds in them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.detect import rank
from vit_jax.insight.attention import joint_attention
from vit_jax.insight.gradients import class_gradients
from vit_jax.insight.means import Arrays, Row
from vit_jax.insight.subject import Subject, Tokens
from vit_jax.models.build import normalize


class Choice(NamedTuple):
    """What the user may choose.

    Args:
      pictures: images whose maps are kept.
      layer: whose heads are mapped, counted from 1; 0 for the last.
      head: counted from 1; 0 for all.
      label: the class of gradient-weighted rollout, by name or number; "" for the likeliest of each image.
    """

    pictures: int = 8
    layer: int = 0
    head: int = 0
    label: str = ""


class Pictures:
    """The maps of a few images, evenly spaced over all.

    Args:
      subject: the model.
      choice: what is mapped.
      label: the class of gradient-weighted rollout; None for the likeliest.
      total: number of images.
    """

    def __init__(self, subject: Subject, choice: Choice, label: int | None, total: int):
        self._subject, self._choice, self._label = subject, choice, label
        self._gradients = jax.jit(lambda params, x, c: class_gradients(subject.module, params, normalize(x), c))
        count = min(choice.pictures, total)
        self._due = list(dict.fromkeys(np.linspace(0, total - 1, count).round().astype(int).tolist())) if count else []
        self._arrays: dict[str, list[np.ndarray]] = {}
        self.places: list[int] = []
        self.classes: list[int] = []
        self.heads: list[int] = []

    def add(self, batch: list[Row]) -> None:
        """Takes the images of a batch that are due; one that could not be read is replaced by the next that could."""
        for row in batch:
            if self._due and row.place >= self._due[0]:
                self._due.pop(0)
                self.places.append(row.place)
                for name, value in self._maps(row).items():
                    self._arrays.setdefault(name, []).append(value)

    def arrays(self) -> Arrays:
        """The maps, stacked along a first axis."""
        return {name: np.stack(values) for name, values in self._arrays.items()}

    def _maps(self, row: Row) -> Arrays:
        maps: Arrays = {"images": row.image.copy()}
        tokens, logits = self._subject.tokens, row.outputs.logits
        if self._subject.classifies:
            chosen = int(logits.argmax()) if self._label is None else self._label
            self.classes.append(chosen)
            maps["probabilities"] = np.asarray(jax.nn.softmax(logits)[chosen], np.float32)
        maps |= _objects(row)
        if tokens is None:
            return maps
        if "attention" in self._subject.capture:
            attention = [x[None] for x in row.outputs.attention or ()]
            probe = row.outputs.extra.get("probe")
            maps["rollout"] = from_output(joint_attention(attention), tokens, None if probe is None else probe[None])[0]
            if probe is not None:
                heads = np.asarray(probe, np.float64)[:, int(tokens.class_token) :]  # of the patches alone
                maps["probe"] = heads.mean(axis=0).reshape(tokens.grid)
            layer = attention[(self._choice.layer or len(attention)) - 1][0]
            self.heads = [self._choice.head] if self._choice.head else list(range(1, len(layer) + 1))
            if self._choice.head:
                maps["attention"] = np.asarray(layer[self._choice.head - 1], np.float64)
            maps["heads"] = from_output(layer[[head - 1 for head in self.heads]], tokens)
            if self._subject.classifies:
                found = self._gradients(self._subject.params, row.image[None], jnp.array([chosen]))
                layers, gradients, probes = ([np.asarray(x) for x in xs] for xs in found)
                positive = np.maximum(probes[0] * probes[1], 0) if probes else None
                maps["gradient_rollout"] = from_output(joint_attention(layers, gradients), tokens, positive)[0]
        last = np.asarray((row.outputs.layers or ())[-1], np.float64)[tokens.patches]
        maps["norm_maps"] = np.linalg.norm(last, axis=-1).reshape(tokens.grid)
        return {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in maps.items()}


def _objects(row: Row) -> Arrays:
    """What a detector finds in one image, q queries, best first: `boxes` float32 (q, 4), left, top, right, bottom in pixels of
    the image; `box_classes` int32 (q,); `box_scores` float32 (q,). Empty for another model."""
    if not {"class_logits", "boxes"} <= set(row.outputs.extra):
        return {}
    logits, boxes = (np.asarray(row.outputs.extra[name], np.float64) for name in ("class_logits", "boxes"))
    corners, kinds, scores = rank(logits, boxes)
    h, w = row.image.shape[:2]
    pixels = np.clip(corners, 0, 1) * [w, h, w, h]
    return {
        "boxes": pixels.astype(np.float32),
        "box_classes": kinds.astype(np.int32),
        "box_scores": scores.astype(np.float32),
    }


def from_output(joint: np.ndarray, tokens: Tokens, probe: np.ndarray | None = None) -> np.ndarray:
    """Attention of what a model answers with to the patches: of its MAP head, its detection tokens, its class token, or the mean
    over patches.

    Args:
      joint: (b, n, n), query before key.
      tokens: the sequence.
      probe: (b, heads, tokens without registers), a MAP head's attention, or its positive part of gradient times attention, which
        is then the last step; None for no such head.

    Returns:
      (b, gh, gw).
    """
    if probe is not None:
        seen = np.r_[: int(tokens.class_token), tokens.patches]
        rows = np.einsum("bm,bmn->bn", np.asarray(probe, np.float64).mean(axis=1), joint[:, seen])
    elif tokens.after:
        rows = joint[:, tokens.patches.stop :].mean(axis=1)
    else:
        rows = joint[:, 0] if tokens.class_token else joint[:, tokens.patches].mean(axis=1)
    return np.array(rows[:, tokens.patches].reshape(len(joint), *tokens.grid))  # a view would keep all of `joint`
