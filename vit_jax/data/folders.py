"""A folder of images, `FOLDER/train/<class>/*.jpg`, as a data set: no list, no code, no preparation. Called by:
data.sources."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence

import numpy as np
from etils import epath

from vit_jax.data.splits import parse_split, split_names
from vit_jax.types import DatasetSpec, UserError

SUFFIXES = (".jpg", ".jpeg", ".png")
LAYOUT = "FOLDER/train/<class>/*.jpg, *.jpeg or *.png"


class FolderSource:
    """One split of a folder of images; see `data.sources.Source`.

    Args:
      spec: what was asked for and what it holds.
      root: the folder that contains train/.
      paths: of the files, relative to `root`, in reading order.
      labels: int32, one per path.
    """

    def __init__(self, spec: DatasetSpec, root: str, paths: list[str], labels: np.ndarray):
        self.spec = spec
        self.folder = root
        self._paths = paths
        self._labels = labels

    @property
    def paths(self) -> list[str]:
        """Of the files, relative to the folder, in reading order."""
        return self._paths

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> tuple[bytes, int, str]:
        """Example `index` of the split: (encoded image, label, path). A file that cannot be read gives no bytes, which
        do not decode: it is counted with the corrupt images, by name."""
        path = self._paths[index]
        try:
            data = _read_bytes(os.path.join(self.folder, path))
        except OSError as error:
            logging.getLogger(__name__).warning("cannot read %s: %s", path, error)
            data = b""
        return data, int(self._labels[index]), path

    def read_many(self, indices: Sequence[int]) -> list[tuple[bytes, int, str]]:
        """As `read`, for several."""
        return [self.read(int(index)) for index in indices]

    def part(self, start: int, stop: int) -> FolderSource:
        """Examples `start` to `stop` (excluded) alone."""
        spec = self.spec._replace(num_examples=len(self._paths[start:stop]), class_counts=())
        return FolderSource(spec, self.folder, self._paths[start:stop], self._labels[start:stop])

    def fingerprint(self) -> bytes:
        """Hash of all paths and labels."""
        return hashlib.sha256("\0".join(self._paths).encode(errors="surrogateescape") + self._labels.tobytes()).digest()

    def num_bytes(self) -> int:
        """Bytes of all files; one that is not there has none."""
        root, total = epath.Path(self.folder), 0
        for path in self._paths:
            with contextlib.suppress(OSError):
                total += (root / path).stat().length
        return total


def _read_bytes(path: str) -> bytes:
    if "://" in path:
        return epath.Path(path).read_bytes()
    with open(path, "rb", buffering=0) as file:  # half of pathlib's time: 15 us a photograph
        return file.read()


def open_folder(dataset: str, split: str) -> FolderSource:
    """Opens a folder of images.

    Classes are the sorted folders of train/. Inside a split, examples are ordered by the MD5 of their path (as TFDS
    orders by the hash of its keys), so that `train[:90%]` is a random subset, and the same one on every machine.

    Args:
      dataset: the folder; `~` and gs:// are understood.
      split: TFDS's syntax over the folder's own splits, `train[:90%]`, `val`.

    Returns:
      The source.

    Raises:
      UserError: another layout than LAYOUT (the message says what was found and what to point at), an unknown split,
        classes that train/ does not have, or class folders without images.
    """
    root = epath.Path(dataset).expanduser()
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise UserError(
            f"image folder {root}: expected {LAYOUT}, found {what} there; check the path (it is relative to the "
            "folder the command runs in)"
        )
    folders = _subfolders(root)
    if "train" not in folders:
        raise UserError(_explain_layout(root, folders))
    classes = _subfolders(root / "train")
    if not classes:
        raise UserError(
            f"image folder {root}: expected {LAYOUT}, found no class folder in {root / 'train'}; put each class's "
            "images into a folder named after the class"
        )
    # A split that was not asked for is not listed: on ImageNet train/ alone is a million names.
    wanted = folders if split == "all" else list(dict.fromkeys(split_names(split)))
    unknown = [name for name in wanted if name not in folders]
    if unknown:
        raise UserError(
            f"image folder {root}: no split {unknown[0]!r} in {split!r}; its splits are {', '.join(folders)}"
        )
    files = {name: _list_split(root, name, classes) for name in wanted}
    counts = {name: len(files[name]) for name in wanted}
    paths: list[tuple[str, int]] = []
    for part in parse_split(str(root), split, counts):
        paths += files[part.name][part.start : part.stop]
    labels = np.array([label for _, label in paths], np.int32)
    return FolderSource(describe_split(dataset, split, labels, classes), str(root), [path for path, _ in paths], labels)


def describe_split(dataset: str, split: str, labels: np.ndarray, classes: Sequence[str]) -> DatasetSpec:
    """The spec of a split of files whose labels, int (n,), are known without reading them."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return DatasetSpec(
        dataset, split, len(labels), len(classes), tuple(classes), (None, None, 3), class_counts=tuple(counts)
    )


def _names(folder: epath.Path) -> list[str]:
    """Sorted names in a folder, without hidden ones (`.DS_Store`, `._photo.jpg`, `.ipynb_checkpoints`)."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _subfolders(folder: epath.Path) -> list[str]:
    return [name for name in _names(folder) if (folder / name).is_dir()]


def _images(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.lower().endswith(SUFFIXES)]


def _list_split(root: epath.Path, split: str, classes: list[str]) -> list[tuple[str, int]]:
    """All (path relative to root, label) of a split, in reading order."""
    found = _subfolders(root / split)
    extra = [name for name in found if name not in set(classes)]
    if extra:
        raise UserError(
            f"image folder {root}: {split}/ has {len(extra)} classes that train/ does not have ({', '.join(extra[:5])}); "
            f"expected those of train/ ({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''})"
        )
    labels = {name: label for label, name in enumerate(classes)}
    files, empty = [], []
    for name in found:
        names = _names(root / split / name)
        images = _images(names)
        if not images:
            empty.append(f"{name} ({', '.join(names[:3]) if names else 'empty'})")
        files += [(f"{split}/{name}/{image}", labels[name]) for image in images]
    if empty and (split == "train" or not files):
        raise UserError(
            f"image folder {root}: {len(empty)} of {len(found)} class folders in {split}/ have 0 files matching "
            f"{', '.join('*' + s for s in SUFFIXES)}: {'; '.join(empty[:5])}; add images or remove these folders"
        )
    if not files:
        raise UserError(f"image folder {root}: {split}/ has no class folder; expected {split}/<class>/*.jpg")
    return sorted(files, key=lambda file: hashlib.md5(file[0].encode(), usedforsecurity=False).digest())


def _explain_layout(root: epath.Path, folders: list[str]) -> str:
    """What a folder without train/ looks like, and what to point at instead."""
    here = len(_images(_names(root)))
    holding = [name for name in folders[:50] if _images(_names(root / name))]
    deeper = [name for name in folders[:50] if "train" in _subfolders(root / name)]
    start = f"image folder {root}: expected {LAYOUT}, found no train/"
    resolved = epath.Path(root).resolve()
    if holding and resolved.name in ("train", "test", "val", "validation"):
        return f"{start} but class folders ({', '.join(holding[:5])}); point at the folder above: {resolved.parent}"
    if here and resolved.parent.name in ("train", "test", "val", "validation"):
        return f"{start} but {here} images: this is one class; point at {resolved.parent.parent}"
    if holding:
        return (
            f"{start} but {len(holding)} folders of images ({', '.join(holding[:5])}); move them into {root / 'train'}, "
            "and those held out for testing into a sibling named test/"
        )
    if deeper:
        return f"{start} but {deeper[0]}/train; point at {root / deeper[0]}"
    if here:
        return f"{start} but {here} images without class folders; move each into train/<its class>/"
    what = f"{len(folders)} folders ({', '.join(folders[:5])})" if folders else "nothing that looks like images"
    return f"{start} but {what}; point at the folder that contains train/"
