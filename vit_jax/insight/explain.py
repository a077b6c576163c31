"""Everything that is measured of one model, on images that are read once and never kept: figures 6, 7 and 14 of the paper, and
what later work asks for. Arrays come out; `report.explained` draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vit_jax.convert.load import Loaded
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.source import Source
from vit_jax.data.stream.loader import eval_batches
from vit_jax.insight.filters import filter_components
from vit_jax.insight.images import name_of
from vit_jax.insight.layers import layer_similarity, offset_similarity, position_similarity
from vit_jax.insight.means import Arrays, Means, Row, norm_names
from vit_jax.insight.pictures import Choice, Pictures
from vit_jax.insight.subject import Subject, prepare
from vit_jax.models.build import count_params
from vit_jax.models.parameters import find_positions, first_filters
from vit_jax.types import UserError

CHOICE = Choice()


class Explained(NamedTuple):
    """The result.

    Args:
      arrays: by name; docs/insight.md has the table of them.
      facts: about the model and the images, as JSON can hold them.
    """

    arrays: Arrays
    facts: dict[str, Any]


def explain(loaded: Loaded, source: Source, choice: Choice = CHOICE, other: Loaded | None = None) -> Explained:
    """Measures a model.

    Args:
      loaded: a checkpoint, loaded with `stored_pixels=True`.
      source: images; those that cannot be read are named and left out.
      choice: see `Choice`.
      other: a checkpoint whose layers are compared with those of the first; None for the first itself.

    Raises:
      UserError: no image can be read, or the model has no such layer, head or class.
    """
    subject = prepare(loaded)
    label = check(choice, subject, loaded)
    arrays, notes = _of_parameters(loaded), list(subject.notes)
    means, features, pictures = Means(), [], Pictures(subject, choice, label, len(source))
    corrupt: set[str] = set()
    for batch in _read(subject, source, subject.capture, corrupt):
        means.add(subject, batch)
        features.append(_features(subject, batch))
        pictures.add(batch)
    arrays |= means.arrays() | pictures.arrays()
    if subject.depth and means.count == 1:
        notes.append("A single image says nothing about the similarity of layers.")
    elif subject.depth:
        own = [np.concatenate(layer) for layer in zip(*features, strict=True)]
        theirs = own if other is None else _features_of(other, source, own, notes)
        if theirs:
            arrays["cka"] = layer_similarity(own, theirs)
    names, classes = loaded.source.meta.get("class_names") or [], pictures.classes
    facts = {
        "checkpoint": loaded.source.path,
        "other": other.source.path if other else "",
        "model": f"{type(subject.module).__name__}, {count_params(subject.params):,} parameters",
        "resolution": list(subject.resolution),
        "grid": list(subject.tokens.grid) if subject.tokens else [],
        "patch": list(subject.module.pixels((1, 1))) if subject.tokens else [],
        "tokens": subject.tokens.patches.stop + subject.tokens.after if subject.tokens else 0,
        "images": source.spec.name + (f", {source.spec.split}" if source.spec.split else ""),
        "measured": means.count,
        "corrupt": sorted(corrupt),
        "layer": choice.layer or subject.depth,
        "heads": pictures.heads,
        "pictures": [name_of(source, index) for index in pictures.places],
        "classes": _name(classes, names),
        "object_classes": _name(range(loaded.settings["num_classes"]), names) if "boxes" in arrays else [],
        "norms": norm_names(subject.tokens) if subject.tokens else [],
        "positions": arrays.pop("positions_kind").item() if "positions_kind" in arrays else "",
        "notes": notes,
    }
    return Explained(arrays, facts)


def _name(classes: Iterable[int], names: Sequence[str]) -> list[str]:
    return [names[c] if c < len(names) else f"class {c}" for c in classes]


def check(choice: Choice, subject: Subject, loaded: Loaded) -> int | None:
    """The number of the chosen class; None for the likeliest.

    Raises:
      UserError: the model has no such layer, head or class.
    """
    wrong, heads = [], int(getattr(subject.module, "num_heads", 0))
    if not 0 <= choice.layer <= subject.depth:
        wrong.append(f"layer {choice.layer}: the model has {subject.depth} layers, counted from 1")
    if not 0 <= choice.head <= heads:
        wrong.append(f"head {choice.head}: a layer has {heads} heads, counted from 1")
    names = list(loaded.source.meta.get("class_names") or [])
    count, label = int(loaded.settings.get("num_classes", 0)), None
    if choice.label and not subject.classifies:
        wrong.append(
            f"class {choice.label!r}: the model gives an image no probabilities of classes; leave the class out"
        )
    elif choice.label in names:
        label = names.index(choice.label)
    elif choice.label.isdecimal() and int(choice.label) < count:
        label = int(choice.label)
    elif choice.label:
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        wrong.append(f"class {choice.label!r}: expected a name ({some or 'it has none'}) or a number below {count}")
    if wrong:
        raise UserError("\n".join(wrong))
    return label


def _of_parameters(loaded: Loaded) -> Arrays:
    """What the parameters say by themselves."""
    components, variance = filter_components(first_filters(loaded.module, loaded.params))
    arrays: Arrays = {"filters": components, "filters_variance": variance}
    grid = loaded.grid
    positions = find_positions(loaded.module, loaded.params, grid) if grid else None
    if positions and grid:
        index = positions.offset
        if index is None:
            tables = [position_similarity(table, grid) for table in positions.tables]
        elif positions.kind == "offsets":
            tables = [offset_similarity(table, index, grid) for table in positions.tables]
        else:
            tables = [np.asarray(table, np.float64)[index].reshape(*grid, *grid) for table in positions.tables]
        arrays |= {"positions": np.stack(tables).astype(np.float32), "positions_kind": np.array(positions.kind)}
    return arrays


def _read(subject: Subject, source: Source, capture: tuple[str, ...], corrupt: set[str]) -> Iterator[list[Row]]:
    """Yields the readable images of each batch with their outputs. The list is emptied when the next is asked for, so that the
    attention of two batches is never in memory.

    Raises:
      UserError: no image can be read.
    """
    run = subject.compiled(capture)
    transform = make_transform(subject.recipe, subject.resolution)
    size = min(subject.batch_size, len(source))
    loader = eval_batches(source, transform, batch_size=size, max_corrupt=len(source))
    found = False
    for number, batch in enumerate(loader):
        rows = np.flatnonzero(batch.mask).tolist()
        if len(rows):
            found = True
            outputs = jax.tree.map(np.asarray, run(batch.image))
            held = [Row(number * size + r, batch.image[r], jax.tree.map(lambda x, r=r: x[r], outputs)) for r in rows]
            del outputs
            yield held
            held.clear()
    corrupt |= loader.corrupt
    if not found:
        some = ", ".join(sorted(loader.corrupt)[:5])
        raise UserError(
            f"none of the {len(source)} images of {source.spec.name} can be read as an image: {some}; give JPEG, PNG, WebP, BMP, "
            "TIFF or GIF files"
        )


def _features(subject: Subject, batch: list[Row]) -> list[np.ndarray]:
    """Of each layer (b, d): the mean over the patches."""
    if subject.tokens is None:
        return []
    layers = zip(*(row.outputs.layers or () for row in batch), strict=True)
    return [np.stack([np.asarray(x[subject.tokens.patches], np.float32).mean(axis=0) for x in xs]) for xs in layers]


def _features_of(other: Loaded, source: Source, own: list[np.ndarray], notes: list[str]) -> list[np.ndarray]:
    """The other model's features of the same images; none if it captures no layers."""
    subject = prepare(other)
    if not subject.depth:
        notes.append(f"{other.source.path} captures no tokens between its layers: there is nothing to compare.")
        return []
    parts = [_features(subject, batch) for batch in _read(subject, source, ("layers",), set())]
    found = [np.concatenate(layer) for layer in zip(*parts, strict=True)]
    assert len(found[0]) == len(own[0]), "both models read the same images"
    return found
