"""A folder of images as a data set, `FOLDER/train/<class>/*.jpg` or `FOLDER/<class>/*.jpg`: no list, no code, no preparation."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
from etils import epath

from vit_jax.data.formats.listing import (
    PATTERNS,
    count_images,
    holds_images,
    join,
    list_folders,
    list_images,
    sort_by_hash,
)
from vit_jax.data.image.encoded import MAX_BYTES
from vit_jax.data.source import Origin, Source
from vit_jax.data.splits import parse_split, split_names
from vit_jax.files import read_regular
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError, printable

LAYOUT = f"FOLDER/train/<class>/ or FOLDER/<class>/ with images ({PATTERNS})"
SPLIT_WORDS = ("train", "val", "valid", "validation", "dev", "test")


class FolderSource(Source):
    """One split of a folder of images.

    Args:
      spec: what was asked for and what it holds.
      root: the folder that relative paths start from.
      paths: of the files, relative to `root`, absolute or gs://, in reading order.
      labels: int32, one per path.
    """

    def __init__(self, spec: DatasetSpec, root: str, paths: list[str], labels: np.ndarray):
        self.spec = spec
        self.folder = root
        self._paths = paths
        self._labels = labels

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Paths of the files."""
        return [self._paths[i] for i in indices]

    def origin(self) -> Origin:
        """The split, and the folder that relative paths start from."""
        return Origin(self.spec.split, self.folder)

    def labels(self) -> np.ndarray:
        """int32 (n,), of all examples."""
        return self._labels

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> tuple[bytes, int, str]:
        """Example `index` of the split: (encoded image, label, path). A file that cannot be read, is no regular file or has
        more than MAX_BYTES is b"", which does not decode: the loader counts it with the corrupt images, by name."""
        path = self._paths[index]
        name = printable(path)
        try:
            data = read_regular(join(self.folder, path), limit=MAX_BYTES)
        except OSError as error:
            logging.getLogger(__name__).warning("cannot read %s: %s", name, printable(str(error)))
            data = b""
        return data, int(self._labels[index]), name

    def part(self, start: int, stop: int) -> FolderSource:
        """Examples `start` to `stop` (excluded) alone."""
        spec = self.spec._replace(num_examples=len(self._paths[start:stop]), class_counts=())
        return FolderSource(spec, self.folder, self._paths[start:stop], self._labels[start:stop])

    def fingerprint(self) -> bytes:
        """Hash of all paths and labels."""
        return hashlib.sha256("\0".join(self._paths).encode(errors="surrogateescape") + self._labels.tobytes()).digest()

    def num_bytes(self) -> int:
        """Bytes of all files; a missing one has none."""
        total = 0
        for path in self._paths:
            with contextlib.suppress(OSError):
                total += epath.Path(join(self.folder, path)).stat().length
        return total


def open_folder(dataset: str, split: str) -> FolderSource:
    """Opens a folder of images.

    Classes are the sorted folders of train/ or, where there is no train/, of the folder itself, which then is one split,
    `train`. A class's images are those in its folder and below. Inside a split, examples are ordered by the MD5 of their path,
    so that `train[:90%]` is a random subset, and the same one on every machine.

    Args:
      dataset: the folder; `~` and gs:// are understood.
      split: TFDS's syntax over the folder's own splits, `train[:90%]`, `val`.

    Returns:
      The source.

    Raises:
      UserError: another layout than LAYOUT (the message says what was found and what to point at), an unknown split,
        classes that train/ does not have, or class folders without images.
    """
    root = _root_of(dataset)
    try:
        return _open(dataset, root, split)
    except OSError as error:
        raise UserError(f"image folder {root} cannot be listed: {error}; copy it, or change its permissions") from error


def _root_of(dataset: str) -> epath.Path:
    root = epath.Path(dataset).expanduser()
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise UserError(
            f"image folder {root}: expected {LAYOUT}, found {what} there; check the path (it is relative to the "
            "folder the command runs in)"
        )
    return root


def _open(dataset: str, root: epath.Path, split: str) -> FolderSource:
    places, classes, notes = _find_splits(root)
    # A split that was not asked for is not listed: on ImageNet train/ alone is a million names.
    wanted = list(places) if split == "all" else list(dict.fromkeys(split_names(split)))
    unknown = [name for name in wanted if name not in places]
    if unknown:
        raise UserError(
            f"image folder {root}: no split {unknown[0]!r} in {split!r}; its splits are {', '.join(places)}"
        )
    files, others = {}, Counter[str]()
    for name in wanted:
        files[name], ignored = _list_split(root, places[name], classes)
        others += ignored
    if others:
        named = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
        notes.append(
            f"{root}: {others.total():,} files of {' and '.join(wanted)} are no images by their names: {printable(named)}"
        )
    paths: list[tuple[str, int]] = []
    for part in parse_split(str(root), split, {name: len(files[name]) for name in wanted}):
        paths += files[part.name][part.start : part.stop]
    labels = np.array([label for _, label in paths], np.int32)
    spec = describe_split(dataset, split, labels, classes)._replace(notes=tuple(notes))
    return FolderSource(spec, str(root), [path for path, _ in paths], labels)


def folder_splits(dataset: str) -> list[str]:
    """The splits of a folder of images, sorted.

    Raises:
      UserError: there is no such folder, or it has another layout than LAYOUT.
    """
    return list(_find_splits(_root_of(dataset))[0])


def describe_split(dataset: str, split: str, labels: np.ndarray, classes: Sequence[str]) -> DatasetSpec:
    """The spec of a split of files whose labels, int (n,), are known without reading them."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    names = tuple(map(printable, classes))
    return DatasetSpec(
        dataset, split, len(labels), ClassId(len(classes)), names, (None, None, 3), class_counts=tuple(counts)
    )


def _show(names: Sequence[str]) -> str:
    return printable(", ".join(names[:5])) + (", ..." if len(names) > 5 else "")


def _find_splits(root: epath.Path) -> tuple[dict[str, str], list[str], list[str]]:
    """({split: its folder below `root`, "" for `root` itself}, classes, notes)."""
    folders = list_folders(root)
    if "train" not in folders:
        _check_classes(root, folders)
        loose = count_images(root)
        notes = [f"{root}: {loose:,} images beside the class folders are in no class, and not read"] if loose else []
        return {"train": ""}, folders, notes
    classes = list_folders(root / "train")
    if not classes:
        raise UserError(
            f"image folder {root}: expected {LAYOUT}, found no class folder in {root / 'train'}; put each class's "
            "images into a folder named after the class"
        )
    if len(classes) == 1 and (inner := _classes_below(root / "train" / classes[0])):
        raise UserError(
            f"image folder {root}: train/ has one class folder, {classes[0]}, that holds {len(inner)} folders of images "
            f"({_show(inner)}); move these into {root / 'train'} if they are the classes"
        )
    beside = [name for name in folders if name not in SPLIT_WORDS and count_images(root / name)]
    notes = (
        [f"{root}: {_show(beside)} beside train/ hold images without class folders, and are not read"] if beside else []
    )
    return {name: name for name in folders}, classes, notes


def _classes_below(folder: epath.Path) -> list[str]:
    """Folders of images in a folder that has no images itself; none where there are fewer than two."""
    holding = [] if count_images(folder) else [name for name in list_folders(folder) if holds_images(folder / name)]
    return holding if len(holding) > 1 else []


def _list_split(root: epath.Path, place: str, classes: list[str]) -> tuple[list[tuple[str, int]], Counter[str]]:
    """((path relative to root, label) of a split in reading order, how many other files there are by suffix)."""
    present = list_folders(root / place) if place else classes
    extra = [name for name in present if name not in set(classes)]
    if extra:
        raise UserError(
            f"image folder {root}: {place}/ has {len(extra)} classes that train/ does not have ({_show(extra)}); "
            f"expected those of train/ ({_show(classes)})"
        )
    labels = {name: label for label, name in enumerate(classes)}
    start = f"{place}/" if place else ""
    files, empty, others = [], [], Counter[str]()
    for name in present:
        images, ignored = list_images(root / place / name)
        others += ignored
        if not images:
            inside = ", ".join(f"{count:,} {suffix}" for suffix, count in ignored.most_common(3)) or "empty"
            empty.append(f"{name} ({inside})")
        files += [(f"{start}{name}/{image}", labels[name]) for image in images]
    if empty and (place in ("train", "") or not files):
        raise UserError(
            f"image folder {root}: {len(empty)} of {len(present)} class folders{f' in {start}' if start else ''} have 0 files "
            f"matching {PATTERNS}: {printable('; '.join(empty[:5]))}; add images or remove these folders"
        )
    if not files:
        raise UserError(f"image folder {root}: {place}/ has no class folder; expected {place}/<class>/*.jpg")
    return sort_by_hash(files), others


def _check_classes(root: epath.Path, folders: list[str]) -> None:
    """Refuses a folder without train/ whose folders are not classes, and says what to point at instead."""
    start = f"image folder {root}: expected {LAYOUT}, found no train/"
    resolved = epath.Path(root).resolve()
    above, here = resolved.parent, count_images(root)
    if (above.parent / "train").is_dir() and above.name in SPLIT_WORDS and here:
        raise UserError(f"{start} but {here} images: this is one class; point at {above.parent}")
    if (above / "train").is_dir() and resolved.name in SPLIT_WORDS and folders:
        raise UserError(f"{start} but class folders ({_show(folders)}); point at the folder above: {above}")
    if deeper := [name for name in folders[:50] if "train" in list_folders(root / name)]:
        raise UserError(f"{start} but {deeper[0]}/train; point at {root / deeper[0]}")
    if splits := [name for name in folders if name in SPLIT_WORDS]:
        raise UserError(f"{start} but {_show(splits)}; name the folder of the training images train")
    holding = [name for name in folders[:50] if holds_images(root / name)]
    if not holding:
        if here:
            beside = [name for name in list_folders(above)[:50] if count_images(above / name)]
            also = f", or point at {above} if {_show(beside)} are the classes" if len(beside) > 1 else ""
            raise UserError(
                f"{start} but {here} images without class folders; move each into {root}/<its class>/{also}"
            )
        what = f"{len(folders)} folders ({_show(folders)})" if folders else "nothing that looks like images"
        raise UserError(f"{start} but {what}; point at the folder that contains train/")
    if len(folders) == 1:
        if inner := _classes_below(root / folders[0]):
            raise UserError(
                f"{start} but one folder, {folders[0]}, that holds {len(inner)} folders of images ({_show(inner)}); point at "
                f"{root / folders[0]} if they are the classes"
            )
        raise UserError(f"{start} but one folder of images ({folders[0]}); expected two classes or more, a folder each")
