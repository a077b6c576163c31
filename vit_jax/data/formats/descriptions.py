"""Data sets in TFDS's layout, from any author: the description in a folder is checked here before TFDS reads it.

TFDS imports the module of every class that features.json names, so a folder could bring code and have it run; it waits for ever
on a pipe, fills in file names by a template, and raises one of a dozen exceptions for a description that lies. Every builder
that is restored from files comes from here, and all that is wrong with the files is one UserError.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from vit_jax.files import MAX_JSON_BYTES, open_regular, read_json
from vit_jax.types import UserError

INFO, FEATURES = "dataset_info.json", "features.json"
PACKED_AS = "packed.json"  # how a set was packed: {"short_side": 256}
ADVICE = "copy it again, or prepare or pack it again"
# Modules that TFDS itself names. It is imported by then, so they are found in the installed package and nowhere else.
TFDS_CLASS = re.compile(r"tensorflow_datasets\.core\.features(\.[A-Za-z]\w*)+")
FILE_TEMPLATE = re.compile(r"([\w.@-]|\{(DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y)\})*")
VERSION = re.compile(r"\d+\.\d+\.\d+")


def open_directory(folder: str) -> Any:
    """The TFDS builder of a folder that holds one prepared data set itself.

    Raises:
      UserError: the folder's description is damaged, lies, or names code that is not TFDS's.
    """
    import tensorflow_datasets as tfds

    place = epath.Path(folder).expanduser()
    check_description(place)
    with refusing(place):
        return tfds.builder_from_directory(place)


def check_prepared(root: str, name: str) -> None:
    """Checks all versions of a data set below a folder of prepared ones: TFDS chooses among them.

    Raises:
      UserError: as `open_directory`.
    """
    base = epath.Path(root) / name.replace("\0", "")  # which TFDS refuses
    if (config := base / ".config" / "metadata.json").exists():
        read_json(config, advice=ADVICE)
    for pattern in (f"*/{FEATURES}", f"*/*/{FEATURES}"):
        for path in base.glob(pattern):
            if VERSION.fullmatch(
                path.parent.name
            ):  # what has another name, as while it is prepared, TFDS does not open
                check_description(path.parent)


def check_description(folder: epath.Path) -> None:
    """Refuses a prepared data set that TFDS must not read.

    Raises:
      UserError: files that are no regular ones, JSON that is damaged, or a class that is not TFDS's.
    """
    with refusing(folder):
        names = list(_list_files(folder))
        for name in names:
            if name.endswith(".labels.txt"):
                open_regular(folder / name, limit=MAX_JSON_BYTES).close()
    read_json(folder / INFO, advice=ADVICE)
    if FEATURES in names:
        with refusing(folder / FEATURES):
            _check_classes(read_json(folder / FEATURES, advice=ADVICE), str(folder / FEATURES))


def _list_files(folder: epath.Path) -> Iterator[str]:
    """Names of the files in a folder; OSError for one that is neither a file nor a folder."""
    if "://" in str(folder):
        yield from (path.name for path in folder.iterdir())
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                yield entry.name
            elif not entry.is_dir():
                open_regular(entry.path).close()  # which says what it is


def _check_classes(features: Any, place: str) -> None:
    """Refuses features that name a class of someone else, or a file to take names from, at any depth.

    TFDS has three spellings of a class's key, and JSON inside strings.
    """
    waiting = [features]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            waiting.append(json.loads(value))
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for key, named in value.items():
                key = key.replace("_", "").lower()
                foreign = (
                    key in ("type", "pythonclassname") and isinstance(named, str) and not TFDS_CLASS.fullmatch(named)
                )
                if foreign or key == "namesfile":
                    raise UserError(
                        f"{place} names {str(named)[:80]!r}, which would be {'imported' if foreign else 'read'}; expected TFDS's "
                        "own features, tensorflow_datasets.core.features.*. Use data sets of people you trust; convert it to "
                        "TFDS's features, or to a folder of images"
                    )


@contextlib.contextmanager
def refusing(place: os.PathLike[str] | str) -> Iterator[None]:
    """Inside, files of a data set are interpreted: whatever is raised says that they are damaged, as one UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # ParseError, TypeError, RecursionError, ...: TFDS checks nothing itself
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"{os.fspath(place)} cannot be read as a data set that TFDS prepared ({type(error).__name__}: {reason}); {ADVICE}"
        ) from error


def check_shards(builder: Any, splits: Iterable[str]) -> dict[str, dict[str, int]]:
    """Opens every file of some splits, before a run needs them, and compares the number of examples.

    Returns:
      {split: {file: its size in bytes}}.

    Raises:
      UserError: a file is missing, no regular one, cannot be read, lies outside the folder, or holds another number of examples
        than dataset_info.json says.
    """
    folder = epath.Path(builder.data_dir)
    tasks = [(split, path, length) for split in splits for path, length in _name_shards(builder, split, folder)]
    sizes: dict[str, dict[str, int]] = {split: {} for split in splits}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # a bucket answers late
        for (split, path, _), size in zip(tasks, pool.map(lambda task: _check_shard(*task), tasks), strict=True):
            sizes[split][path.name] = size
    return sizes


def _name_shards(builder: Any, split: str, folder: epath.Path) -> list[tuple[epath.Path, int]]:
    """(path, examples) of each file of a split."""
    info = builder.info.splits[split]
    template = info.filename_template.template
    present = sum(1 for _ in _list_files(folder))
    if not FILE_TEMPLATE.fullmatch(template):
        raise UserError(f"{folder / INFO}: expected a template of file names, found {template[:80]!r}; {ADVICE}")
    if len(info.shard_lengths) > present:
        raise UserError(
            f"{split}: {folder / INFO} counts {len(info.shard_lengths):,} files, and the folder holds {present:,}; {ADVICE}"
        )
    with refusing(folder):
        # A set may be stored in several formats, of which dataset_info.json has another first.
        named = info.filename_template.replace(filetype_suffix="array_record")
        paths = sorted(epath.Path(path) for path in named.sharded_filepaths(info.num_shards))
    if outside := [path for path in paths if path.parent != folder]:
        raise UserError(f"{split}: {folder / INFO} names {outside[0]}, outside of its folder; {ADVICE}")
    return list(zip(paths, info.shard_lengths, strict=True))


def _check_shard(split: str, path: epath.Path, expected: int) -> int:
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except FileNotFoundError as error:
        raise UserError(
            f"{split}: {path} is missing; dataset_info.json counts {expected:,} examples in it; {ADVICE}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{split}: {path} is damaged: {error}; {ADVICE}") from error
    if found != expected:
        raise UserError(f"{split}: {path} is damaged: it holds {found:,} examples, expected {expected:,}; {ADVICE}")
    return size


def short_side(folder: Any) -> int:
    """Pixels that the images of a packed set were reduced to; 0 for none, as all sets of older versions."""
    file = epath.Path(folder) / PACKED_AS
    side = read_json(file, advice=ADVICE).get("short_side") if file.exists() else 0
    if type(side) is not int or side < 0:
        raise UserError(f"{file}: expected a short_side in pixels, found {side!r}; {ADVICE}")
    return side
