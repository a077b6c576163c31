"""Which tar shards a data set's name means, and which split each belongs to by its own."""

from __future__ import annotations

import re

from etils import epath

from vit_jax.types import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # all but the first are refused, by name
SPLIT_WORDS = ("train", "val", "valid", "validation", "dev", "test")
LAYOUT = "train-000000.tar, ... and test-000000.tar (or val-), each sample KEY.jpg with KEY.cls"


def is_shards(dataset: str) -> bool:
    """Whether a data set's name is that of tar shards: `shards/train-{000..123}.tar`, `shards/*.tar`, or their folder."""
    if names_shards(dataset):
        return True
    root = epath.Path(dataset).expanduser()
    return root.is_dir() and bool(_list_folder(root))


def names_shards(dataset: str) -> bool:
    """Whether a data set's name ends as a tar file's does."""
    return dataset.lower().endswith(SUFFIXES)


def shard_splits(dataset: str) -> list[str]:
    """The splits of a data set of tar shards, sorted."""
    root, names = find_shards(dataset)
    return sorted({find_split(root, name) for name in names})


def find_shards(dataset: str) -> tuple[epath.Path, list[str]]:
    """The folder, and the names in it of the shards that a folder, file or pattern means.

    Raises:
      UserError: none, or not all of those that the pattern counts up.
    """
    place = epath.Path(dataset).expanduser()
    if not names_shards(dataset):
        names = _list_folder(place) if place.is_dir() else []
        if not names:
            raise UserError(f"tar shards {place}: found no *.tar there; expected {LAYOUT}")
        return place, names
    fixed, _, _ = str(place).partition("{")
    fixed = re.split(r"[*?\[]", fixed)[0]
    root = epath.Path(fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else "."))
    pattern = str(place)[fixed.rfind("/") + 1 :]
    names, missing = [], []
    for name in _expand(pattern):
        if re.search(r"[*?\[]", name):
            found = sorted(_relative(path, root) for path in root.glob(name))
        else:
            found = [name] if (root / name).exists() else []
        names += found
        missing += [] if found else [name]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(
            f"tar shards {dataset}: {len(missing)} of the shards it names are not in {root}: {shown}; check the path and "
            "the first and last number"
        )
    return root, list(dict.fromkeys(names))


def _expand(pattern: str) -> list[str]:
    """`a-{08..10}.{x,y}` -> a-08.x, a-08.y, a-09.x, ... as a shell does."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not found:
        return [pattern]
    first, last, words = found.groups()
    middle = words.split(",") if words else [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    rest = _expand(pattern[found.end() :])
    return [pattern[: found.start()] + word + end for word in middle for end in rest]


def _list_folder(root: epath.Path) -> list[str]:
    """Names of the shards in a folder, and in those of its folders that are named after a split. None where train/ holds
    something else: then a tar file beside it is what the images came in."""
    here = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    names = [name for name in here if names_shards(name)]
    for folder in (name for name in here if name in SPLIT_WORDS and (root / name).is_dir()):
        inside = sorted(p.name for p in (root / folder).iterdir() if names_shards(p.name) and p.name[0] != ".")
        if folder == "train" and not inside:
            return []
        names += [f"{folder}/{name}" for name in inside]
    return names


def _relative(path: epath.Path, root: epath.Path) -> str:
    return str(path.relative_to(root))


def find_split(root: epath.Path, name: str) -> str:
    """The last split word in a shard's name, else the folder's own name if it is one, else train."""
    words = [word for word in re.findall("[a-z]+", name.lower()) if word in SPLIT_WORDS]
    return words[-1] if words else root.name if root.name in SPLIT_WORDS else "train"
