"""Makes tf_image.npz, what TensorFlow's image operations answer: `python tests/golden/make_tf_image.py`, in an environment with
tensorflow-cpu 2.21, Pillow and scikit-learn. tests/data/image/test_tf_image.py reads it
on machines without them.

A photograph of 37 x 51 (every tenth pixel of a part of scikit-learn's china.jpg: fine detail, which shows a wrong kernel),
resized up and down, whole and in parts, to odd sizes too; the same as a JPEG, decoded whole and in part. Resized pictures are
kept as uint16, 256 times what TensorFlow gives in float32. Of a part of it, what those of RandAugment's operations give that
differ from Pillow's.
"""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_sample_images

SIZES = [(28, 28), (29, 31), (24, 40), (37, 51), (53, 45), (1, 5)]
BOXES = [(7, 11, 20, 30), (0, 0, 13, 9), (10, 3, 27, 48)]  # top, left, height, width
SMALL = [29, 32, 53, 100]  # of the shorter side
MAGNITUDES = (5, 10, 15)


def keep(image):
    return np.round(image.numpy() * 256).astype(np.uint16)


def blend(plain, image, factor):
    mixed = tf.cast(plain, tf.float32) + factor * (tf.cast(image, tf.float32) - tf.cast(plain, tf.float32))
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8).numpy()


def moved(image, *transform):
    """Shear and rotation as tensorflow_addons makes them: a fourth channel tells what is uncovered, which becomes 128."""
    marked = np.concatenate([image, np.ones_like(image[..., :1])], axis=-1)[None]
    transform = tf.constant([[*transform, 0, 0]], tf.float32)
    found = tf.raw_ops.ImageProjectiveTransformV2(
        images=marked, transforms=transform, output_shape=image.shape[:2], interpolation="NEAREST"
    )[0].numpy()
    return np.where(found[..., 3:] == 0, np.uint8(128), found[..., :3])


def augmented(image, magnitude):
    """{operation: what it makes of an image, with either sign where it draws one}."""
    factor, (h, w) = 1.8 * magnitude / 10 + 0.1, (side - 1 for side in image.shape[:2])
    gray = tf.image.rgb_to_grayscale(image)
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32)[:, :, None, None] / 13
    pixels = tf.cast(image, tf.float32)[None]
    inner = tf.nn.depthwise_conv2d(pixels, tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "VALID")[0]
    smooth = image.copy()
    smooth[1:-1, 1:-1] = tf.cast(inner, tf.uint8)
    found = {"Color": blend(gray, image, factor), "Sharpness": blend(smooth, image, factor)}
    for sign in (1, -1):
        shear, angle = sign * 0.03 * magnitude, math.radians(sign * 3 * magnitude)
        cos, sin = math.cos(angle), math.sin(angle)
        across, down = (w - (cos * w - sin * h)) / 2, (h - (sin * w + cos * h)) / 2
        found[f"ShearX_{sign}"] = moved(image, 1, shear, 0, 0, 1, 0)
        found[f"ShearY_{sign}"] = moved(image, 1, 0, 0, shear, 1, 0)
        found[f"Rotate_{sign}"] = moved(image, cos, -sin, across, sin, cos, down)
    return found


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
    for magnitude in MAGNITUDES:
        for name, image in augmented(photograph[:24, :32], magnitude).items():
            found[f"randaugment_{magnitude}_{name}"] = image
    np.savez_compressed(Path(__file__).with_name("tf_image.npz"), **found)


if __name__ == "__main__":
    main()
