"""Makes tf_image.npz, what TensorFlow's image operations answer: `python tests/golden/make_tf_image.py`, in an environment with
tensorflow-cpu 2.21, Pillow and scikit-learn. tests/data/test_tf_image.py reads it on machines without them.

A photograph of 37 x 51 (every tenth pixel of a part of scikit-learn's china.jpg: fine detail, which shows a wrong kernel),
resized up and down, whole and in parts, to odd sizes too; the same as a JPEG, decoded whole and in part. Resized pictures are
kept as uint16, 256 times what TensorFlow gives in float32.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_sample_images

SIZES = [(28, 28), (29, 31), (24, 40), (37, 51), (53, 45), (1, 5)]
BOXES = [(7, 11, 20, 30), (0, 0, 13, 9), (10, 3, 27, 48)]  # top, left, height, width
SMALL = [29, 32]  # of the shorter side


def keep(image):
    return np.round(image.numpy() * 256).astype(np.uint16)


def main():
    photograph = load_sample_images().images[0][20:390:10, 100:610:10]
    jpeg = tf.io.encode_jpeg(photograph, quality=90).numpy()
    found = {"photograph": photograph, "jpeg": np.frombuffer(jpeg, np.uint8)}
    found["whole_default"] = tf.io.decode_jpeg(jpeg, channels=3).numpy()
    found["whole_accurate"] = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    for h, w in SIZES:
        found[f"bilinear_{h}_{w}"] = keep(tf.image.resize(photograph, (h, w), "bilinear", antialias=False))
    for box in BOXES:
        name = "_".join(map(str, box))
        top, left, height, width = box
        part = photograph[top : top + height, left : left + width]
        found[f"crop_{name}"] = keep(tf.image.resize(part, (28, 28), "bilinear", antialias=False))
        found[f"jpeg_{name}"] = tf.io.decode_and_crop_jpeg(jpeg, box, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    for small in SMALL:  # resize_small(small) | central_crop(28), as big_vision composes them
        shape = [round(side * small / 37) for side in (37, 51)]
        resized = keep(tf.image.resize(photograph, shape, "area"))
        top, left = (shape[0] - 28) // 2, (shape[1] - 28) // 2
        found[f"area_{small}"] = resized[top : top + 28, left : left + 28]
    np.savez_compressed(Path(__file__).with_name("tf_image.npz"), **found)


if __name__ == "__main__":
    main()
