"""Folders at URLs (`gs://bucket/run`, `s3://`, `sftp://` and every other scheme of fsspec), read and written file by file.

Stores differ: most have no rename, no append and no locks. This module uses only what all of them have: list, put, get, remove.
A file that must never be seen half written is put beside its name and renamed, except in object stores, where every file appears
whole. Files are copied and never executed; names that a store lists may come from anybody and are checked.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vit_jax.types import UserError

URL = re.compile(r"[A-Za-z][\w+.-]*://")
# Extras of this package that install a scheme's driver.
EXTRAS = {"gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3"}
# Object stores: a file appears once it is whole, folders need not be made, and connections are the driver's affair.
OBJECT_STORES = {"gs", "gcs", "s3", "s3a", "az", "abfs", "abfss"}
PARTIAL = ".partial"


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL: `gs://bucket/run`."""
    return bool(URL.match(os.fspath(path)))


@contextlib.contextmanager
def named(local: str | os.PathLike[str], url: str) -> Iterator[None]:
    """Makes the messages of errors inside name a URL in place of its local copy."""
    try:
        yield
    except UserError as error:
        error.args = (str(error).replace(os.fspath(local), url),)
        raise


def reason(error: BaseException) -> str:
    """An error of a driver, on one line."""
    line = next(filter(None, map(str.strip, str(error).splitlines())), "")
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__


class Remote:
    """A folder or a file at a URL. Files are named relative to it: `checkpoints/10/meta/metadata`; "" is the URL itself.

    Methods raise the driver's errors, which are of many types; `explained` turns them into one message. Any thread may call them.

    Args:
      url: `gs://bucket/run`.

    Raises:
      UserError: the URL is no plain address, its scheme is unknown, or the scheme's driver is not installed.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        if wrong := sorted({letter for letter in url if letter in "*?[]\\" or not 32 <= ord(letter) != 127}):
            raise UserError(f"{url!r} has {' and '.join(map(repr, wrong))} in it; choose a URL without * ? [ ] \\")
        # A reference or a chain of URLs makes fsspec read other addresses, which the content of a file names.
        if "::" in url or url.startswith("reference:"):
            raise UserError(f"{url}: expected one plain address, as gs://bucket/run")
        self._of_objects = url.partition("://")[0] in OBJECT_STORES
        self._local = threading.local()
        with explained(self.url, "reached"):
            self._connect()

    def _connect(self) -> Any:
        """This thread's file system: a driver's connection (FTP, SFTP) serves one thread."""
        if not hasattr(self._local, "fs"):
            import fsspec

            scheme = self.url.partition("://")[0]
            try:
                self._local.fs, self._local.root = fsspec.core.url_to_fs(self.url)
            except ImportError as error:
                extra = EXTRAS.get(scheme)
                how = f'pip install "vit_jax[{extra}]"' if extra else str(error)
                raise UserError(f"{self.url}: the driver of {scheme}:// is not installed; {how}") from error
            except ValueError as error:
                text = f"{error}; expected gs://, s3:// or another scheme of fsspec"
                raise UserError(f"{self.url}: {text}") from error
        return self._local.fs

    def forget(self) -> None:
        """Drops this thread's connection of a driver that keeps one (FTP, SFTP): servers close those that are idle."""
        if hasattr(self._local, "fs") and not self._of_objects:
            type(self._local.fs).clear_instance_cache()
            del self._local.fs

    def _at(self, name: str) -> str:
        self._connect()
        return f"{self._local.root.rstrip('/')}/{name}" if name else self._local.root

    @property
    def name(self) -> str:
        """A name for a local copy: the last part of the URL, as far as it can be a file's name."""
        return re.sub(r"[^\w.@-]", "_", self.url.rpartition("/")[2]).lstrip(".") or "run"

    def is_file(self) -> bool:
        """Whether the URL is that of a file."""
        return bool(self._connect().isfile(self._at("")))

    def size(self, name: str) -> int:
        """The bytes of a file."""
        return int(self._connect().info(self._at(name))["size"])

    def list(self, below: str = "") -> dict[str, int]:
        """{name: bytes} of every file in and below a folder; {} if it is missing.

        Raises:
          UserError: the store lists a name that is not in the folder.
        """
        fs, root = self._connect(), self._at("").rstrip("/")
        fs.invalidate_cache()
        found = fs.find(self._at(below), detail=True)
        files = {path.removeprefix(root).lstrip("/"): int(info["size"] or 0) for path, info in found.items()}
        files.pop("", None)
        for name in files:
            parts = PurePosixPath(name).parts
            if ".." in parts or "\\" in name or "\0" in name or name != "/".join(parts):
                raise UserError(f"{self.url} lists the name {name!r}, which is not in it; nothing was fetched")
        return files

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if it is missing."""
        fs = self._connect()
        fs.invalidate_cache()
        try:
            return bytes(fs.cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def fetch(self, files: Mapping[str, int], folder: Path) -> None:
        """Copies files, {name: bytes} of `list`, into a local folder.

        Raises:
          UserError: they are larger than the room on the local disk.
          OSError: a copy has another size than was listed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        total, room = sum(files.values()), shutil.disk_usage(folder).free
        if total > room:
            raise UserError(
                f"{self.url}: {total:,} bytes are to be fetched, and {folder.parent} has room for {room:,}; make room, or set "
                "TMPDIR and XDG_CACHE_HOME to folders on a larger disk"
            )
        for place in {(folder / name).parent for name in files}:
            place.mkdir(parents=True, exist_ok=True)
        self._connect().get([self._at(name) for name in files], [str(folder / name) for name in files])
        for name, size in files.items():
            if (got := (folder / name).stat().st_size) != size:
                raise OSError(f"{name} has {size:,} bytes, of which {got:,} came")

    def put(self, folder: Path, names: Collection[str]) -> None:
        """Copies files of a local folder to their names here. A kill may leave some of them half written."""
        self._make_folders(names)
        self._connect().put([str(folder / name) for name in names], [self._at(name) for name in names])

    def replace(self, name: str, content: bytes) -> None:
        """Writes a file; a reader finds the old one or the new one, never half of one."""
        fs, beside = self._connect(), name if self._of_objects else name + PARTIAL
        self._make_folders([name])
        fs.pipe_file(self._at(beside), content)
        if beside != name:
            fs.mv(self._at(beside), self._at(name))

    def remove(self, name: str, *, recursive: bool = False) -> None:
        """Removes a file, or a folder with everything in it; a missing one is no error."""
        fs = self._connect()
        fs.invalidate_cache()
        if fs.exists(self._at(name)):
            fs.rm(self._at(name), recursive=recursive)

    def _make_folders(self, names: Collection[str]) -> None:
        """Makes the folders of files. An object store has none, and its driver would make a bucket whose name is misspelt."""
        fs = self._connect()
        if not self._of_objects:
            for parent in sorted({str(PurePosixPath(self._at(name)).parent) for name in names}):
                fs.makedirs(parent, exist_ok=True)


@contextlib.contextmanager
def explained(url: str, what: str) -> Iterator[None]:
    """Turns any error of a driver into a UserError: the URL could not be `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{url} could not be {what} ({reason(error)}); check the address, your rights to it and the network"
        ) from error
