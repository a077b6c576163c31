"""RandAugment's operations against values worked out by hand, colour jitter, erasing, and evaluation by central crop."""

import numpy as np
import pytest

from vit_jax.data.image import augment
from vit_jax.data.image.augment import OPS
from vit_jax.data.image.crops import resize_small
from vit_jax.data.image.recipes import describe_transform, make_transform
from vit_jax.types import UserError


def ramp(h=16, w=16):
    """Every pixel another: red counts columns, green rows."""
    y, x = np.mgrid[:h, :w]
    return np.stack([x * 10, y * 10, np.full((h, w), 77)], axis=-1).astype(np.uint8)


def apply(name, image, magnitude, seed=0):
    return OPS[name](image, magnitude / 10, np.random.default_rng(seed))


def pixels(*values):
    """An image of one row, a pixel a value."""
    return np.array([values], np.uint8)


def both_signs(name, image, magnitude):
    return [apply(name, image, magnitude, seed) for seed in range(12)]


def test_there_are_the_sixteen_operations():
    geometric = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout"}
    tonal = {"AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd"}
    assert set(OPS) == geometric | tonal | {"Color", "Contrast", "Brightness", "Sharpness"}
    assert len(OPS) == 16


def test_pointwise_operations_at_magnitude_ten():
    image = ramp()
    assert np.array_equal(apply("Invert", image, 10), 255 - image)
    assert np.array_equal(apply("Posterize", image, 10), image & 0xF0)  # 4 bits
    added = np.where(image < 128, np.minimum(image.astype(int) + 110, 255), image)
    assert np.array_equal(apply("SolarizeAdd", image, 10), added)
    # 1.8 x 0.5 + 0.1 = 1: an enhancement of strength 1 changes nothing.
    for name in ("Color", "Contrast", "Brightness", "Sharpness"):
        assert np.array_equal(apply(name, image, 5), image)
    assert apply("Brightness", pixels((77, 100, 200)), 10).tolist() == [[[146, 190, 255]]]  # times 1.9, truncated
    assert apply("Brightness", pixels((77, 100, 200)), 0).tolist() == [[[7, 10, 20]]]  # times 0.1


def test_autocontrast_stretches_each_channel_and_truncates():
    # Red: 255 / (20 - 10) = 25.5, so 15 becomes 127.5. Green is constant, and stays. Blue is stretched already.
    found = apply("AutoContrast", pixels((10, 7, 0), (15, 7, 99), (20, 7, 255)), 15)
    assert found.tolist() == [[[0, 7, 0], [127, 7, 99], [255, 7, 255]]]


def test_the_solarize_threshold_is_a_byte_and_wraps():
    image = ramp()
    # int(25.6 M) mod 256: M = 5 gives 128, 10 and 20 give 0 (all is inverted), 15 gives 384 - 256 = 128.
    for magnitude in (5, 15):
        assert np.array_equal(apply("Solarize", image, magnitude), np.where(image < 128, image, 255 - image))
    for magnitude in (0, 10, 20):
        assert np.array_equal(apply("Solarize", image, magnitude), 255 - image)


def test_posterize_keeps_one_bit_at_magnitude_zero_and_all_at_twenty():
    image = ramp()
    assert np.array_equal(apply("Posterize", image, 0), image & 0x80)
    assert np.array_equal(apply("Posterize", image, 15), image & 0xFC)  # int(4 x 1.5) = 6 bits
    assert np.array_equal(apply("Posterize", image, 20), image)


def test_contrast_blends_with_a_gray_that_only_the_size_decides():
    # h w / 256: 196 for 224 x 224, and 255 at most. At magnitude 10 the factor is 1.9.
    large = np.broadcast_to(np.array([100, 50, 210], np.uint8), (224, 224, 3))
    # 196 + 1.9 (100 - 196) = 13.6; 196 + 1.9 (50 - 196) < 0; 196 + 1.9 (210 - 196) = 222.6
    assert apply("Contrast", large.copy(), 10)[7, 9].tolist() == [13, 0, 222]
    # A 16 x 16 picture: 1. 1 + 1.9 x 99 = 189.1
    assert (apply("Contrast", np.full((16, 16, 3), 100, np.uint8), 10) == 189).all()
    # 600 x 600: 1406 is clipped to 255. 255 + 0.1 (100 - 255) is 239.5 at magnitude 0.
    assert (apply("Contrast", np.full((600, 600, 3), 100, np.uint8), 0) == 239).all()


def test_color_blends_with_a_truncated_gray():
    # 0.2989 x 10 + 0.587 x 20 + 0.114 x 35 = 18.719, times 255.5 / 255 = 18.76: 18, where Pillow rounds to 19.
    # 18 + 1.9 (10 - 18) = 2.8; 18 + 1.9 x 2 = 21.8; 18 + 1.9 x 17 = 50.3
    assert apply("Color", pixels((10, 20, 35)), 10).tolist() == [[[2, 21, 50]]]


def test_sharpness_blends_with_a_truncated_mean_and_leaves_the_border():
    image = np.full((3, 3, 3), 10, np.uint8)
    image[1, 1] = 100
    # (8 x 10 + 5 x 100) / 13 = 44.6: 44. 44 + 1.9 (100 - 44) = 150.4; 44 + 0.1 x 56 = 49.6
    for magnitude, centre in ((10, 150), (0, 49)):
        found = apply("Sharpness", image, magnitude)
        assert found[1, 1].tolist() == [centre] * 3
        assert (np.delete(found.reshape(9, 3), 4, axis=0) == 10).all()


def test_translations_move_by_a_hundred_pixels_per_unit_and_fill_grey():
    image = ramp()
    moved = both_signs("TranslateX", image, 0.4)  # 4 pixels
    left, right = image.copy(), image.copy()
    left[:, :-4], left[:, -4:] = image[:, 4:], 128
    right[:, 4:], right[:, :4] = image[:, :-4], 128
    assert {x.tobytes() for x in moved} == {left.tobytes(), right.tobytes()}
    up = apply("TranslateY", image.swapaxes(0, 1).copy(), 0.4)
    assert up.swapaxes(0, 1).copy().tobytes() in {left.tobytes(), right.tobytes()}


def test_a_shear_moves_each_row_by_its_index():
    image = ramp(16, 25)
    left, right = image.copy(), image.copy()
    for y in range(16):
        # 0.3 pixels a row. Halves are rounded away from zero: 1.5 moves by 2 to the left; to the right x - 1.5 is rounded to
        # x - 1 from x = 2 on, and before it to a place outside.
        exact = round(0.3 * y, 6)
        by = int(exact + 0.5)
        left[y], right[y] = 128, 128
        left[y, : 25 - by] = image[y, by:]
        first, by = (int(exact) + 1, int(exact)) if exact % 1 == 0.5 else (by, by)
        right[y, first:] = image[y, first - by : 25 - by]
    found = {x.tobytes() for x in both_signs("ShearX", image, 10)}
    assert found == {left.tobytes(), right.tobytes()}
    turned = {x.swapaxes(0, 1).tobytes() for x in both_signs("ShearY", image.swapaxes(0, 1).copy(), 10)}
    assert turned == found


def test_a_rotation_by_thirty_degrees_keeps_the_middle_and_fills_the_corners():
    image = np.full((21, 21, 3), 7, np.uint8)
    image[10, 16] = 200  # six to the right of the centre
    found = both_signs("Rotate", image, 10)
    ends = {tuple(np.argwhere(x[..., 0] == 200)[0]) for x in found if (x[..., 0] == 200).any()}
    # 6 cos 30 = 5.2 across, 6 sin 30 = 3 up or down.
    assert ends <= {(7, 15), (13, 15)}
    assert len(ends) == 2
    assert all(x[0, 0].tolist() == [128] * 3 for x in found)


def test_a_cutout_is_a_square_of_eighty_pixels_at_unit_strength():
    image = np.zeros((200, 200, 3), np.uint8)
    for seed in range(5):
        cut = apply("Cutout", image, 10, seed)[..., 0] == 128
        assert 40 * 40 <= cut.sum() <= 80 * 80
        ys, xs = np.where(cut)
        assert cut[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()


def test_rand_augment_draws_operations_uniformly_and_from_its_generator(monkeypatch):
    drawn = []
    for name in OPS:
        monkeypatch.setitem(OPS, name, lambda image, level, rng, name=name: drawn.append((name, level)) or image)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        augment.rand_augment(ramp(), rng, 2, 15)
    names, levels = zip(*drawn, strict=True)
    assert len(drawn) == 4000
    assert set(levels) == {1.5}
    counts = [names.count(name) for name in OPS]
    assert max(abs(count - 250) for count in counts) < 60  # four standard deviations
    monkeypatch.undo()
    a, b = (augment.rand_augment(ramp(), np.random.default_rng(4), 2, 15) for _ in range(2))
    assert np.array_equal(a, b)


def test_erasing_takes_two_to_thirty_three_percent_with_its_probability():
    image, rng = np.full((60, 80, 3), 3, np.uint8), np.random.default_rng(1)
    shares = []
    for _ in range(300):
        out = augment.random_erasing(image, rng, 0.4)
        shares.append((out != image).any(axis=-1).mean())
    erased = [share for share in shares if share]
    assert 0.3 < len(erased) / 300 < 0.5
    assert min(erased) > 0.015
    assert max(erased) < 0.36
    assert (image == 3).all()  # the image given is not written to


def test_jitter_changes_brightness_within_its_strength():
    grey, rng = np.full((8, 8, 3), 100, np.uint8), np.random.default_rng(2)
    values = [int(augment.color_jitter(grey, rng, 0.4)[0, 0, 0]) for _ in range(200)]
    assert (min(values) >= 59, max(values) <= 141) == (True, True)
    assert max(values) - min(values) > 60


def test_resize_small_keeps_the_aspect_and_averages_areas():
    image = np.repeat(np.repeat(ramp(4, 8), 2, axis=0), 2, axis=1)  # 8 x 16 of 2 x 2 blocks
    assert np.array_equal(resize_small(image, (4, 4)), ramp(4, 8))
    transform = make_transform("eval_crop", (7, 7))  # shorter side 8, middle 7
    out = transform.map_image(image, np.random.default_rng(0))
    assert np.array_equal(out, image[0:7, 4:11])
    assert describe_transform(transform)["keep_aspect"] is True


def test_augmentation_follows_crop_and_flip_and_strengths_are_checked():
    strengths = augment.Augment(randaugment=(2, 15), color_jitter=0.2, random_erasing=1.0)
    transform = make_transform("finetune", (16, 16), augment=strengths)
    a, b = (transform.map_image(ramp(20, 20), np.random.default_rng(7)) for _ in range(2))
    assert a.shape == (16, 16, 3)
    assert np.array_equal(a, b)
    plain = make_transform("finetune", (16, 16)).map_image(ramp(20, 20), np.random.default_rng(7))
    assert not np.array_equal(a, plain)
    with pytest.raises(UserError) as caught:
        augment.Augment(randaugment=(2, 31), color_jitter=2.0, random_erasing=-1.0)
    assert [line.split(" is ")[0] for line in str(caught.value).splitlines()] == [
        "data.randaugment",
        "data.color_jitter",
        "data.random_erasing",
    ]
