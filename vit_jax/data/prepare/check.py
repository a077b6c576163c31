"""Checks which of the paper's data sets are on disk, and in which format, and names the command that supplies the others: run
it before renting a machine."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Literal, NamedTuple

from vit_jax.data.formats import objectnet
from vit_jax.data.formats.catalogue import (
    BY_FOLDER,
    COMMAND,
    OWN_BUILDERS,
    PRIVATE,
    find_data_dir,
    is_known,
    tfrecord_message,
    unknown_name_message,
)
from vit_jax.data.formats.records import find_builder
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.prepare import fingerprints, idx, tensorflow_free
from vit_jax.data.vtab.tasks import TASKS
from vit_jax.files import open_regular
from vit_jax.types import UserError

State = Literal["ready", "missing", "wrong"]
NO_ARCHIVES = {*(".json", ".xml", ".html", ".htm", ".txt", ".csv", ".tsv", ".md"), *(".jpg", ".jpeg", ".png", ".tif")}
ERROR_PAGE = (b"<!doctype", b"<html", b"<?xml", b'{"error')


class Known(NamedTuple):
    """A data set of the paper: its splits, as published, and what preparing it takes besides a network.

    Args:
      splits: {split: examples}.
      by_hand: where the user has to fetch files, "" where TFDS does.
    """

    splits: dict[str, int]
    by_hand: str = ""


# Sizes: the data sets' own publications, as TFDS's catalogue gives them for its splits. The packages that preparing needs
# are in tensorflow_free: NEEDS_TENSORFLOW, NEEDS_PACKAGE.
KNOWN = {
    "digits": Known({"train": 1437, "test": 360}),
    "canvases/digits": Known({"train": 12000, "test": 1000}),
    "canvases/digits_single": Known({"train": 60000, "test": 1000}),
    "coco/2017": Known({"train": 118287, "validation": 5000, "test": 40670}),
    "voc/2007": Known({"train": 2501, "validation": 2510, "test": 4952}),
    "voc/2012": Known({"train": 5717, "validation": 5823}),
    "fashion_mnist": Known({"train": 60000, "test": 10000}),
    "cifar10": Known({"train": 50000, "test": 10000}),
    "cifar100": Known({"train": 50000, "test": 10000}),
    "oxford_iiit_pet": Known({"train": 3680, "test": 3669}),
    "oxford_flowers102": Known({"train": 1020, "validation": 1020, "test": 6149}),
    "imagenet2012": Known({"train": 1281167, "validation": 50000}, by_hand="image-net.org: ILSVRC2012_img_*.tar"),
    "imagenet2012_real": Known({"validation": 50000}, by_hand="image-net.org: ILSVRC2012_img_val.tar"),
    "imagenet_v2": Known({"test": 10000}),
    "imagenet_a": Known({"test": 7500}),
    "imagenet_r": Known({"test": 30000}),
    "imagenet_sketch": Known({"test": 50889}),
    "caltech101": Known({"train": 3060, "test": 6084}),
    "svhn_cropped": Known({"train": 73257, "test": 26032}),
    "sun397/tfds": Known({"train": 76128, "validation": 10875, "test": 21750}),
    "dtd": Known({"train": 1880, "validation": 1880, "test": 1880}),
    "patch_camelyon": Known({"train": 262144, "validation": 32768, "test": 32768}),
    "eurosat/rgb": Known({"train": 27000}),
    "resisc45": Known({"train": 31500}, by_hand="NWPU-RESISC45.rar, unpacked,"),
    "diabetic_retinopathy_detection/btgraham-300": Known(
        {"train": 35126, "validation": 10906, "test": 42670}, by_hand="kaggle.com/c/diabetic-retinopathy-detection"
    ),
    "clevr": Known({"train": 70000, "validation": 15000}),
    "dmlab": Known({"train": 65550, "validation": 22628, "test": 22735}),
    "dsprites": Known({"train": 737280}),
    "kitti": Known({"train": 6347, "validation": 423, "test": 711}),
    "smallnorb": Known({"train": 24300, "test": 24300}),
    "uc_merced": Known({"train": 2100}),
    "cars196": Known({"train": 8144, "test": 8041}),
    "caltech_birds2011": Known({"train": 5994, "test": 5794}),
    "objectnet": Known({"test": 18574}, by_hand=BY_FOLDER["objectnet"]),
    "imagenet21k": Known({}, by_hand="image-net.org"),
}


class Finding(NamedTuple):
    """The state of one data set: one line of facts, and the next action, "" if there is none."""

    name: str
    state: State
    detail: str
    action: str


def check(name: str, data_dir: str = "", record: bool = False) -> Finding:
    """Looks for a data set and reads a few of its images; fetches nothing. Whatever goes wrong is a finding.

    Args:
      name: TFDS name, or `vtab/TASK`.
      data_dir: folder of prepared data sets; empty for the default.
      record: write the checksums of what is on disk (`data.prepare.fingerprints`), in place of those written before.
    """
    try:
        return _check(name, data_dir, record)
    except Exception as error:  # one data set must not hide the state of the others
        reason = (str(error).splitlines() or [""])[0]
        return Finding(name, "wrong", f"cannot be checked: {type(error).__name__}: {reason}", "report this as a bug")


def _check(name: str, data_dir: str, record: bool) -> Finding:
    dataset = TASKS[name.removeprefix("vtab/")].dataset if name.removeprefix("vtab/") in TASKS else name
    root = find_data_dir(data_dir)
    if dataset == objectnet.NAME:
        return _check_objectnet(root)
    try:
        builder = find_builder(dataset, root)
    except UserError as error:
        return Finding(name, "wrong", str(error), f"{COMMAND} {dataset}")
    if builder is None:
        if dataset not in KNOWN and dataset not in PRIVATE and not is_known(dataset):
            return Finding(name, "missing", "no such data set", unknown_name_message(dataset))
        return Finding(name, "missing", f"not in {root}", _how_to_get(dataset, root, data_dir))
    try:
        return _check_prepared(name, dataset, builder, record)
    except UserError as error:
        return Finding(name, "wrong", str(error), f"remove {builder.data_dir} and prepare it again")


def _check_objectnet(root: str) -> Finding:
    """Checks the one set that is read as it is distributed: all images are there, and a few decode."""
    name = objectnet.NAME
    try:
        place = objectnet.find_objectnet(name, root)
    except UserError:
        return Finding(name, "missing", f"not in {root}", objectnet.how_to_get(root))
    try:
        source = objectnet.open_objectnet(name, "test", root)
        (expected,) = KNOWN[name].splits.values()
        if len(source) != expected:
            raise UserError(f"{len(source):,} images of ImageNet's classes, expected {expected:,}")
        for index in range(0, len(source), max(len(source) // fingerprints.SAMPLES, 1)):
            source.decode(source.read(index)[0])
    except (UserError, CorruptImage) as error:
        return Finding(name, "wrong", f"{place}: {error}", f"remove it; {objectnet.how_to_get(root)}")
    return Finding(name, "ready", f"{len(source):,} images of ImageNet's classes; in {place}", "")


def _how_to_get(dataset: str, root: str, data_dir: str) -> str:
    base = dataset.split("/")[0]
    command = f"{COMMAND} {dataset}" + (f" --data-dir={data_dir}" if data_dir else "")
    if base in PRIVATE:
        return PRIVATE[base]
    if page := _error_page(os.path.join(root, "downloads"), base):
        return f"{page} is a web page and no archive (a host's error): remove it, then {command}"
    known = KNOWN.get(dataset, Known({}))
    if base in OWN_BUILDERS:
        return f"nothing: it is prepared on first use ({command} does so now)"
    if base in idx.NAMES:
        return f"{command}, offline with --source=FOLDER of its four idx files"
    steps = [f"fetch {known.by_hand} into {os.path.join(root, 'downloads', 'manual')}"] if known.by_hand else []
    package, reason = tensorflow_free.lacks(base)
    steps += [f"pip install {package} (to prepare it: {reason}; reading needs no such thing)"] if package else []
    return "; then ".join([*steps, command])


def _error_page(downloads: str, base: str) -> str:
    """A downloaded archive that is text of the web, or "". TFDS keeps what it downloads in a folder of the data set's name,
    under the address and checksum, with a suffix if the address had one; what a user fetched is in `manual`."""
    others = {name.split("/")[0] for name in KNOWN} - {base} | {"extracted"}
    for path, folders, files in os.walk(downloads):
        if path == downloads:
            folders[:] = sorted(set(folders) - others)
        elif os.path.basename(path) == "manual":
            folders.clear()  # archives lie there; below may be a hundred thousand images
        for file in files:
            if os.path.splitext(file)[1].lower() not in NO_ARCHIVES:
                with contextlib.suppress(OSError), open_regular(os.path.join(path, file)) as opened:
                    if opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(ERROR_PAGE):
                        return os.path.join(path, file)
    return ""


def _check_prepared(name: str, dataset: str, builder: Any, record: bool) -> Finding:
    """Format, counts, files, and a few images of a data set that is on disk."""
    info = builder.info
    formats = {f.value for f in info.available_file_formats()}
    if "array_record" not in formats:
        stored = f"{info.full_name} in {builder.data_dir} is stored as {', '.join(formats)}"
        return Finding(name, "wrong", stored, tfrecord_message(info.full_name, str(builder.data_dir)))
    counts = {split: s.num_examples for split, s in info.splits.items()}
    sizes = ", ".join(f"{split} {count:,}" for split, count in sorted(counts.items()))
    detail = f"{info.full_name}, ArrayRecord, {sizes}; in {builder.data_dir}"
    expected = KNOWN[dataset].splits if dataset in KNOWN else {}
    short = [
        f"{s} has {counts.get(s, 0):,} examples, expected {n:,}" for s, n in expected.items() if counts.get(s) != n
    ]
    if short:
        return Finding(
            name, "wrong", f"{detail}: {'; '.join(short)}", f"remove {builder.data_dir} and prepare it again"
        )
    if record:
        fingerprints.write(builder)
    return Finding(name, "ready", f"{detail}; {fingerprints.compare(builder)}", "")
