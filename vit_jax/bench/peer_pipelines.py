"""The input pipelines that `vit_jax bench --mode=data --compare` compares with vit_jax's: tf.data and a PyTorch DataLoader with
Pillow. This file runs in an environment of its own (requirements-benchmark.txt) and imports only the stopwatch of vit_jax.

    peers/bin/python vit_jax/bench/peer_pipelines.py --pipeline=tf.data --folder=DIR --batch=64 --steps=40 --threads=2
    peers/bin/python vit_jax/bench/peer_pipelines.py --pipeline=tf.data --records=FILE --batch=64 --steps=40 --threads=2
    peers/bin/python vit_jax/bench/peer_pipelines.py --pipeline=pytorch --folder=DIR --batch=64 --steps=40 --threads=2

Each does the work of vit_jax's recipe `pretrain`: read a JPEG, cut out an Inception crop (area 5 to 100%, aspect 3/4 to 4/3,
TensorFlow's distribution), resize it bilinearly, mirror half of them, and yield uint8 batches with labels, shuffled, for ever.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Appended: the folder of an installed vit_jax holds other packages too, which must not hide those of this environment.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from vit_jax.bench.throughput import measure_batches

AREA, ASPECT = (0.05, 1.0), (3 / 4, 4 / 3)


def list_photographs(folder: str) -> tuple[list[str], list[int]]:
    """Paths of FOLDER/train/LABEL/*.jpg and their labels."""
    paths = sorted(Path(folder).glob("train/*/*.jpg"))
    return [str(path) for path in paths], [int(path.parent.name) for path in paths]


def write_records(folder: str, file: str) -> None:
    """Writes the photographs as a TFRecord of `tf.train.Example`s, as TFDS does."""
    import tensorflow as tf

    def feature(**kind: Any) -> Any:
        return tf.train.Feature(**kind)

    with tf.io.TFRecordWriter(file) as writer:
        for path, label in zip(*list_photographs(folder), strict=True):
            image = feature(bytes_list=tf.train.BytesList(value=[Path(path).read_bytes()]))
            features = {"image": image, "label": feature(int64_list=tf.train.Int64List(value=[label]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def tf_batches(flags: argparse.Namespace) -> Iterator[Any]:
    """tf.data: `decode_and_crop_jpeg` of the box alone, then `tf.image.resize` without antialias.

    A fixed number of threads in a private pool was the fastest of the variants tried; `--autotune` is the variant that tf.data's
    guide recommends. Its threads may reorder examples, which vit_jax's pipeline never does.
    """
    import tensorflow as tf

    def crop(data: Any, label: Any) -> tuple[Any, Any]:
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros([0, 0, 4], tf.float32),
            area_range=AREA,
            aspect_ratio_range=ASPECT,
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.resize(image, (flags.size, flags.size), method="bilinear", antialias=False)
        return tf.cast(tf.image.random_flip_left_right(image), tf.uint8), label

    def parse(record: Any) -> tuple[Any, Any]:
        kinds = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
        example = tf.io.parse_single_example(record, kinds)
        return crop(example["image"], tf.cast(example["label"], tf.int32))

    def read(path: Any, label: Any) -> tuple[Any, Any]:
        return crop(tf.io.read_file(path), label)

    load: Callable[..., Any]
    if flags.records:
        examples, load = tf.data.TFRecordDataset(flags.records).repeat().shuffle(500), parse
    else:
        paths, labels = list_photographs(flags.folder)
        examples = tf.data.Dataset.from_tensor_slices((paths, np.array(labels, np.int32))).shuffle(len(paths)).repeat()
        load = read
    calls = tf.data.AUTOTUNE if flags.autotune else flags.threads
    batches = examples.map(load, num_parallel_calls=calls, deterministic=False)
    batches = batches.batch(flags.batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE if flags.autotune else 2)
    options = tf.data.Options()
    if not flags.autotune:
        options.threading.private_threadpool_size = flags.threads
        options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = flags.autotune
    for image, label in batches.with_options(options):
        yield image.numpy(), label.numpy()


def inception_box(height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom), drawn like `tf.image.sample_distorted_bounding_box`. torchvision's crop favours larger boxes,
    which would cost it more."""
    for _ in range(100):
        ratio = random.uniform(*ASPECT)
        low, high = (math.sqrt(share * height * width / ratio) for share in AREA)
        high = min(high, height, width / ratio)
        box_h = round(random.uniform(min(low, high), high))
        box_w = round(box_h * ratio)
        if 0 < box_h <= height and 0 < box_w <= width and box_h * box_w >= AREA[0] * height * width:
            left, top = random.randint(0, width - box_w), random.randint(0, height - box_h)
            return left, top, left + box_w, top + box_h
    return 0, 0, width, height


class Photographs:
    """A map-style PyTorch data set: Pillow decodes, and crops and resizes in one call."""

    def __init__(self, folder: str, size: int):
        self._paths, self._labels = list_photographs(folder)
        self._size = size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        with Image.open(self._paths[index]) as file:
            image = file.convert("RGB")
        box = inception_box(image.height, image.width)
        image = image.resize((self._size, self._size), Image.Resampling.BILINEAR, box=box)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)), self._labels[index]


def torch_batches(flags: argparse.Namespace) -> Iterator[Any]:
    """A DataLoader whose workers decode and collate."""
    import torch

    torch.set_num_threads(1)
    photographs: Any = Photographs(flags.folder, flags.size)
    # One endless epoch, because workers that restart every epoch would be idle meanwhile.
    sampler = torch.utils.data.RandomSampler(photographs, replacement=True, num_samples=2**40)
    loader: Any = torch.utils.data.DataLoader(
        photographs, sampler=sampler, batch_size=flags.batch, num_workers=flags.threads, drop_last=True
    )
    for image, label in loader:
        yield image.numpy(), label.numpy()


PIPELINES = {"tf.data": tf_batches, "pytorch": torch_batches}


def main() -> int:
    """Runs one pipeline; returns the exit code."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--pipeline", choices=PIPELINES, required=True)
    parser.add_argument("--folder", default="", help="holds train/LABEL/*.jpg")
    parser.add_argument("--records", default="", help="a TFRecord to read instead; made from --folder if it is missing")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="or worker processes")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument(
        "--autotune", action="store_true", help="tf.data: parallelism of its own choice, shared threads"
    )
    flags = parser.parse_args()
    if flags.records and not Path(flags.records).exists():
        write_records(flags.folder, flags.records)
        return 0
    batches = PIPELINES[flags.pipeline](flags)
    print(
        json.dumps(
            measure_batches(batches, batch_size=flags.batch, batches=flags.steps, began=began, warmup=flags.warmup)
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
