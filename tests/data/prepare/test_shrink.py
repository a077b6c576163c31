"""Images made smaller when they are packed: sizes, orientation, and recipes that need more."""

import io

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
from vit_jax.data.prepare.shrink import shrink
from vit_jax.types import UserError


def encoded(pixels, form="PNG", **options):
    held = io.BytesIO()
    PIL.Image.fromarray(pixels).save(held, form, **options)
    return held.getvalue()


def smooth(height, width):
    """A picture without fine detail, which any good reduction keeps."""
    y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    return (np.stack([x, y, (x + y) / 2], -1) * 255).astype(np.uint8)


def test_the_shorter_side_becomes_as_long_as_asked_and_smaller_images_stay_as_they_are():
    data = encoded(smooth(300, 200))
    small = decode(shrink(data, 100))
    assert small.shape == (150, 100, 3)
    np.testing.assert_allclose(small.astype(float), smooth(150, 100), atol=4)
    assert shrink(data, 200) is data
    assert shrink(data, 4000) is data


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_photograph_is_turned_afterwards_as_it_was_before(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(120, 80), "JPEG", quality=95, exif=exif.tobytes())
    for upright in (True, False):
        before, after = decode(data, upright=upright), decode(shrink(data, 40), upright=upright)
        assert after.shape == (before.shape[0] // 2, before.shape[1] // 2, 3)
        means = before.reshape(after.shape[0], 2, after.shape[1], 2, 3).mean((1, 3))
        np.testing.assert_allclose(after.astype(float), means, atol=6)


@pytest.fixture
def packed(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / "images" / "train" / label).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "images" / "train" / label / f"{i}.png").write_bytes(encoded(smooth(60 + i, 90)))
    pack(str(tmp_path / "images"), str(tmp_path / "packed"), short_side=32)
    return tmp_path / "packed"


def test_a_packed_set_says_how_small_it_is_and_a_recipe_that_needs_more_is_refused(packed, tmp_path):
    source = open_source(str(packed), "train")
    assert source.spec.short_side == source.spec.to_json()["short_side"] == 32
    assert [min(source.decode(source.read(i)[0]).shape[:2]) for i in range(6)] == [32] * 6
    make_transform("eval_crop", (28, 28), short_side=32)  # 28 * 8 / 7
    make_transform("pretrain", (32, 32), short_side=32)
    for recipe, side, needed in (("eval_crop", 29, 33), ("pretrain", 33, 33), ("finetune", 28, 33), ("eval", 48, 48)):
        with pytest.raises(UserError, match=rf"makes images of {needed} pixels.*--short-side={needed} or more"):
            make_transform(recipe, (side, side), short_side=32)
    plain = pack(str(tmp_path / "images"), str(tmp_path / "plain"))
    assert open_source(plain.folder, "train").spec.short_side == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"short_side": -1}', '{"short_side": "all"}', '{"short_side": true}'])
def test_a_damaged_record_of_the_size_is_one_message(packed, text):
    (packed / "packed.json").write_text(text)
    with pytest.raises(UserError, match=r"packed\.json"):
        open_source(str(packed), "train")


def test_a_negative_size_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="--short-side=-1; expected pixels"):
        pack(str(tmp_path), str(tmp_path / "packed"), short_side=-1)
