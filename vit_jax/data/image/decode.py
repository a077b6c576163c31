"""From the bytes of an encoded image to pixels: uint8 (h, w, 3), or CorruptImage."""

from __future__ import annotations

import io
import re
from typing import Any

import cv2
import numpy as np

from vit_jax.data.image.encoded import PNG, CorruptImage, check_rows, check_scans, check_size, is_plain_png, walk_jpeg

# The formats that Pillow may open. It knows forty more, and starts another program for one of them (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

Image = np.ndarray[Any, np.dtype[np.uint8]]


def decode(data: bytes, *, fast_dct: bool = False, upright: bool = True) -> Image:
    """Decodes an encoded image, or refuses it whole: a truncated file never becomes a picture that is half grey.

    JPEG goes through libjpeg-turbo, 8-bit gray and RGB PNG through OpenCV once its checksums hold, the rest through
    Pillow. Gray is repeated to three channels, palettes are looked up, alpha is dropped (as TensorFlow's
    `decode_image(channels=3)` does), CMYK is converted, 16 bits keep their high byte. Of several pictures in a file the
    first is taken.

    Args:
      data: the bytes of a file in one of FORMATS.
      fast_dct: JPEGs by the fast inverse DCT: TensorFlow's default and so the release's, up to 5 of 255 from the accurate
        one, which Pillow has and so transformers and timm. 6% less work.
      upright: turned as EXIF says, as a person sees it. TensorFlow never does that, so the published numbers are without.

    Returns:
      uint8 (h, w, 3), contiguous and writeable.

    Raises:
      CorruptImage: the data is empty, truncated, damaged, not an image, or larger than `data.image.encoded` allows.
    """
    if not data:
        raise CorruptImage("the file is empty or could not be read")
    try:
        if data[:2] == b"\xff\xd8":
            return _decode_jpeg(data, fast_dct, upright)
        if data[:8] == PNG and is_plain_png(data):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is None:
                raise CorruptImage("the PNG's pixels cannot be decompressed")
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
        return _decode_pillow(data, upright)
    except MemoryError as error:
        raise CorruptImage("decoding it takes more memory than there is") from error


def _decode_jpeg(data: bytes, fast_dct: bool, upright: bool) -> Image:
    import simplejpeg

    segments = tuple(walk_jpeg(data))
    check_scans(data, segments)
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # a damaged header, or chroma subsampling that TurboJPEG has no name for
        return _decode_pillow(data, upright)
    check_size(height, width)
    try:
        image = simplejpeg.decode_jpeg(data, "RGB", fastdct=fast_dct)
    except ValueError as error:
        # libjpeg's warnings are errors here. Two of them do no harm and are common in scraped photographs: a few stray
        # bytes before the end marker, and scan parameters that a baseline file should not carry. After the second one
        # the rest of the file is still unchecked, so Pillow, which refuses truncated files, decodes it.
        stray = re.search(r"(\d+) extraneous bytes before marker 0xd9", str(error))
        if stray and int(stray[1]) <= 16:
            image = simplejpeg.decode_jpeg(data, "RGB", fastdct=fast_dct, strict=False)
        elif "Invalid SOS parameters" in str(error):
            return _decode_pillow(data, upright)
        else:
            raise CorruptImage(str(error)) from error
    # A tenth of what Pillow takes to open it, and most JPEGs of the common data sets have none.
    if upright and any(kind == 0xE1 and data[start : start + 6] == b"Exif\0\0" for kind, start in segments):
        image = _orient(image, read_orientation(data))
    return image


def _decode_pillow(data: bytes, upright: bool) -> Image:
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            check_size(picture.height, picture.width)
            picture.load()
            if data[:8] == PNG and _may_lack_rows(picture):
                check_rows(data)
            orientation = picture.getexif().get(0x0112, 1) if upright else 1
            if picture.mode.startswith("I"):  # 16-bit gray, which Pillow's own conversion would clip to white
                deep = np.asarray(picture).astype(np.int64)
                image = np.clip(deep >> 8 if deep.max() > 255 else deep, 0, 255).astype(np.uint8)
                image = np.repeat(image[:, :, None], 3, axis=2)
            elif picture.mode == "F":
                raise CorruptImage("the image holds 32-bit floats, whose range is not known")
            else:
                picture.info.pop("transparency", None)  # or Pillow warns that RGB cannot hold a palette's alpha
                image = np.array(picture.convert("RGB"))
    except (CorruptImage, MemoryError):
        raise
    except PIL.UnidentifiedImageError as error:
        raise CorruptImage(f"no {', '.join(FORMATS)}: it begins with {data[:16]!r}") from error
    except Exception as error:  # damaged files surface as OSError, SyntaxError, struct.error, zlib.error, KeyError...
        raise CorruptImage(f"{type(error).__name__}: {error}") from error
    return _orient(image, orientation)


def _may_lack_rows(picture: Any) -> bool:
    """Whether rows may be missing from a PNG that Pillow has decoded. It fills rows from the top, in a memory of zeros: a last
    row that holds anything else is the file's, and so are those above it."""
    last = picture.crop((0, picture.height - 1, picture.width, picture.height))
    return bool(picture.info.get("interlace")) or not any(last.tobytes())


def read_orientation(data: bytes) -> int:
    """EXIF tag 274 of an encoded image, 1 for upright and where there is none."""
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.getexif().get(0x0112, 1)
    except Exception:  # the pixels are good; damaged EXIF only loses the rotation
        return 1


def _orient(image: Image, orientation: int) -> Image:
    """Turns the picture upright. Source: EXIF 2.3, tag 274: where the stored row 0 and column 0 belong."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
