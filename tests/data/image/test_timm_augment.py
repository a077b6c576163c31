"""timm's RandAugment. The sums are those of timm 1.0.20's own operations (`AugmentOp(name, prob=1.0, magnitude=9)`, bicubic,
filled with ImageNet's mean) on the same picture; each pixel is weighted by its place modulo 97."""

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.image.augment import Augment
from vit_jax.data.image.timm_augment import OPS, parse_timm, timm_augment
from vit_jax.types import UserError

Y, X = np.mgrid[:24, :32]
IMAGE = np.stack([X * 7, Y * 9, (X * Y) % 256], -1).astype(np.uint8)
SUMS = {  # name: (sum with a positive sign, with a negative one)
    "AutoContrast": (13279307, 13279307),
    "Equalize": (17124522, 17124522),
    "Invert": (16318670, 16318670),
    "Rotate": (12096687, 11779186),
    "Posterize": (5771136, 5771136),
    "Solarize": (11701510, 11701510),
    "SolarizeAdd": (18057181, 18057181),
    "Color": (12069217, 11778377),
    "Contrast": (12692268, 11404664),
    "Brightness": (17918050, 2159949),
    "Sharpness": (11658977, 11652054),
    "ShearX": (12151686, 11992633),
    "ShearY": (12559175, 10754560),
    "TranslateX": (13008382, 10365984),
    "TranslateY": (13503789, 10609806),
}


@pytest.mark.parametrize("name", OPS)
def test_operations_are_timms(name):
    weight = np.arange(IMAGE.size).reshape(IMAGE.shape) % 97
    for sign, expected in zip((1.0, -1.0), SUMS[name], strict=True):
        found = np.asarray(OPS[name](PIL.Image.fromarray(IMAGE), 0.9, sign)).astype(np.int64)
        # Versions of Pillow round a bicubic value differently here and there.
        assert (found * weight).sum() == pytest.approx(expected, rel=1e-5)


def test_each_operation_is_left_out_half_of_the_time_and_the_magnitude_varies(monkeypatch):
    levels = []
    for name in OPS:
        monkeypatch.setitem(OPS, name, lambda picture, level, sign: levels.append((level, sign)) or picture)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        assert np.array_equal(timm_augment(IMAGE, rng, "rand-m9-mstd0.5-inc1"), IMAGE)
    found, signs = np.array(levels).T
    assert abs(len(found) / 2000 - 0.5) < 4 * 0.5 / np.sqrt(2000)
    assert found.mean() == pytest.approx(0.9, abs=0.01)
    assert found.std() == pytest.approx(0.049, abs=0.005)  # 0.05, a little less for those cut off at 1
    assert (found.max(), abs(signs.mean()) < 0.13) == (1.0, True)


def test_policies_are_read_as_timm_writes_them():
    assert parse_timm("rand-m9-mstd0.5-inc1") == (9.0, 0.5, 2, 0.5)
    assert parse_timm("rand-m7-n3-p0.8-inc1") == (7.0, 0.0, 3, 0.8)
    for wrong in ("rand-m9", "rand-m11-inc1", "augmix-m3-w3", "rand-m9-p2-inc1"):
        with pytest.raises(UserError, match=f"data.auto_augment is '{wrong}'; expected rand-m9-mstd0.5-inc1"):
            Augment(auto_augment=wrong)
    assert [str(step) for step in Augment(auto_augment="rand-m9-mstd0.5-inc1").steps()] == ["timm_augment"]


@pytest.mark.parametrize("name", OPS)
def test_operations_accept_the_whole_range_of_levels(name):
    for level in (0.0, 1.0):
        assert OPS[name](PIL.Image.fromarray(IMAGE), level, 1.0).size == (32, 24)
