"""Encoded images that ask for too much memory, end early or have another format are refused; every supported format is read."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.image import encoded
from vit_jax.data.image.decode import decode
from vit_jax.data.image.encoded import CorruptImage

RNG = np.random.default_rng(0)
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
# PNG specification, 8.2: columns and rows of the seven passes.
PASSES = [np.s_[0::8, 0::8], np.s_[0::8, 4::8], np.s_[4::8, 0::4], np.s_[0::4, 2::4]]
PASSES += [np.s_[2::4, 0::2], np.s_[0::2, 1::2], np.s_[1::2, 0::1]]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels, color, *, depth=8, interlaced=False, lines=None):
    """A PNG of pixels (h, w, channels) that are written as they are; of the lines before compression only the first `lines`."""
    height, width, _ = pixels.shape
    parts = [pixels[where] for where in PASSES] if interlaced else [pixels]
    raw = [b"\0" + row.tobytes() for part in parts if part.size for row in part][:lines]
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    colors = chunk(b"PLTE", bytes(i // 3 for i in range(768))) if color == PALETTE else b""
    return (
        encoded.PNG + chunk(b"IHDR", head) + colors + chunk(b"IDAT", zlib.compress(b"".join(raw))) + chunk(b"IEND", b"")
    )


def file_of(picture, fmt, **options):
    file = io.BytesIO()
    picture.save(file, fmt, **options)
    return file.getvalue()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("color", [GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA])
def test_a_png_whose_pixels_end_early_is_refused_and_a_whole_one_read(color, interlaced):
    for height, width in ((9, 13), (1, 3), (2, 2), (8, 1)):
        pixels = RNG.integers(1, 256, (height, width, CHANNELS[color]), np.uint8)
        found = decode(png(pixels, color, interlaced=interlaced))
        kept = pixels if color == RGB else pixels[..., :3] if color == RGBA else np.repeat(pixels[..., :1], 3, axis=2)
        assert (found == kept).all()
        lines = sum(pixels[where].shape[0] for where in PASSES if pixels[where].size) if interlaced else height
        for part in {lines - 1, lines // 2} - {lines}:
            with pytest.raises(CorruptImage):
                decode(png(pixels, color, interlaced=interlaced, lines=part))


def test_a_png_of_16_bits_that_ends_early_is_refused_and_rows_of_zeros_are_not():
    deep = RNG.integers(1, 256, (6, 5, 2), np.uint8)
    assert (decode(png(deep, GRAY, depth=16)) == deep[..., :1]).all()
    with pytest.raises(CorruptImage, match="pixels end before its last row"):
        decode(png(deep, GRAY, depth=16, lines=5))
    clear = np.zeros((6, 5, 4), np.uint8)
    assert (decode(png(clear, RGBA)) == 0).all()
    with pytest.raises(CorruptImage, match="pixels end before its last row"):
        decode(png(clear, RGBA, lines=5))


def test_a_png_that_would_inflate_to_gigabytes_is_inflated_no_further_than_its_rows():
    bomb = zlib.compress(b"\0" * 2**26, 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, RGBA, 0, 0, 0))
    assert decode(encoded.PNG + head + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")).shape == (4, 4, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 80_000_000), (65_501, 1)])
def test_a_side_that_is_too_long_is_refused_before_a_pixel_is_allocated(height, width):
    head = struct.pack(">IIBBBBB", width, height, 8, RGBA, 0, 0, 0)
    data = encoded.PNG + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    with pytest.raises(CorruptImage, match=f"{height} x {width}, more than the limit of 65500 pixels a side"):
        decode(data)


def test_want_of_memory_makes_a_corrupt_image_and_not_the_end_of_the_run(monkeypatch):
    def load(self):
        raise MemoryError

    monkeypatch.setattr(PIL.Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(CorruptImage, match="more memory than there is"):
        decode(png(np.ones((2, 2, 4), np.uint8), RGBA))


def test_a_jpeg_of_a_thousand_scans_is_refused_at_once_and_a_progressive_one_read():
    picture = PIL.Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
    data = file_of(picture, "JPEG", progressive=True)
    assert decode(data).shape == (64, 64, 3)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(CorruptImage, match=r"the JPEG has 1\d{3} scans, more than the limit of 100"):
        decode(data[:last] + data[last:-2] * 1000 + b"\xff\xd9")


def test_scans_are_counted_where_several_are_decoded_only():
    picture = PIL.Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8))
    baseline = file_of(picture, "JPEG")
    note = b"\xff\xda" * 200  # in a comment, where it is none
    with_note = baseline[:2] + b"\xff\xfe" + struct.pack(">H", len(note) + 2) + note + baseline[2:]
    assert (decode(with_note) == decode(baseline)).all()


def test_a_jpeg_of_fill_bytes_is_walked_in_an_instant():
    start = list(encoded.walk_jpeg(b"\xff\xd8" + b"\xff" * 10**7 + b"\xe0\0\x04\0\0\xff\xda\0\x02\0\0"))
    assert [kind for kind, _ in start] == [0xE0, 0xDA]
    assert list(encoded.walk_jpeg(b"\xff\xd8" + b"\xff" * 10**7)) == []
    assert len(list(encoded.walk_jpeg(b"\xff\xd8" + b"\xff\xe0\0\0" * 10 + b"\0" * 8))) < 13


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_every_format_that_a_folder_may_hold_decodes_to_its_pixels(suffix):
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[:6], pixels[6:, :, 1] = (200, 30, 40), 180
    fmt = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(fmt, {})
    found = decode(file_of(PIL.Image.fromarray(pixels), fmt, **options)).astype(int)
    assert np.abs(found - pixels).max() <= (3 if fmt == "JPEG" else 0)


def test_of_several_frames_or_pages_the_first_is_taken():
    pages = [PIL.Image.fromarray(np.full((5, 7, 3), value, np.uint8)) for value in (10, 200)]
    for fmt in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if fmt == "WEBP" else {}
        data = file_of(pages[0], fmt, save_all=True, append_images=pages[1:], **options)
        assert PIL.Image.open(io.BytesIO(data)).n_frames == 2
        assert (decode(data) == 10).all(), fmt


def test_a_tiff_of_16_bits_keeps_the_high_byte():
    deep = (RNG.integers(1, 256, (6, 5)).astype(np.uint16) << 8) + 77
    for data in (
        file_of(PIL.Image.fromarray(deep), "TIFF"),
        file_of(PIL.Image.fromarray(deep), "TIFF", compression="tiff_lzw"),
    ):
        assert (decode(data) == (deep >> 8)[..., None]).all()


def test_a_tiff_that_is_turned_is_turned_once():
    upright = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    stored = PIL.Image.fromarray(np.ascontiguousarray(np.rot90(upright)))  # 6: turn 90 degrees clockwise to show it
    assert (decode(file_of(stored, "TIFF", tiffinfo={274: 6})) == upright).all()


def test_a_format_that_is_not_meant_is_named_by_its_first_bytes_and_starts_no_program(monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a program was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for data in (eps, file_of(PIL.Image.new("RGB", (4, 4)), "ICO"), b"<html>"):
        with pytest.raises(CorruptImage) as caught:
            decode(data)
        assert str(caught.value) == f"no JPEG, PNG, WEBP, BMP, TIFF, GIF: it begins with {data[:16]!r}"


def test_no_reason_names_an_object_in_memory():
    sound = file_of(PIL.Image.fromarray(RNG.integers(0, 256, (9, 9, 3), np.uint8)), "GIF")
    for cut in (3, 6, 10, 20, len(sound) // 2, len(sound) - 9):
        with pytest.raises(CorruptImage) as caught:
            decode(sound[:cut])
        assert "object at 0x" not in str(caught.value)
