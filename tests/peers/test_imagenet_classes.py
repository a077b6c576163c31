"""The classes that compete on ImageNet-A and ImageNet-R, against the lists that timm ships."""

import importlib.util
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from vit_jax.data.formats.imagenet import competing_classes


@pytest.mark.parametrize("letter", ["a", "r"])
def test_the_two_hundred_classes_are_timms(letter):
    labels = Path(tfds.__path__[0], "datasets/imagenet2012/labels.txt").read_text().split()
    (timm,) = importlib.util.find_spec("timm").submodule_search_locations
    listed = Path(timm, f"data/_info/imagenet_{letter}_indices.txt").read_text().split()
    assert competing_classes(f"imagenet_{letter}", labels) == tuple(map(int, listed))
