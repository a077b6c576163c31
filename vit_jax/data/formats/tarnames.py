"""From a data set's name to its tar shards, and from a shard's name to its split."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from etils import epath

from vit_jax.data.formats.folders import SPLIT_WORDS
from vit_jax.data.formats.listing import find_missing
from vit_jax.types import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # all but the first are refused, by name
MAX_SHARDS = 10**6  # that a pattern may mean
_WILD = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")
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
    if "**" in pattern:
        raise UserError(
            f"tar shards {dataset}: `**` is not understood; name the folders, or list the shards with {{a,b}}"
        )
    expanded = _expand(dataset, pattern)
    missing = find_missing(str(root), [name for name in expanded if not _WILD.search(name)])
    absent, names = set(missing), list[str]()
    for name in expanded:
        if _WILD.search(name):
            present = sorted(_relative(path, root) for path in root.glob(name))
            missing += [] if present else [name]
        else:
            present = [] if name in absent else [name]
        names += present
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UserError(
            f"tar shards {dataset}: {len(missing)} of the shards it names are not in {root}: {shown}; check the path and "
            "the first and last number"
        )
    return root, list(dict.fromkeys(names))


def _expand(dataset: str, pattern: str) -> list[str]:
    """`a-{08..10}.{x,y}` -> a-08.x, a-08.y, a-09.x, ... as a shell does; UserError for more than MAX_SHARDS."""
    choices: list[Sequence[str]] = []
    count, position = 1, 0
    for braces in _BRACES.finditer(pattern):
        first, last, words = braces.groups()
        number = len(words.split(",")) if words else max(int(last) - int(first) + 1, 0)
        count *= number
        if count > MAX_SHARDS:
            raise UserError(
                f"tar shards {dataset}: the pattern means more than {MAX_SHARDS:,} shards; check its numbers"
            )
        middle = words.split(",") if words else [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
        choices += [[pattern[position : braces.start()]], middle]
        position = braces.end()
    return ["".join(parts) for parts in itertools.product(*choices, [pattern[position:]])]


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
