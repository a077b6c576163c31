"""A folder of images with COCO's annotations, `instances_SPLIT.json`, as a data set: what users of detectors bring.

Category ids may have holes; labels are their ranks. Annotations that make no sense are left out, counted and named: a data set of
a hundred thousand images always has some.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vit_jax.data.formats.listing import join
from vit_jax.data.image.encoded import MAX_BYTES
from vit_jax.data.source import Origin, Source
from vit_jax.data.splits import parse_split, split_names
from vit_jax.files import read_regular
from vit_jax.targets import Boxes, BoxLabel
from vit_jax.types import DatasetSpec, Label, UserError, counted, itemize, printable, shown

PATTERN = re.compile(r"instances_(.+)\.json")
LAYOUT = "FOLDER/annotations/instances_train2017.json and images in FOLDER/train2017/, FOLDER/images/ or FOLDER"
MAX_JSON = 2**31  # bytes; COCO's train2017 has 4.7e8
MAX_NUMBER = 2**31 - 1  # the largest number of an image
SHOWN = 3


class CocoSource(Source):
    """One split of a folder with COCO's annotations.

    Args:
      spec: what was asked for and what it holds.
      folder: the folder that `files` are relative to.
      files: names of the image files.
      labels: the objects of each.
      class_ids: the category id of each label.
    """

    def __init__(
        self, spec: DatasetSpec, folder: str, files: list[str], labels: list[BoxLabel], class_ids: tuple[int, ...]
    ):
        self.spec, self.folder, self._files, self._labels, self.class_ids = spec, folder, files, labels, class_ids

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Paths of the files."""
        return [self._files[i] for i in indices]

    def origin(self) -> Origin:
        """The split, and the folder of the images."""
        return Origin(self.spec.split, self.folder)

    def fingerprint(self) -> bytes:
        """Hash of all names and boxes."""
        hashed = hashlib.sha256("\0".join(self._files).encode(errors="surrogateescape"))
        for label in self._labels:
            hashed.update(label.box.tobytes() + label.kind.tobytes())
        return hashed.digest()

    def read(self, index: int) -> tuple[bytes, Label, str]:
        """Example `index`: (encoded image, objects, path). A file that cannot be read is b"", which does not decode: the loader
        counts it with the corrupt images, by name."""
        path = self._files[index]
        try:
            data = read_regular(join(self.folder, path), limit=MAX_BYTES)
        except OSError as error:
            logging.getLogger(__name__).warning("cannot read %s: %s", printable(path), printable(str(error)))
            data = b""
        return data, self._labels[index], printable(path)


@dataclasses.dataclass
class _Split:
    """One annotation file, read: files and labels of its images in order, its classes, and what was left out and why."""

    files: list[str]
    labels: list[BoxLabel]
    classes: dict[int, str]
    left_out: Counter[str]
    named: dict[str, list[str]]

    def leave_out(self, why: str, what: str) -> None:
        self.left_out[why] += 1
        if len(self.named.setdefault(why, [])) < SHOWN:
            self.named[why].append(what)

    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{counted(number, 'annotation')} left out, {why}: {', '.join(self.named[why])}{', ...' if number > SHOWN else ''}"
            for why, number in self.left_out.items()
        )


def find_annotations(folder: epath.Path) -> dict[str, epath.Path]:
    """{split: its annotation file} of a folder, `{"train2017": FOLDER/annotations/instances_train2017.json}`; empty for none."""
    found: dict[str, epath.Path] = {}
    for place in (folder / "annotations", folder):
        if place.is_dir():
            for file in sorted(place.iterdir()):
                if match := PATTERN.fullmatch(file.name):
                    found.setdefault(match[1], file)
    return found


def is_coco(dataset: str) -> bool:
    """Whether a folder has COCO's annotations."""
    place = epath.Path(dataset).expanduser()
    return place.is_dir() and bool(find_annotations(place))


def open_coco(dataset: str, split: str) -> CocoSource:
    """Opens a split of a folder with COCO's annotations.

    Args:
      dataset: the folder, see LAYOUT; `~` and gs:// are understood.
      split: TFDS's syntax over the names of the annotation files; `train` also names the only one that begins so.

    Raises:
      UserError: an unknown split, a file that is no such annotation, no images where they are looked for, or no annotation left.
    """
    root = epath.Path(dataset).expanduser()
    files = find_annotations(root)
    names = {}
    for name in dict.fromkeys(split_names(split)):
        like = (
            [name] if name in files else [other for other in files if re.fullmatch(rf"{re.escape(name)}[\d_-]+", other)]
        )
        if len(like) != 1:
            raise UserError(f"{dataset}: no split {name!r} in {split!r}; its annotations are of {', '.join(files)}")
        names[name] = like[0]
    read = {name: read_annotations(files[stored]) for name, stored in names.items()}
    slices = parse_split(dataset, split, {name: len(held.files) for name, held in read.items()})
    classes = next(iter(read.values())).classes
    if any(held.classes != classes for held in read.values()):
        raise UserError(f"{dataset}: the splits of {split!r} have different categories; expected the same in all")
    paths: list[str] = []
    labels: list[BoxLabel] = []
    for part in slices:
        held = read[part.name]
        inside = _find_images(root, names[part.name], held.files)
        paths += [f"{inside}{file}" for file in held.files[part.start : part.stop]]
        labels += held.labels[part.start : part.stop]
    spec = DatasetSpec(
        name=dataset,
        split=split,
        num_examples=len(paths),
        target=Boxes(len(classes), max(1, max(len(label.kind) for label in labels))),
        class_names=tuple(classes.values()),
        image_shape=(None, None, 3),
        notes=tuple(note for held in read.values() for note in held.notes()),
    )
    return CocoSource(spec, str(root), paths, labels, tuple(classes))


def _find_images(root: epath.Path, stored: str, files: Sequence[str]) -> str:
    """The folder below `root` that holds the images, with a slash, or "" for `root` itself."""
    places = (f"{stored}/", f"images/{stored}/", "images/", "")
    for place in places:
        if any((root / f"{place}{file}").exists() for file in files[:SHOWN]):
            return place
    tried = ", ".join(str(root / f"{place}{files[0]}") for place in places)
    raise UserError(f"{root}: the images of {stored} are missing; looked for {printable(tried)}; expected {LAYOUT}")


def read_annotations(file: epath.Path) -> _Split:
    """Reads and checks one annotation file.

    Raises:
      UserError: it is no COCO annotation, it lists no image or category, or no annotation makes sense.
    """
    try:
        held = json.loads(read_regular(file, limit=MAX_JSON))
    except (ValueError, RecursionError, OSError, MemoryError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); copy it again") from error
    lists: list[Any] = [
        held.get(key) if isinstance(held, Mapping) else None for key in ("images", "categories", "annotations")
    ]
    if not all(isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows) for rows in lists):
        raise UserError(
            f"{file}: expected COCO's lists `images`, `categories` and `annotations`; export it as COCO instances"
        )
    images, categories, annotations = lists
    classes = _read_categories(file, categories)
    split = _Split([], [], classes, Counter(), {})
    sizes = _read_images(file, images, split)
    rank = {number: label for label, number in enumerate(classes)}
    objects: dict[int, list[tuple[np.ndarray, int, float, float]]] = {number: [] for number in sizes}
    for row in annotations:
        name = f"id {shown(row.get('id'))}"
        kind = row.get("category_id")
        image = row.get("image_id")
        if not _is_number(image) or image not in sizes:
            split.leave_out("of images that are not listed", name)
        elif not _is_number(kind) or kind not in rank:
            split.leave_out("of categories that are not listed", name)
        elif isinstance(problem := read_box(row.get("bbox"), sizes[image]), str):
            split.leave_out(problem, name)
        else:
            area = row.get("area")
            area = float(area) if _is_finite(area) and area > 0 else 0.0
            objects[image].append((problem, rank[kind], float(bool(row.get("iscrowd"))), area))
    if annotations and not any(objects.values()):
        raise UserError(f"{file}: none of its {len(annotations):,} annotations makes sense:\n{itemize(split.notes())}")
    split.labels = [_label(number, sizes[number], objects[number]) for number in sizes]
    return split


def _label(number: int, size: tuple[int, int], objects: list[tuple[np.ndarray, int, float, float]]) -> BoxLabel:
    box = np.array([box for box, _, _, _ in objects], np.float32).reshape(-1, 4)
    kind = np.array([kind for _, kind, _, _ in objects], np.int32)
    crowd, area = (np.array([row[i] for row in objects], np.float32) for i in (2, 3))
    return BoxLabel(box, kind, np.ones(len(kind), np.float32), number, size, crowd, area)


def read_box(bbox: Any, size: tuple[int, int]) -> np.ndarray | str:
    """Corners as shares of an image of (h, w) pixels, clipped to it, of COCO's (left, top, width, height); or what is wrong."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_finite, bbox)):
        return "without four finite numbers as bbox"
    left, top, width, height = map(float, bbox)
    if width <= 0 or height <= 0:
        return "with a box without area, or reversed"
    h, w = size
    corners = np.array([left / w, top / h, (left + width) / w, (top + height) / h])
    clipped = np.clip(corners, 0, 1).astype(np.float32)
    if not (clipped[2:] > clipped[:2]).all():
        return "with a box outside the image"
    return clipped


def _read_categories(file: epath.Path, categories: list[Mapping[str, Any]]) -> dict[int, str]:
    """{category id: name}, by id."""
    wrong = [
        shown(dict(row)) for row in categories if not _is_number(row.get("id")) or not isinstance(row.get("name"), str)
    ]
    if wrong or not categories:
        raise UserError(f"{file}: expected categories with an `id` and a `name`, found\n{itemize(wrong or ['none'])}")
    twice = [number for number, count in Counter(row["id"] for row in categories).items() if count > 1]
    if twice:
        raise UserError(f"{file}: category ids must differ; {twice[0]} names more than one")
    return {row["id"]: printable(row["name"]) for row in sorted(categories, key=lambda row: row["id"])}


def _read_images(file: epath.Path, images: list[Mapping[str, Any]], split: _Split) -> dict[int, tuple[int, int]]:
    """{image id: (h, w)} in the file's order; adds the names to `split.files`."""
    sizes: dict[int, tuple[int, int]] = {}
    wrong = []
    h: Any
    w: Any
    for row in images:
        number, name, h, w = (row.get(key, None) for key in ("id", "file_name", "height", "width"))
        parts = name.replace("\\", "/").split("/") if isinstance(name, str) else [".."]
        sound = _is_number(number) and number not in sizes and all(_is_number(side) and side > 0 for side in (h, w))
        if not sound or not parts[-1] or not parts[0] or ".." in parts or ":" in parts[0] or "\0" in str(name):
            wrong.append(shown(dict(row)))
            continue
        sizes[number] = (h, w)
        split.files.append("/".join(parts))
    if wrong or not sizes:
        raise UserError(
            f"{file}: expected images with an `id` of their own, a `file_name` inside the folder, `height` and `width`, found\n"
            f"{itemize(wrong or ['no image'])}"
        )
    return sizes


def _is_number(x: Any) -> bool:
    return type(x) is int and 0 <= x <= MAX_NUMBER


def _is_finite(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e12 and math.isfinite(x)
