"""Models in the words of transformers: what its config cannot say is refused, and its processor gets our pixels."""

from types import SimpleNamespace

import pytest

from vit_jax.convert.hugging_face import processor_of, task_of
from vit_jax.types import UserError


def loaded(**settings):
    return SimpleNamespace(
        settings={"patch_size": (4, 4), **settings}, grid=(3, 3), source=SimpleNamespace(meta={"config": {}})
    )


def test_a_classifier_has_no_words_of_a_masked_model():
    assert task_of(loaded(name="vit")) == {}


def test_a_masked_model_of_square_patches_says_its_stride_and_another_is_refused():
    assert task_of(loaded(name="masked")) == {"architectures": ["ViTForMaskedImageModeling"], "encoder_stride": 4}
    with pytest.raises(UserError, match="square patches of square images, and these are of 4x2 and 3x3 patches"):
        task_of(loaded(name="masked", patch_size=(4, 2)))


def test_the_processor_scales_bytes_to_one_before_mean_and_deviation():
    assert processor_of((8, 12), [0.5], [0.25]) == {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 8, "width": 12},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5],
        "image_std": [0.25],
    }
