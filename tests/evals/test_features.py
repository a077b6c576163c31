"""Features of a split: one row for each example, in the split's order, whatever the batches and devices."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.evals.features import extract_features, jit_features

PARAMS = {"kernel": jnp.zeros((147, 7))}


def stored(source):
    """The forward's representation of each image cut to 7x7, decoded by another library; and the labels."""
    examples = [source.read(index) for index in range(len(source))]
    images = np.stack([np.asarray(PIL.Image.open(io.BytesIO(e[0])))[:7, :7] for e in examples])
    return (images.reshape(len(images), -1)[:, :12].astype(np.float32) - 127.5) / 127.5, [e[1] for e in examples]


@pytest.mark.parametrize("devices", [1, 8])
def test_every_example_has_a_row_in_the_order_of_the_split(folder, forward, devices):
    mesh, source = partition.make_mesh(devices=jax.devices()[:devices]), open_source(str(folder[0]), "test")
    x, y = extract_features(jit_features(forward, mesh), PARAMS, source, mesh, resolution=(7, 7), batch_size=8)
    expected, labels = stored(source)
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert y.tolist() == labels
