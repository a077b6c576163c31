"""Checksums of a prepared data set: of each shard its size and count, and of a few examples of each split the stored bytes
and the decoded pixels. They are written beside `dataset_info.json` when a data set is prepared, and compared by `--check`,
which so finds what was damaged or replaced since.

Two kinds of checksum, since decoders of JPEG differ by a level from one library to the next while PNG is exact: the stored
bytes must be the same, and so must the pixels of a PNG; of a JPEG the mean of each channel, to MEAN_TOLERANCE.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from vit_jax.data.formats.descriptions import check_shards
from vit_jax.data.image.decode import decode
from vit_jax.files import read_json
from vit_jax.types import UserError

FILE = "vit_jax_checksums.json"
SAMPLES = 5  # examples of a split, spread evenly from the first to the last
MEAN_TOLERANCE = 2.0  # of 255
LOSSLESS = b"\x89PNG"

# For data sets that are fixed by their publication and available here: sha256 over the pixels and labels
# of the samples, in TFDS's order. They do not depend on who encoded the PNG. Made by `digest` on scikit-learn's digits and
# on Debian's dataset-fashion-mnist.
PINNED = {
    "digits/1.0.0": {
        "train": "671257fed1500012cd91c22f3775dbac0064907c8d69a1daeba5b38f0a248b32",
        "test": "286a710b637ea9cf2295a9946a8e3c404450587db43eaada34f69badddcbbfe3",
    },
    "fashion_mnist/3.0.1": {
        "train": "0632bbea3c94564095bc7f8a306ae1f6f4eabaaa81f22c976d308a08ff3a3a58",
        "test": "28686401392117203a7a8d3a410430fc5b65c0210a3543a6e0f196073ddab80b",
    },
}


class Sample(NamedTuple):
    """One example.

    Args:
      place: in its split.
      record: sha256 of what is stored, annotations included.
      pixels: sha256 of the decoded image, "" if the data set has no feature `image`.
      mean: of each channel, 0 to 255.
      lossless: whether every decoder gives the same pixels.
      label: class, -1 where there is no feature `label`.
    """

    place: int
    record: str
    pixels: str
    mean: tuple[float, ...]
    lossless: bool
    label: int


def sample_split(builder: Any, split: str) -> list[Sample]:
    """Reads and decodes SAMPLES examples of a split.

    Raises:
      UserError: one cannot be read or does not decode.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    decoders = {key: tfds.decode.SkipDecoding() for key in images}
    count = builder.info.splits[split].num_examples
    samples: list[Sample] = []
    if not count:
        return samples
    source = builder.as_data_source(split, decoders=decoders)
    for index in sorted({i * (count - 1) // (SAMPLES - 1) for i in range(SAMPLES)}):
        try:
            raw = source.data_source[index]
            example = features.deserialize_example_np(raw, decoders=decoders)
            data = bytes(example["image"]) if "image" in images else b""
            image = decode(data) if data else np.zeros((1, 1, 0), np.uint8)
        except Exception as error:  # of the record, its protocol buffer, its features or its image
            raise UserError(f"{split}: example {index} of {builder.data_dir} is damaged: {error}") from error
        label = example.get("label", -1)
        samples.append(
            Sample(
                index,
                hashlib.sha256(raw).hexdigest(),
                hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest() if data else "",
                tuple(round(float(x), 2) for x in image.mean((0, 1))),
                data.startswith(LOSSLESS),
                int(label) if np.ndim(label) == 0 and not isinstance(label, bytes | str) else -1,
            )
        )
    return samples


def digest(samples: list[Sample]) -> str:
    """One number for the samples of a split: sha256 of their pixels and labels."""
    return hashlib.sha256("".join(f"{s.place} {s.pixels} {s.label}\n" for s in samples).encode()).hexdigest()


def write(builder: Any) -> str:
    """Writes the checksums of a prepared data set beside its description, and returns the file's path.

    Raises:
      UserError: the data set is damaged as it is, or its folder cannot be written to.
    """
    shards = check_shards(builder, list(builder.info.splits))
    content = {
        split: {"shards": sizes, "samples": [s._asdict() for s in sample_split(builder, split)]}
        for split, sizes in shards.items()
    }
    path = epath.Path(builder.data_dir) / FILE
    try:
        partial = path.parent / f"{FILE}.{os.getpid()}"
        partial.write_text(json.dumps({"data_set": builder.info.full_name, "splits": content}, indent=1))
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}); checksums have to lie beside the data") from error
    return str(path)


def compare(builder: Any) -> str:
    """Compares a data set on disk with its pinned and its recorded checksums.

    Returns:
      What was compared, for the user: `10 images decoded, checksums as published`.

    Raises:
      UserError: something differs; all of it is named.
    """
    path = epath.Path(builder.data_dir) / FILE
    advice = "write it again with --check --record"
    recorded: Any = read_json(path, advice=advice).get("splits") if path.exists() else {}
    pinned = PINNED.get(builder.info.full_name, {})
    lines, total = [], 0
    for split, sizes in check_shards(builder, list(builder.info.splits)).items():
        samples = sample_split(builder, split)
        total += sum(bool(s.pixels) for s in samples)
        if split in pinned and digest(samples) != pinned[split]:
            lines.append(f"{split}: the images or labels are not those of the published {builder.info.full_name}")
        try:
            differences = _differences(recorded[split], sizes, samples) if split in dict(recorded) else []
        except Exception as error:  # of values of any kind
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); {advice}") from error
        lines += [f"{split}: {text}" for text in differences]
    if gone := set(recorded) - set(builder.info.splits):
        lines.append(f"{', '.join(sorted(gone))} was recorded and is missing")
    if lines:
        raise UserError("; ".join(lines))
    said = {(True, True): "published and recorded", (True, False): "published", (False, True): "recorded"}
    known = said.get((bool(pinned), bool(recorded)))
    return f"{total} images decoded, " + (f"checksums as {known}" if known else "no checksums recorded (--record does)")


def _differences(recorded: dict[str, Any], sizes: dict[str, int], samples: list[Sample]) -> list[str]:
    lines = []
    for name, size in recorded["shards"].items():
        if sizes.get(name) != size:
            lines.append(f"{name} has {sizes.get(name, 0):,} bytes, {size:,} when it was recorded")
    for old, new in zip((Sample(**s) for s in recorded["samples"]), samples, strict=False):
        if (old.place, old.record) != (new.place, new.record):
            lines.append(f"example {new.place} is not the one that was recorded")
        elif new.lossless and old.pixels != new.pixels:
            lines.append(f"example {new.place} decodes to other pixels than recorded: check the OpenCV installation")
        elif max((abs(a - b) for a, b in zip(old.mean, new.mean, strict=True)), default=0.0) > MEAN_TOLERANCE:
            lines.append(f"example {new.place} decodes to mean {list(new.mean)}, recorded {list(old.mean)}")
    return lines
