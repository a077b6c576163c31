"""Writes data sets to ArrayRecord in TFDS's layout, without TensorFlow where that can be. TFDS writes into a folder of
another name and renames it at the end, so what is interrupted never looks prepared."""

from __future__ import annotations

import contextlib
import errno
import gzip
import logging
import os
import socket
import tarfile
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath

from vit_jax.data.formats.catalogue import COMMAND, OWN_BUILDERS, find_data_dir, tfrecord_message, unknown_name_message
from vit_jax.data.formats.descriptions import check_prepared
from vit_jax.data.prepare import fingerprints, idx, tensorflow_free
from vit_jax.files import is_full
from vit_jax.types import UserError


class Prepared(NamedTuple):
    """A data set on disk.

    Args:
      name: TFDS's full name, `fashion_mnist/3.0.1`.
      folder: where its files are.
      splits: examples per split.
      existed: True if nothing had to be written.
      notes: what the user should know.
    """

    name: str
    folder: str
    splits: dict[str, int]
    existed: bool
    notes: tuple[str, ...]


def prepare(name: str, source: str = "", data_dir: str = "") -> Prepared:
    """Prepares a data set, or says what is already there.

    Args:
      name: `digits`, `mnist`, `fashion_mnist`, `kmnist`, or any TFDS name (`eurosat/rgb`).
      source: for the mnist family, the folder of its four idx files; elsewhere empty, except for the files a user has
        to fetch by hand (TFDS's manual_dir).
      data_dir: where to; empty for the default, see `find_data_dir`.

    Returns:
      What is on disk now.

    Raises:
      UserError: an unknown name, bad idx files, no room, or TensorFlow, network or manual download missing.
    """
    builder = _make_builder(name, folder := find_data_dir(data_dir))
    existed = _is_prepared(builder)
    try:
        if not existed:
            epath.Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the data folder {folder} cannot be made: {error}; name another one with data_dir, or in TFDS_DATA_DIR"
        ) from error
    notes: list[str] = []
    if existed and builder.info.file_format and builder.info.file_format.value != "array_record":
        raise UserError(tfrecord_message(builder.info.full_name, builder.data_dir))
    if not existed and builder.name in OWN_BUILDERS:
        if source and builder.name == "canvases" and builder.builder_config.name == "fashion_mnist":
            builder.source = source
        elif source:
            raise UserError(
                f"--source={source} has no use for {builder.name}, which ships in a Python package; leave it out"
            )
        _write(builder, quiet=True)
    elif not existed and builder.name in idx.NAMES and source:
        splits = idx.read_splits(os.path.expanduser(source))
        for split, expected in idx.EXPECTED.items():
            found = len(splits[split].labels)
            if found != expected:
                notes.append(f"{split} has {found} examples; the published {builder.name} has {expected}")
        idx.feed(builder, splits)
        _write(builder, quiet=True)
    elif not existed:
        _write_stock(builder, source)
    if not existed:
        try:
            fingerprints.write(builder)  # so that `--check` can tell whether it is still what it was
        except UserError as error:
            notes.append(str(error))
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    return Prepared(builder.info.full_name, str(builder.data_dir), counts, existed, tuple(notes))


def _is_prepared(builder: Any) -> bool:
    # TFDS's own is_prepared() says the same, and warns on the way.
    return (builder.data_path / "dataset_info.json").exists()


def _make_builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    base = name.split(":")[0].split("/")[0]
    check_prepared(data_dir, base)  # a builder reads the description of what is there already
    if base in OWN_BUILDERS:
        return _own_builder(name, base, data_dir)
    try:
        with tensorflow_free.installed():  # coco and voc name types of TensorFlow where they describe their features
            return tfds.builder(name, data_dir=data_dir)
    except (ValueError, AssertionError, ImportError) as error:
        if isinstance(error, tfds.core.DatasetNotFoundError) or "Parsing builder name" in str(error):
            raise UserError(unknown_name_message(name)) from error
        raise UserError(f"cannot open TFDS data set {name!r}: {str(error).splitlines()[0]}") from error


def _own_builder(name: str, base: str, data_dir: str) -> Any:
    if base == "digits":
        from vit_jax.data.prepare import digits

        return digits.Digits(data_dir=data_dir)
    from vit_jax.data.prepare import canvases

    config = name.split(":")[0].partition("/")[2] or "digits"
    if config not in canvases.Canvases.builder_configs:
        raise UserError(f"no data set {name}; canvases are of {', '.join(canvases.Canvases.builder_configs)}")
    return canvases.Canvases(config=config, data_dir=data_dir)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without TFDS's progress bars and its announcement of sizes it does not know."""
    import tensorflow_datasets as tfds

    from tensorflow_datasets.core.utils import tqdm_utils  # isort: skip

    logger, enabled = logging.getLogger("absl"), tqdm_utils._active
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        logger.setLevel(level)
        if enabled:
            tfds.enable_progress_bar()


def _write(builder: Any, quiet: bool, **options: Any) -> None:
    """Runs TFDS's own preparation. Two processes may do so at once: the second to finish finds the folder taken."""
    try:
        with quietly() if quiet else contextlib.nullcontext():
            builder.download_and_prepare(file_format="array_record", **options)
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if (isinstance(error, FileExistsError) or number == errno.ENOTEMPTY) and _is_prepared(builder):
            builder.info.read_from_directory(builder.data_dir)
            return
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(
                f"cannot write {builder.name} to {builder.data_dir_root} ({os.strerror(number)}); set TFDS_DATA_DIR (or "
                "--data-dir) to a folder you may write to"
            ) from error
        if is_full(error) or "Not enough disk space" in str(error):
            raise UserError(
                f"no room to prepare {builder.name} in {builder.data_dir_root} ({error}); free some, or set TFDS_DATA_DIR"
            ) from error
        raise


def _write_stock(builder: Any, source: str) -> None:
    """Prepares as TFDS does, without TensorFlow if there is none, and says in one message what it lacked."""
    import tensorflow_datasets as tfds

    package, reason = tensorflow_free.lacks(builder.name)
    if package:
        raise UserError(_package_message(builder, package, reason))
    options = {}
    if source:
        options["download_config"] = tfds.download.DownloadConfig(manual_dir=os.path.expanduser(source))
    try:
        _check_network(builder, source)
        with tensorflow_free.installed():
            _write(builder, quiet=False, **options)
    except UserError:
        raise
    except Exception as error:
        message = _explain(error, builder)
        if message is None:
            raise
        raise UserError(message) from error


def _package_message(builder: Any, package: str, reason: str) -> str:
    return (
        f"preparing {builder.name} with TFDS needs {package}: {reason} (reading it afterwards does not). Run `pip install "
        f"{package}` and this command again, or copy a folder prepared elsewhere as ArrayRecord to {builder.data_dir}"
    )


def _check_network(builder: Any, source: str) -> None:
    """Fails in seconds where TFDS would retry for minutes: nothing downloaded yet, no proxy, and no name service."""
    downloads = os.path.join(str(builder.data_dir_root), "downloads")
    manual = os.path.expanduser(source) or os.path.join(downloads, "manual")
    infos = builder.url_infos or {}  # old addresses among them, so not all of the files may be wanted
    hosts = {urllib.parse.urlparse(url).hostname for url in infos} - {None}
    # TFDS looks there for a file of the registered name before it downloads it.
    fetched = any(os.path.exists(os.path.join(manual, info.filename)) for info in infos.values() if info.filename)
    cached = fetched or os.path.isdir(os.path.join(downloads, builder.name))
    if not hosts or builder.MANUAL_DOWNLOAD_INSTRUCTIONS or urllib.request.getproxies() or cached:
        return
    for host in sorted(map(str, hosts)):
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, 443)
            return
    raise socket.gaierror(f"none of {', '.join(sorted(map(str, hosts)))} can be reached")


def _explain(error: BaseException, builder: Any) -> str | None:
    """One message for the usual reasons why a stock preparation fails; None for an unusual one."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    text = " ".join(str(link) for link in chain)
    if "No module named 'tensorflow'" in text or any("tensorflow" in (getattr(e, "name", "") or "") for e in chain):
        return _package_message(builder, "tensorflow", text.splitlines()[0])
    for link in chain:
        if isinstance(link, ImportError):
            return f"preparing {builder.name} needs a package: {link}; install it (`pip install {link.name}`) and try again"
    absent = "manual" in text.lower() or any(isinstance(e, FileNotFoundError | AssertionError) for e in chain)
    if absent and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        where = os.path.join(str(builder.data_dir_root), "downloads", "manual")
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        return (
            f"{builder.name} has to be fetched by hand, and was not found in {where}. TFDS says: {instructions} Place the "
            f"files there, or name their folder: `{COMMAND} {builder.name} --source=FOLDER`"
        )
    if any(isinstance(e, socket.gaierror | ConnectionError) or "ConnectionError" in type(e).__name__ for e in chain):
        local = (
            f", or give local idx files: `{COMMAND} {builder.name} --source=FOLDER`"
            if builder.name in idx.NAMES
            else ""
        )
        return (
            f"{builder.name} could not be downloaded: {chain[-1]}. Run this where there is a network{local}, or copy a folder "
            f"prepared elsewhere as ArrayRecord to {builder.data_dir}"
        )
    if any(
        isinstance(e, tarfile.TarError | zipfile.BadZipFile | zlib.error | EOFError | gzip.BadGzipFile) for e in chain
    ):
        return (
            f"an archive of {builder.name} is damaged or not an archive: {chain[-1]}. Some hosts send a page that says so in its "
            f"place: `{COMMAND} --check {builder.name}` names it; remove it from {builder.data_dir_root}/downloads"
        )
    if "HTTP" in text or "Download" in type(error).__name__ or "Checksum" in type(error).__name__:
        return f"the download of {builder.name} failed at its origin: {error}. Try later, or another mirror, or TFDS's issues"
    return None
