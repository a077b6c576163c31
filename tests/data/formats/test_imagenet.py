"""The classes that compete in ImageNet-A and ImageNet-R."""

import pytest

from vit_jax.data.formats.imagenet import competing_classes
from vit_jax.types import UserError


def test_other_class_names_than_wordnet_ids_are_an_error():
    with pytest.raises(
        UserError, match=r"imagenet_a: expected the 1,000 wordnet ids.*found tench, shark, \.\.\. \(2\)"
    ):
        competing_classes("imagenet_a", ["tench", "shark"])
    assert competing_classes("imagenet_sketch", ["tench", "shark"]) == ()
