"""Lists image files, below a folder or among those that a list names, and puts them into reading order.

Names are kept as the file system has them, UTF-8 or not. `types.printable` makes them fit for messages.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from vit_jax.types import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
PATTERNS = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
FEW = 8  # files of one folder that are looked up one by one; of more, the folder is listed once


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(SUFFIXES)


def list_images(folder: epath.Path) -> tuple[list[str], Counter[str]]:
    """The images in a folder and in all folders below it.

    Returns:
      (paths relative to `folder`, sorted; how many files end with each other suffix).
    """
    paths: list[str] = []
    others: Counter[str] = Counter()
    for inside, names in _walk(str(folder)):
        for name in names:
            if is_image(name):
                paths.append(f"{inside}/{name}" if inside else name)
            else:
                others[os.path.splitext(name)[1].lower() or "without suffix"] += 1
    return sorted(paths), others


def holds_images(folder: epath.Path) -> bool:
    """Whether there is an image in a folder or below it."""
    return any(is_image(name) for _, names in _walk(str(folder)) for name in names)


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """(path below `top`, files in it) of each folder.

    Hidden files and folders (`.DS_Store`, `._photo.jpg`, `.ipynb_checkpoints`) are passed over. A folder that several links
    lead to is read once, by the first of its names, so that a link to a folder above leads nowhere.
    """
    seen, waiting = set[object](), [""]
    while waiting:
        inside = waiting.pop()
        place = os.path.join(top, inside) if inside else top
        if (identity := _identity(place)) in seen:
            continue
        seen.add(identity)
        folders, files = [], []
        for name, is_folder in _entries(place):
            if is_folder:
                folders.append(f"{inside}/{name}" if inside else name)
            else:
                files.append(name)
        yield inside, files
        waiting += sorted(folders, reverse=True)


def _identity(folder: str) -> object:
    """An identity that all names of one folder share."""
    if "://" in folder:
        return folder
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a folder) of what is in a folder and not hidden."""
    if "://" in folder:
        for path in epath.Path(folder).iterdir():
            if not path.name.startswith("."):
                yield path.name, not is_image(path.name) and path.is_dir()  # each question is a request
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                try:
                    yield entry.name, entry.is_dir()
                except OSError:  # a link to itself
                    yield entry.name, False


def list_folders(folder: epath.Path) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones."""
    return sorted(name for name, is_folder in _entries(str(folder)) if is_folder)


def count_images(folder: epath.Path) -> int:
    """Images in a folder itself."""
    return sum(is_image(name) for name, is_folder in _entries(str(folder)) if not is_folder)


def sort_by_hash(files: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Orders (path, label) by the MD5 of the path, as TFDS orders by the hash of its keys: any part of the order is a random
    subset, and the same one on every machine."""
    return sorted(files, key=lambda file: hashlib.md5(to_bytes(file[0]), usedforsecurity=False).digest())


def to_bytes(path: str) -> bytes:
    """A path as it is on disk."""
    return path.encode("utf-8", "surrogateescape")


def find_missing(root: str, paths: Sequence[str]) -> list[str]:
    """The files that are missing, in the order given. Lists their folders: over a network, asking for one file takes as long.

    Args:
      root: the folder that relative paths start from.
      paths: relative, absolute or gs://.

    Raises:
      UserError: a gs:// folder that cannot be reached.
    """
    inside: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        end = path.rfind("/") + 1
        inside[path[:end]].append(path[end:])
    missing = {start + name for start, names in inside.items() for name in _absent(join(root, start), names)}
    return [path for path in paths if path in missing]


def join(root: str, path: str) -> str:
    """The place of a path that may be relative, absolute or gs://."""
    return path if "://" in path else os.path.join(root, path)


def _absent(folder: str, names: list[str]) -> list[str]:
    if len(names) > FEW:
        try:
            present = _names(folder)
        except (FileNotFoundError, NotADirectoryError):
            return names
        except OSError:  # one may open files in it and not list them
            present = set()
        names = [name for name in names if name not in present]
    # Look the rest up one by one: some file systems find a name that they spell in another way.
    return [name for name in names if not _exists(os.path.join(folder, name))]


def _names(folder: str) -> set[str]:
    if "://" not in folder:
        return set(os.listdir(folder))
    with _reaching(folder):
        return {path.name for path in epath.Path(folder).iterdir()}


def _exists(path: str) -> bool:
    if "://" not in path:
        return os.path.exists(path)
    with _reaching(path):
        return bool(epath.Path(path).exists())


@contextlib.contextmanager
def _reaching(path: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of the many packages that may be behind it
        raise UserError(f"{path} cannot be reached ({type(error).__name__}: {error}); copy it to a disk") from error
