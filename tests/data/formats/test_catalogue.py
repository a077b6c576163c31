"""Names of data sets before any is opened: where their data lies, and what an unknown one is answered."""

import pytest

from vit_jax.data.open import open_source
from vit_jax.types import UserError


def refuse(dataset, split, data_dir):
    with pytest.raises(UserError) as error:
        open_source(dataset, split, str(data_dir))
    return str(error.value)


def test_an_unknown_name_offers_the_nearest(tmp_path):
    assert "cifar10" in refuse("cifar_10", "train", tmp_path)
    assert "digits" in refuse("digit", "train", tmp_path)
    assert "neither a TFDS data set" in refuse("two words", "train", tmp_path)
