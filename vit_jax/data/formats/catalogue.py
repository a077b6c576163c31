"""Facts about data sets by name, before any is opened: their folder, their builder, and messages about unknown names."""

from __future__ import annotations

import difflib
import os

OWN_BUILDERS = ("digits", "canvases")  # modules of data.prepare; prepared on first use
# Read as they are distributed, without preparation: {name: where from}.
BY_FOLDER = {"objectnet": "objectnet-1.0.zip from https://objectnet.dev (its password is on that page)"}
COMMAND = "vit_jax prepare"


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

    base = name.split(":")[0].split("/")[0]
    return base in OWN_BUILDERS or base in tfds.list_builders(with_community_datasets=False)


def unknown_name_message(name: str) -> str:
    """Names the nearest TFDS data set."""
    import tensorflow_datasets as tfds

    if name in BY_FOLDER:
        return f"{name} is read as it is distributed and needs no preparation: unpack {BY_FOLDER[name]} into the data folder"
    known = {*tfds.list_builders(with_community_datasets=False), *OWN_BUILDERS}
    near = difflib.get_close_matches(name.split(":")[0].split("/")[0].lower(), known, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "its catalogue is https://www.tensorflow.org/datasets/catalog"
    )
    return (
        f"{name!r} is neither a TFDS data set ({len(known)} names known) nor a folder that exists; {hint} For your own "
        "images give the folder that contains train/<class>/*.jpg"
    )
