"""Packs images, from a folder or a list, into sharded ArrayRecord once: sequential reads in place of a file per image.

The files are stored as they are, in reading order, so the packed set gives the same batches as what it was packed from.
Called by: scripts/prepare_data.py; data.sources opens the result.
"""

from __future__ import annotations

import concurrent.futures
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath

from vit_jax.data import ops
from vit_jax.data.folders import FolderSource, open_folder
from vit_jax.data.lists import is_list, open_list, read_list
from vit_jax.data.prepare import quietly
from vit_jax.types import UserError

CORRUPT_LIST = "corrupt.txt"


class Packed(NamedTuple):
    """What was written: the folder, examples per split, and `path: reason` of each image that was left out."""

    folder: str
    splits: dict[str, int]
    corrupt: list[str]


def is_packed(dataset: str) -> bool:
    """Whether a path is a folder that `pack` (or TFDS) wrote."""
    return (epath.Path(dataset).expanduser() / "dataset_info.json").exists()


def pack(dataset: str, to: str, *, threads: int = 2) -> Packed:
    """Packs every split of a folder or list of images.

    Args:
      dataset: folder with train/<class>/, or a list of `path,label`.
      to: folder to write; must not exist. A run names it as its data set.
      threads: that read and check images; each is decoded once, and what does not decode is left out and named.

    Raises:
      UserError: `to` exists, the layout is another, or no image of a split decodes.
    """
    target = epath.Path(to).expanduser()
    if target.exists():
        raise UserError(f"--to={to} exists; give a folder that does not, or remove it first")
    sources = {name: _open(dataset, name) for name in _split_names(dataset)}
    corrupt: list[str] = []
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename: what was interrupted never looks packed.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=os.fspath(target.parent)) as scratch:
        builder = _make_builder(sources, scratch, corrupt, threads)
        try:
            with quietly():
                builder.download_and_prepare(file_format="array_record")
        except AssertionError as error:
            if "No examples were yielded" not in str(error):
                raise
            raise UserError(f"{dataset}: no image of a split decodes; the last: {corrupt[-1]}") from error
        counts = {name: info.num_examples for name, info in builder.info.splits.items()}
        if corrupt:
            (builder.data_path / CORRUPT_LIST).write_text("\n".join(sorted(corrupt)) + "\n")
        shutil.move(os.fspath(builder.data_path), os.fspath(target))
    return Packed(str(target), counts, sorted(corrupt))


def _open(dataset: str, split: str) -> FolderSource:
    return open_list(dataset, split) if is_list(dataset) else open_folder(dataset, split)


def _split_names(dataset: str) -> list[str]:
    if is_list(dataset):
        return sorted({split for _, _, split in read_list(epath.Path(dataset).expanduser())})
    root = epath.Path(dataset).expanduser()
    open_folder(dataset, "train")  # says what is wrong with the layout
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _make_builder(sources: dict[str, FolderSource], data_dir: str, corrupt: list[str], threads: int) -> Any:
    import tensorflow_datasets as tfds

    names = next(iter(sources.values())).spec.class_names

    class Packing(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """A user's own images."""

        VERSION = tfds.core.Version("1.0.0")
        name = "packed"
        pkg_dir_path = None

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=list(names)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,  # the source's own order
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {name: self._generate_examples(source) for name, source in sources.items()}

        def _generate_examples(self, source: FolderSource) -> Iterator:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                step = 64 * threads  # bounds what waits in memory
                for start in range(0, len(source), step):
                    indices = range(start, min(start + step, len(source)))
                    for index, (data, label, path, problem) in zip(
                        indices, pool.map(lambda i: _check(source, i), indices), strict=True
                    ):
                        if problem:
                            corrupt.append(f"{path}: {problem}")
                        else:
                            yield index, {"image": io.BytesIO(data), "label": label}

    return Packing(data_dir=data_dir)


def _check(source: FolderSource, index: int) -> tuple[bytes, int, str, str]:
    """(bytes, label, path, what is wrong with it or "")."""
    data, label, path = source.read(index)
    try:
        ops.decode(data)
    except ops.CorruptImage as error:
        return data, label, path, str(error)
    return data, label, path, ""
