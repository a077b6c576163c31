"""Image operations against Pillow, hand-written numpy and numbers worked out on paper."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from vit_jax.data.image.crops import central_box, cut, flip, random_box, resize, sample_box
from vit_jax.data.image.decode import decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.image.recipes import make_transform


def gradient(height=40, width=60):
    """A smooth colour picture: JPEG keeps it to within a few units."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / (width - 1), y * 255 / (height - 1), 255 - x * 255 / (width - 1)], -1).astype(np.uint8)


def encode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(image, **options):
    return encode(PIL.Image.fromarray(image), "JPEG", quality=95, **options)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def resize_reference(image, size):
    """Bilinear with half-pixel centres and clamped edges, in float64."""
    result = image.astype(np.float64)
    for axis, new in enumerate(size):
        old = image.shape[axis]
        where = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(where).astype(int)
        high = np.minimum(low + 1, old - 1)
        weight = (where - low).reshape([-1 if a == axis else 1 for a in range(3)])
        result = result.take(low, axis) * (1 - weight) + result.take(high, axis) * weight
    return result


@pytest.mark.parametrize("size", [(7, 5), (16, 16), (20, 33), (40, 20), (13, 90), (1, 1)])
def test_resize_is_bilinear_without_antialias_at_half_pixel_centres(size):
    image = np.random.default_rng(0).integers(0, 256, (20, 33, 3), np.uint8)
    result = resize(image, size)
    assert result.shape == (*size, 3)
    assert result.dtype == np.uint8
    assert np.abs(result - resize_reference(image, size)).max() <= 1.0


def test_jpeg_decodes_to_rgb_like_pillow():
    data = jpeg(gradient())
    image = decode(data)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.abs(image.astype(int) - np.asarray(PIL.Image.open(io.BytesIO(data)))).max() <= 2
    assert np.abs(image.astype(int) - gradient()).max() <= 12


def test_png_decodes_exactly():
    assert np.array_equal(decode(encode(PIL.Image.fromarray(gradient()), "PNG")), gradient())


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_gray_is_repeated_to_three_channels(kind):
    gray = gradient()[..., 0]
    image = decode(encode(PIL.Image.fromarray(gray), kind))
    assert image.shape == (40, 60, 3)
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 0] == image[..., 2]).all()
    assert np.abs(image[..., 0].astype(int) - gray).max() <= (0 if kind == "PNG" else 5)


@pytest.mark.filterwarnings("error")
def test_palette_is_looked_up():
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    for options in ({}, {"transparency": b"\x80\x40"}):
        assert decode(encode(picture, "PNG", **options)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_alpha_is_dropped_not_blended():
    picture = PIL.Image.new("RGBA", (1, 1), (10, 200, 30, 0))
    assert decode(encode(picture, "PNG")).tolist() == [[[10, 200, 30]]]
    assert decode(encode(PIL.Image.new("LA", (1, 1), (90, 7)), "PNG")).tolist() == [[[90, 90, 90]]]


def test_one_bit_png_is_black_and_white():
    assert decode(encode(PIL.Image.new("1", (1, 1), 1), "PNG")).tolist() == [[[255, 255, 255]]]


def test_sixteen_bits_keep_the_high_byte():
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    expected = [0, 0, 1, 128, 255]
    assert decode(encode(PIL.Image.fromarray(deep), "PNG"))[0, :, 1].tolist() == expected
    header = struct.pack(">IIBBBBB", 5, 1, 16, 2, 0, 0, 0)  # 16-bit RGB
    body = b"\0" + np.repeat(deep[0], 3).astype(">u2").tobytes()
    rgb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    assert decode(rgb)[0, :, 2].tolist() == expected


def test_cmyk_jpeg_becomes_rgb():
    cyan = encode(PIL.Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    assert np.abs(decode(cyan)[8, 8].astype(int) - [0, 255, 255]).max() <= 3
    inks = np.concatenate([gradient(), gradient()[..., 1:2]], -1)
    data = encode(PIL.Image.fromarray(inks, "CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data  # whose inks are stored inverted
    start = data.index(b"Adobe") - 4
    for variant in (data, data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]):
        expected = np.asarray(PIL.Image.open(io.BytesIO(variant)).convert("RGB"))
        assert np.abs(decode(variant).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_rotation_is_applied(orientation, kind):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encode(PIL.Image.fromarray(gradient()), kind, exif=exif)
    stored = np.asarray(PIL.Image.open(io.BytesIO(data)))
    np.testing.assert_allclose(decode(data, upright=False), stored, atol=1)  # as TensorFlow decodes
    upright = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))))
    image = decode(data)
    assert image.shape == upright.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - upright).max() <= 2


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("ending", [b"", b"\xff\xd9"])
def test_truncated_jpeg_is_refused_even_when_it_is_terminated(progressive, part, ending):
    noise = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    data = jpeg(noise, progressive=progressive)
    with pytest.raises(CorruptImage):
        decode(data[: int(len(data) * part)] + ending)


def test_jpeg_with_zeros_inside_is_refused():
    data = bytearray(jpeg(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)))
    data[len(data) // 2 : len(data) // 2 + 60] = bytes(60)
    with pytest.raises(CorruptImage, match="Corrupt JPEG data"):
        decode(bytes(data))


def test_jpeg_with_a_stray_byte_before_its_end_is_accepted():
    data = jpeg(gradient())
    assert np.array_equal(decode(data[:-2] + b"\x11\x22\x33" + data[-2:]), decode(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_damaged_png_is_refused(mode):
    data = encode(PIL.Image.fromarray(gradient()).convert(mode), "PNG")
    with pytest.raises(CorruptImage, match="truncated"):
        decode(data[:-20])
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    with pytest.raises(CorruptImage, match="checksum"):
        decode(bytes(flipped))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\xff\xd8" + b"junk" * 99, b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 9]
)
def test_garbage_is_refused(data):
    with pytest.raises(CorruptImage):
        decode(data)


def test_an_empty_file_is_called_empty():
    with pytest.raises(CorruptImage, match="the file is empty"):
        decode(b"")


def test_decompression_bombs_are_refused_before_decoding():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(CorruptImage, match="more than the limit"):
        decode(png)
    small = bytearray(jpeg(gradient()))
    frame = small.index(b"\xff\xc0")
    small[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(CorruptImage, match="more than the limit"):
        decode(bytes(small))


def test_inception_boxes_stay_inside_and_within_area_and_aspect():
    rng = np.random.default_rng(0)
    boxes = np.array([sample_box(300, 400, rng, (0.05, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)])
    top, left, h, w = boxes.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + h).max() == 300  # the last row and column are reached
    assert (left + w).max() == 400
    share = h * w / (300 * 400)
    assert share.min() >= 0.05
    assert share.min() < 0.06
    assert share.max() > 0.9
    assert np.all(np.abs(w - h * 3 / 4).clip(0.5) >= 0.5)
    assert np.all((w >= h * 3 / 4 - 0.5) & (w <= h * 4 / 3 + 0.5))


def test_inception_boxes_are_uniform_in_side_and_aspect_as_tensorflow_draws_them():
    # No box is clipped here, so the side sqrt(h w) is uniform in [80, 160]: the mean share is
    # (80^2 + 80 * 160 + 160^2) / 3 / 400^2 = 0.0933 (0.10 were it uniform in area, as torchvision does), and the mean
    # aspect is (3/4 + 4/3) / 2 = 1.0417 (1.0139 were it uniform in its logarithm).
    rng = np.random.default_rng(0)
    boxes = np.array([sample_box(400, 400, rng, (0.04, 0.16), (3 / 4, 4 / 3)) for _ in range(4000)])
    assert (boxes[:, 2] * boxes[:, 3]).mean() / 400**2 == pytest.approx(0.0933, abs=0.002)
    assert (boxes[:, 3] / boxes[:, 2]).mean() == pytest.approx(1.0417, abs=0.01)


def test_inception_boxes_reach_the_last_row_and_column_of_a_tiny_image():
    rng = np.random.default_rng(0)
    boxes = [sample_box(8, 8, rng, (0.5, 0.8), (0.9, 1.1)) for _ in range(300)]
    assert all(h < 8 and w < 8 for _, _, h, w in boxes)
    assert {top + h for top, _, h, _ in boxes} >= {7, 8}
    assert max(left + w for _, left, _, w in boxes) == 8


def test_inception_boxes_of_a_narrow_image_do_not_prefer_tall_ones():
    # The height is drawn below what the width allows; drawing it freely and discarding would favour small aspects.
    rng = np.random.default_rng(0)
    boxes = np.array([sample_box(2000, 200, rng, (0.01, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    assert (boxes[:, 3] / boxes[:, 2]).mean() == pytest.approx(1.0417, abs=0.01)


def test_inception_boxes_that_rounding_pushed_out_of_range_move_by_one_pixel():
    class Extreme:
        """A generator that draws aspect 1, the least or largest height, and offset 0."""

        def __init__(self, largest):
            self.largest = largest

        def uniform(self, low, high):
            return 1.0

        def integers(self, low, high=None):
            return 0 if high is None else (high - 1 if self.largest else low)

    # Of 100 pixels at least 12: sqrt(12) rounds to 3, but 3 x 3 is too small.
    assert sample_box(10, 10, Extreme(largest=False), (0.12, 1.0), (3 / 4, 4 / 3)) == (0, 0, 4, 4)
    # At most 13: sqrt(13) rounds to 4, but 4 x 4 is too large.
    assert sample_box(10, 10, Extreme(largest=True), (0.09, 0.13), (3 / 4, 4 / 3)) == (0, 0, 3, 3)


def test_inception_crop_takes_the_whole_image_when_no_box_fits():
    assert sample_box(10, 1000, np.random.default_rng(0), (0.9, 1.0), (3 / 4, 4 / 3)) == (0, 0, 10, 1000)


def test_inception_crop_resizes_the_box_it_drew():
    image = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)
    top, left, h, w = sample_box(50, 70, np.random.default_rng(5), (0.2, 0.5), (3 / 4, 4 / 3))
    transform = make_transform("pretrain", (24, 16), crop_area=(0.2, 0.5), flip=False)
    result = transform.map_image(image, np.random.default_rng(5))
    assert np.abs(result - resize_reference(image[top : top + h, left : left + w], (24, 16))).max() <= 1.0


def test_random_crop_takes_every_position_equally_often():
    image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1).repeat(3, 2)
    rng = np.random.default_rng(0)
    corners = [int(cut(image, random_box(image, rng, (2, 2)))[0, 0, 0]) for _ in range(2000)]
    counts = [corners.count(value) for value in (0, 1, 3, 4)]
    assert sum(counts) == 2000
    assert min(counts) > 430  # 500 expected, standard deviation 19


def test_central_crop_takes_the_middle():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1).repeat(3, 2)
    assert cut(image, central_box(image, (3, 1)))[..., 0].tolist() == [[7], [12], [17]]
    assert cut(image, central_box(image, (2, 2)))[..., 0].tolist() == [[6, 7], [11, 12]]


def test_crops_larger_than_the_image_are_refused():
    with pytest.raises(ValueError, match="cannot crop 6 x 2 from an image of 5 x 5"):
        central_box(np.zeros((5, 5, 3), np.uint8), (6, 2))
    with pytest.raises(ValueError, match="cannot crop"):
        random_box(np.zeros((5, 5, 3), np.uint8), np.random.default_rng(0), (5, 6))


def test_flip_mirrors_left_and_right_half_of_the_time():
    image = np.array([[[1] * 3, [2] * 3, [3] * 3]], np.uint8)
    rng = np.random.default_rng(0)
    transform = make_transform("resize_flip", (1, 3))
    rows = [transform.map_image(image, rng)[0, :, 0].tolist() for _ in range(1000)]
    assert 440 < rows.count([3, 2, 1]) < 560
    assert rows.count([1, 2, 3]) + rows.count([3, 2, 1]) == 1000


def test_flip_in_place_is_the_mirror_image_at_every_width():
    rng = np.random.default_rng(0)
    for width in [*range(1, 70), 224, 225]:
        image = rng.integers(0, 256, (5, width, 3), np.uint8)
        place = image.copy()
        assert flip(place, place) is place
        assert np.array_equal(place, image[:, ::-1])


def test_one_pixel_and_very_wide_pictures_decode():
    for kind in ("PNG", "JPEG"):
        assert decode(encode(PIL.Image.new("RGB", (1, 1), (9, 9, 9)), kind)).tolist() == [[[9, 9, 9]]]
        wide = np.zeros((3, 20_000, 3), np.uint8)
        wide[:, 15_000:] = 200
        image = decode(encode(PIL.Image.fromarray(wide), kind))
        assert image.shape == (3, 20_000, 3)
        assert np.abs(image[:, [0, 14_000, 16_000, 19_999], 0].astype(int) - [0, 0, 200, 200]).max() <= 2
        crop = make_transform("pretrain", (8, 8)).map_image(image, np.random.default_rng(0))
        assert crop.shape == (8, 8, 3)


def test_of_an_animation_the_first_picture_counts():
    frames = [PIL.Image.new("RGB", (4, 3), color) for color in ((255, 0, 0), (0, 0, 255))]
    for kind in ("GIF", "PNG", "WEBP"):
        data = encode(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert decode(data)[0, 0].tolist() == [255, 0, 0]
