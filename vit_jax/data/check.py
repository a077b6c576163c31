"""What of the paper's data is on disk, in which format, and what supplies the rest: said before anything is rented.

Called by: scripts/prepare_data.py (`--check`).
"""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

from vit_jax.data import idx, objectnet, ops, prepare
from vit_jax.data.records import PRIVATE, find_builder, source_of
from vit_jax.data.vtab import TASKS
from vit_jax.types import UserError

State = Literal["ready", "missing", "wrong"]
SAMPLES = 5  # images of a split that are decoded
ERROR_PAGE = (b"<!doctype", b"<html", b"<?xml", b'{"error')


class Known(NamedTuple):
    """A data set of the paper: its splits, as published, and what preparing it takes besides a network.

    Args:
      splits: {split: examples}.
      by_hand: where the user has to fetch files, "" where TFDS does.
      tensorflow: whether TFDS's own preparation runs TensorFlow operations (reading never does).
    """

    splits: dict[str, int]
    by_hand: str = ""
    tensorflow: bool = True


# Sizes: the data sets' own publications, as TFDS's catalogue gives them for its splits.
KNOWN = {
    "digits": Known({"train": 1437, "test": 360}, tensorflow=False),
    "fashion_mnist": Known({"train": 60000, "test": 10000}, tensorflow=False),
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
    "resisc45": Known({"train": 31500}, by_hand="NWPU-RESISC45.rar"),
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
    "objectnet": Known({"test": 18574}, by_hand=prepare.BY_FOLDER["objectnet"], tensorflow=False),
    "imagenet21k": Known({}, by_hand="image-net.org"),
}


class Finding(NamedTuple):
    """What was found of one data set: one line of what is so, and the next action, "" if there is none."""

    name: str
    state: State
    detail: str
    action: str


def check(name: str, data_dir: str = "") -> Finding:
    """Looks for a data set and reads a few of its images; writes nothing and fetches nothing.

    Args:
      name: TFDS name, or `vtab/TASK`.
      data_dir: folder of prepared data sets; empty for the default.
    """
    dataset = TASKS[name.removeprefix("vtab/")].dataset if name.removeprefix("vtab/") in TASKS else name
    root = prepare.find_data_dir(data_dir)
    if dataset == objectnet.NAME:
        return _check_objectnet(root)
    try:
        builder = find_builder(dataset, root)
    except UserError as error:
        return Finding(name, "wrong", str(error), f"{prepare.COMMAND} {dataset}")
    if builder is None:
        if dataset not in KNOWN and dataset not in PRIVATE and not prepare.is_known(dataset):
            return Finding(name, "missing", "no such data set", prepare.unknown_name_message(dataset))
        return Finding(name, "missing", f"not in {root}", _how_to_get(dataset, root, data_dir))
    try:
        return _check_prepared(name, dataset, builder)
    except UserError as error:
        return Finding(name, "wrong", str(error), f"remove {builder.data_dir} and prepare it again")


def _check_objectnet(root: str) -> Finding:
    """Of the one set that is read as it is distributed: whether it is there and whole, and a few images."""
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
        for index in range(0, len(source), max(len(source) // SAMPLES, 1)):
            source.decode(source.read(index)[0])
    except (UserError, ops.CorruptImage) as error:
        return Finding(name, "wrong", f"{place}: {error}", f"remove it; {objectnet.how_to_get(root)}")
    return Finding(name, "ready", f"{len(source):,} images of ImageNet's classes; in {place}", "")


def _how_to_get(dataset: str, root: str, data_dir: str) -> str:
    base = dataset.split("/")[0]
    command = f"{prepare.COMMAND} {dataset}" + (f" --data-dir={data_dir}" if data_dir else "")
    if base in PRIVATE:
        return PRIVATE[base]
    if page := _error_page(os.path.join(root, "downloads")):
        return f"{page} is a web page and no archive (a host's error): remove it, then {command}"
    known = KNOWN.get(dataset, Known({}))
    if base in prepare.OWN_BUILDERS:
        return f"nothing: it is prepared on first use ({command} does so now)"
    if base in idx.NAMES:
        return f"{command}, offline with --source=FOLDER of its four idx files"
    steps = [f"fetch {known.by_hand} into {os.path.join(root, 'downloads', 'manual')}"] if known.by_hand else []
    extra = " (its preparation needs `pip install tensorflow`; reading does not)" if known.tensorflow else ""
    return "; then ".join([*steps, command + extra])


def _error_page(folder: str) -> str:
    """A downloaded archive that is text of the web, or ""."""
    for path, _, files in os.walk(folder):
        for file in files:
            if file.endswith((".zip", ".tar", ".gz", ".tgz", ".rar", ".npz", ".mat")):
                with open(os.path.join(path, file), "rb") as opened:
                    if opened.read(64).lstrip().lower().startswith(ERROR_PAGE):
                        return os.path.join(path, file)
    return ""


def _check_prepared(name: str, dataset: str, builder: Any) -> Finding:
    """Format, counts, and a few images of a data set that is on disk."""
    info = builder.info
    formats = {f.value for f in info.available_file_formats()}
    if "array_record" not in formats:
        stored = f"{info.full_name} in {builder.data_dir} is stored as {', '.join(formats)}"
        return Finding(name, "wrong", stored, prepare.tfrecord_message(info.full_name, str(builder.data_dir)))
    counts = {split: s.num_examples for split, s in info.splits.items()}
    said = ", ".join(f"{split} {count:,}" for split, count in sorted(counts.items()))
    detail = f"{info.full_name}, ArrayRecord, {said}; in {builder.data_dir}"
    expected = KNOWN[dataset].splits if dataset in KNOWN else {}
    short = [
        f"{s} has {counts.get(s, 0):,} examples, expected {n:,}" for s, n in expected.items() if counts.get(s) != n
    ]
    if short:
        return Finding(
            name, "wrong", f"{detail}: {'; '.join(short)}", f"remove {builder.data_dir} and prepare it again"
        )
    checked = _decode_some(dataset, builder, counts)
    return Finding(name, "ready", f"{detail}{checked}", "")


def _decode_some(dataset: str, builder: Any, counts: dict[str, int]) -> str:
    """Decodes images spread over each split.

    Raises:
      UserError: one does not decode, or its record cannot be read.
    """
    features = builder.info.features
    if "label" not in features or "image" not in features:
        return "; its labels are a task's, images not decoded here"
    total = 0
    for split, count in counts.items():
        if not count:
            continue
        source = source_of(builder, dataset, split)
        for index in sorted({i * (count - 1) // max(SAMPLES - 1, 1) for i in range(SAMPLES)}):
            try:
                ops.decode(source.read(index)[0])
            except (ops.CorruptImage, OSError, IndexError, RuntimeError) as error:
                raise UserError(
                    f"{dataset} {split}: example {index} of {builder.data_dir} is damaged: {error}"
                ) from error
            total += 1
    return f"; {total} images decoded"
