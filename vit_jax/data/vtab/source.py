"""A VTAB task's split as a source: TFDS's records, with the task's label."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.data.formats.catalogue import COMMAND
from vit_jax.data.formats.records import TfdsSource, open_builder
from vit_jax.data.image.decode import Image, decode
from vit_jax.data.splits import parse_split
from vit_jax.data.vtab import split_ids
from vit_jax.data.vtab.tasks import FIRST_1000, PREFIX, TASKS, Task, find_task, stored_split
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, Label, UserError


class TaskSource(TfdsSource):
    """A task's split: the label is a function of the example, and dSprites' 0 and 1 become 0 and 255.

    Args:
      spec, folder, stored: as `TfdsSource`.
      task_name: in vtab.TASKS.
      places: int64 (n,), the examples of `stored` that the split consists of; None for all of it.
    """

    def __init__(self, spec: DatasetSpec, folder: str, task_name: str, stored: str, places: np.ndarray | None = None):
        self._task_name, self._places = task_name, places
        super().__init__(spec, folder, ("image", ""), stored)

    def reading_order(self) -> np.ndarray:
        """As `TfdsSource.reading_order`; examples that were chosen one by one have an order of their own."""
        return super().reading_order() if self._places is None else np.arange(len(self))

    def read_many(self, indices: Sequence[int]) -> list[tuple[bytes, Label, str]]:
        """As `TfdsSource.read_many`."""
        label = TASKS[self._task_name].label
        stored = [int(i) for i in (indices if self._places is None else self._places[list(indices)])]
        try:
            examples = self._records.__getitems__(stored)
        except RuntimeError:  # of one of them
            examples = [self._read_example(i) for i in stored]
        names = (f"{self.spec.name}:{self.spec.split}#{i}" for i in indices)
        triples: list[tuple[bytes, Label, str]] = []
        for example, name in zip(examples, names, strict=True):
            if example is None:
                triples.append((b"", 0, name))
                continue
            value = label(example) if callable(label) else int(example[label])
            triples.append((bytes(example["image"]), value, name))
        return triples

    def _read_example(self, index: int) -> Any:
        """One example with all its features, or None if its record is damaged."""
        return self._records[index] if self._read_record(index) else None

    def decode(self, data: bytes) -> Image:
        """Decodes an image; gray is repeated to three channels."""
        image = decode(data)
        return image * np.uint8(255) if TASKS[self._task_name].dataset == "dsprites" else image


def open_task(dataset: str, split: str, data_dir: str = "") -> TaskSource:
    """Opens a split of a task.

    Args:
      dataset: `vtab/TASK`.
      split: one of vtab.SPLITS.
      data_dir: folder of prepared data sets; empty for the default.

    Returns:
      The source. Where there is a file of ids (`data.vtab.split_ids`), its examples, wherever they lie; its spec's split then
      says so, with the file's checksum.

    Raises:
      UserError: no such task or split, its data set is not prepared, or its examples are not those of the ids.
    """
    task = find_task(dataset)
    stored = stored_split(task, split)
    builder = open_builder(task.dataset, data_dir)
    info = builder.info
    slices = parse_split(dataset, stored, {name: s.num_examples for name, s in info.splits.items()})
    count, places, description = sum(s.stop - s.start for s in slices), None, split
    ids = split_ids.find(data_dir)
    listed = ids is not None and dataset.removeprefix(PREFIX) in ids.tasks
    if ids is not None and (located := split_ids.locate(builder, dataset, split, ids)):
        stored, places = located
        description = f"{split} (ids of {os.path.basename(ids.path)}, sha256 {ids.sha256[:16]})"
    elif split == FIRST_1000:
        places = split_ids.first_1000(info, task)
    if not listed:
        _check_version(dataset, task, str(info.version))
    names = tuple(map(str, range(task.classes)))
    if isinstance(task.label, str):
        feature = info.features[task.label]
        if feature.num_classes != task.classes:
            raise UserError(
                f"{dataset}: {info.full_name} has {feature.num_classes} classes; expected {task.classes}. Prepare version "
                f"{task.version}: `{COMMAND} {task.dataset}`"
            )
        names = tuple(feature.names)
    shape = info.features["image"].shape
    spec = DatasetSpec(
        name=dataset,
        split=description,
        num_examples=count if places is None else len(places),
        target=ClassId(task.classes),
        class_names=names,
        image_shape=(shape[0], shape[1], shape[2]),
    )
    return TaskSource(spec, str(builder.data_dir), dataset.removeprefix(PREFIX), stored, places)


def _check_version(dataset: str, task: Task, found: str) -> None:
    wanted = task.version.split(".")
    if any(w not in ("*", f) for w, f in zip(wanted, found.split("."), strict=True)):
        logging.getLogger(__name__).warning(
            "%s is %s %s; the benchmark pins %s: another version may order, and so choose, its 1,000 examples otherwise",
            dataset,
            os.path.basename(task.dataset),
            found,
            task.version,
        )
