"""Decoding against Pillow, and images that are refused."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

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
