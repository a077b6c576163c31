"""Images named on a command line: files, folders, patterns, lists of names and tar shards. They have no labels."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from etils import epath

from vit_jax.data.formats.listing import PATTERNS, is_image, list_images
from vit_jax.data.formats.tar import REGULAR, DamagedTar, TarFile, iter_members
from vit_jax.data.image.encoded import MAX_BYTES
from vit_jax.data.source import Source
from vit_jax.files import UnreadableFile, read_regular
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError, itemize, printable

STDIN = "-"


class TarImage(str):
    """The name of an image in a tar file, `SHARD.tar:cat/1.jpg`, and where its bytes lie.

    Args:
      shard, member: name of the tar file, and of the image in it.
      file: the opened tar file.
      offset, size: of its bytes.
    """

    _file: TarFile
    _offset: int
    _size: int

    def __new__(cls, shard: str, member: str, file: TarFile, offset: int, size: int) -> TarImage:
        made = super().__new__(cls, f"{shard}:{member}")
        made._file, made._offset, made._size = file, offset, size
        return made

    def read(self) -> bytes:
        """Its bytes."""
        if self._size > MAX_BYTES:
            raise UnreadableFile(f"{self._size:,} bytes; expected at most {MAX_BYTES:,}")
        return self._file.read(self._offset, self._size)


def read_picture(file: str) -> bytes:
    """The bytes of an image that `find_images` found.

    Raises:
      OSError: it cannot be read, or is no regular file.
    """
    return file.read() if isinstance(file, TarImage) else read_regular(file, limit=MAX_BYTES)


def find_images(paths: Sequence[str], lines: Iterable[str] | None = None) -> list[str]:
    """Lists images: the given files; of a folder all images in and below it, in order and without hidden files; of a pattern
    (`photos/*.jpg`, `**` for folders at any depth) what matches; of a tar file its images; and of `-` the files, folders and
    patterns that standard input names, one a line.

    Args:
      paths: as on a command line.
      lines: instead of standard input.

    Raises:
      UserError: a folder, pattern or tar file without images, or a damaged tar file.
    """
    files: list[str] = []
    wrong: list[str] = []
    for path in paths:
        if path == STDIN:
            named = [line.rstrip("\r\n") for line in (sys.stdin if lines is None else lines)]
            files += find_images([line for line in named if line.strip() and line != STDIN])
            continue
        place = os.path.expanduser(path)
        if os.path.isdir(place):
            images = [str(Path(place) / image) for image in list_images(epath.Path(place))[0]]
            problem = f"no file in it or below matches {PATTERNS}"
        elif path.lower().endswith(".tar") and os.path.exists(place):
            images, problem = _in_tar(place)
        elif glob.has_magic(place) and not os.path.exists(place):
            images = sorted(file for file in glob.glob(place, recursive=True) if not os.path.isdir(file))
            problem = "no file matches"
        else:
            images, problem = [place], ""
        files += images
        if not images:
            wrong.append(f"{path}: {problem}")
    if wrong:
        raise UserError(f"expected image files and folders of them:\n{itemize(wrong)}")
    return files


def _in_tar(path: str) -> tuple[list[str], str]:
    """The images in a tar file, in order; the problem where there are none."""
    try:
        file = TarFile(path)
        members = [x for x in iter_members(file) if x.kind == REGULAR]
    except (OSError, DamagedTar) as error:
        return [], str(error)
    names = [(x.name.decode("utf-8", "surrogateescape"), x) for x in members]
    shown = [(name, x) for name, x in names if is_image(name) and not os.path.basename(name).startswith(".")]
    return [TarImage(path, name, file, x.offset, x.size) for name, x in shown], f"none of its files matches {PATTERNS}"


class Pictures(Source):
    """Images without labels as a data set, in the order given.

    Args:
      files: from `find_images`.
    """

    def __init__(self, files: Sequence[str]):
        self._files = list(files)
        self.spec = DatasetSpec("images", "", len(self._files), ClassId(1), (), (None, None, 3))

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Names of the files."""
        return [printable(str(self._files[i])) for i in indices]

    def read(self, index: int) -> tuple[bytes, int, str]:
        """See `Source`."""
        try:
            data = read_picture(self._files[index])
        except OSError:
            data = b""
        return data, 0, self.ids([index])[0]

    def fingerprint(self) -> bytes:
        """A hash of all names."""
        return hashlib.sha256("\0".join(self._files).encode(errors="surrogateescape")).digest()
