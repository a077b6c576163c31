"""Different real images: square parts, side by side, of scikit-learn's two photographs."""

import io

import PIL.Image
from sklearn.datasets import load_sample_images

SIDE = 128


def parts():
    """30 images (128, 128, 3): 3 x 5 of each photograph, none overlapping another."""
    return [
        image[r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE]
        for image in load_sample_images().images
        for r in range(3)
        for c in range(5)
    ]


def jpeg(image, quality=95):
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
