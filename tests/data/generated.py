"""TFDS's own builders, prepared offline: real names, configs, versions, features, writer and reader; generated content.

Images go in as encoded bytes, so TFDS's encoder, which is TensorFlow, is never called.
"""

import io

import numpy as np
import PIL.Image


def encode(rng, shape, fmt="PNG", high=256):
    h, w, c = (side or 24 for side in shape)
    pixels = rng.integers(0, high, (h, w, c), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if c == 1 else pixels).save(file, fmt)
    file.seek(0)
    return file


def example_of(feature, rng, key=""):
    """Something that a feature accepts."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: example_of(inner, rng, name) for name, inner in feature.items()}
    if isinstance(feature, tfds.features.Image):
        return encode(rng, feature.shape)
    if isinstance(feature, tfds.features.ClassLabel):
        return int(rng.integers(feature.num_classes))
    if isinstance(feature, tfds.features.Text):
        return f"{key}{rng.integers(1000)}"
    if isinstance(feature, tfds.features.BBoxFeature):
        return tfds.features.BBox(0.1, 0.1, 0.5, 0.5)
    if isinstance(feature, tfds.features.Sequence):
        return [example_of(feature.feature, rng, key) for _ in range(4)]
    return np.zeros([side or 2 for side in feature.shape], feature.np_dtype)


def prepare(name, data_dir, counts, amend=None):
    """Prepares a builder with generated examples.

    Args:
      name: TFDS name and config.
      data_dir: where to.
      counts: {split: examples}.
      amend: (example, split, index) -> changes it in place.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=str(data_dir))

    def examples(split, count):
        rng = np.random.default_rng(count)
        for index in range(count):
            example = example_of(builder.info.features, rng)
            if amend:
                amend(example, split, index)
            yield index, example

    builder._split_generators = lambda *args, **kwargs: {split: examples(split, n) for split, n in counts.items()}
    builder.download_and_prepare(file_format="array_record")
    return builder
