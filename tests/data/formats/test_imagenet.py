"""The classes that compete in ImageNet-A and ImageNet-R."""

import re

import pytest

from vit_jax.data.formats.imagenet import COMPETING, IMAGENET_A, IMAGENET_R, competing_classes
from vit_jax.types import UserError


def test_other_class_names_than_wordnet_ids_are_an_error():
    with pytest.raises(
        UserError, match=r"imagenet_a: expected the 1,000 wordnet ids.*found tench, shark, \.\.\. \(2\)"
    ):
        competing_classes("imagenet_a", ["tench", "shark"])
    assert competing_classes("imagenet_sketch", ["tench", "shark"]) == ()


@pytest.mark.parametrize("name", COMPETING)
def test_each_list_has_two_hundred_wordnet_ids_in_order(name):
    ids = COMPETING[name].split()
    assert len(ids) == 200
    assert all(re.fullmatch(r"n\d{8}", wordnet_id) for wordnet_id in ids)
    assert ids == sorted(set(ids))


def test_labels_are_places_among_the_class_names_whatever_their_order():
    names = sorted({*IMAGENET_A.split(), *IMAGENET_R.split(), "n00000001", "n99999999"})
    for order in (names, names[::-1]):
        for name, text in COMPETING.items():
            labels = competing_classes(name, order)
            assert list(labels) == sorted(labels)
            assert {order[label] for label in labels} == set(text.split())


def test_one_class_that_is_missing_is_named():
    names = [wordnet_id for wordnet_id in IMAGENET_R.split() if wordnet_id != "n01518878"]  # the ostrich
    with pytest.raises(UserError, match=r"\(199\) without n01518878; prepare it with TFDS's own builder"):
        competing_classes("imagenet_r", names)
