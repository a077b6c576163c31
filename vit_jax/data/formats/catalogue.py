"""Facts about data sets by name, before any is opened: their folder, their builder, and messages about unknown names."""

from __future__ import annotations

import difflib
import os

OWN_BUILDERS = ("digits", "canvases")  # modules of data.prepare; prepared on first use
# Read as they are distributed, without preparation: {name: where from}.
BY_FOLDER = {"objectnet": "objectnet-1.0.zip from https://objectnet.dev (its password is on that page)"}
PRIVATE = {
    "jft_300m": "JFT-300M is Google's own and was never published",
    "imagenet21k": "ImageNet-21k is licensed to those who register at image-net.org, and TFDS has no builder for it",
}
COMMAND = "vit_jax prepare"


def base_name(dataset: str) -> str:
    """The name without config and version."""
    return dataset.split(":")[0].split("/")[0]


def find_data_dir(data_dir: str = "") -> str:
    """The folder of prepared data sets: the argument, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def tfrecord_message(full_name: str, folder: str) -> str:
    """The message about data that is prepared in the format that only TensorFlow reads."""
    return (
        f"{full_name} in {folder} is stored as TFRecord; expected ArrayRecord, the format that can be read without "
        f"TensorFlow. Convert it in place (needs `pip install tensorflow`) with `tfds convert_format "
        f"--dataset_version_dir={folder} --out_file_format=array_record`, or prepare it again into another folder: "
        f"`{COMMAND} {full_name.split('/')[0]} --data-dir=OTHER`"
    )


def is_known(name: str) -> bool:
    """Whether TFDS or this package has a builder of that name."""
    import tensorflow_datasets as tfds

    base = base_name(name)
    return base in OWN_BUILDERS or base in tfds.list_builders(with_community_datasets=False)


def unknown_name_message(name: str) -> str:
    """Names the nearest TFDS data set."""
    import tensorflow_datasets as tfds

    if name in BY_FOLDER:
        return f"{name} is read as it is distributed and needs no preparation: unpack {BY_FOLDER[name]} into the data folder"
    known = {*tfds.list_builders(with_community_datasets=False), *OWN_BUILDERS}
    near = difflib.get_close_matches(base_name(name).lower(), known, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "its catalogue is https://www.tensorflow.org/datasets/catalog"
    )
    return (
        f"{name!r} is neither a TFDS data set ({len(known)} names known) nor a folder that exists; {hint} For your own "
        "images give the folder that contains train/<class>/*.jpg"
    )


def missing_message(dataset: str, root: str, data_dir: str) -> str:
    """Why a TFDS name cannot be opened, and what to do."""
    import tensorflow_datasets as tfds

    base, flag = base_name(dataset), f" --data-dir={data_dir}" if data_dir else ""
    folder = os.path.join(root, base)
    present = []
    for path, _, files in os.walk(folder):
        if "dataset_info.json" in files and "incomplete." not in path:
            present.append(os.path.relpath(path, root))
    if present:
        return (
            f"{dataset!r} is not among what is prepared in {folder}: found {', '.join(sorted(present))}; name one of them as "
            f"name/config:version, or prepare {dataset!r}: `{COMMAND} {dataset}{flag}`"
        )
    if base in PRIVATE:
        return (
            f"{base}: {PRIVATE[base]}; the data has to be your own. Looked in {folder} for a copy prepared by TFDS as "
            f"ArrayRecord and found none. Point --config.data.dataset at your TFDS name (with TFDS_DATA_DIR or "
            "--config.data.data_dir) or at a folder that contains train/<class>/*.jpg"
        )
    if base in tfds.list_builders(with_community_datasets=False):
        return (
            f"{dataset} is not prepared: no {base} in {root}. Prepare it with `{COMMAND} {dataset}{flag}`, "
            "or set TFDS_DATA_DIR to the folder that holds it"
        )
    return unknown_name_message(dataset)
