"""The split syntax: slices of stored splits, and expressions that take nothing or cannot be read."""

import pytest

from vit_jax.data.splits import Slice, parse_split, split_names
from vit_jax.types import UserError

COUNTS = {"train": 50, "test": 8}


@pytest.mark.parametrize(
    ("split", "slices"),
    [
        ("train", [Slice("train", 0, 50)]),
        ("train[:98%]", [Slice("train", 0, 49)]),
        ("train[10%:]+test", [Slice("train", 5, 50), Slice("test", 0, 8)]),
        ("test[-3:]", [Slice("test", 5, 8)]),
        ("train[7:9]", [Slice("train", 7, 9)]),
    ],
)
def test_an_expression_is_slices_of_the_stored_splits(split, slices):
    assert parse_split("photographs", split, COUNTS) == slices
    assert split_names(split) == [part.name for part in slices]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("", "photographs: no split was named"),
        ("valid", "cannot read split 'valid'"),
        ("train[:", "cannot read split"),
        ("test[3:3]", "takes no example of 'test'"),
    ],
)
def test_an_expression_that_cannot_be_read_lists_the_splits_with_their_sizes(split, message):
    with pytest.raises(UserError) as caught:
        parse_split("photographs", split, COUNTS)
    assert message in str(caught.value)
    assert "train (50), test (8)" in str(caught.value)
