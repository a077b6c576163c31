"""What is done to one image: decode, resize, crop, flip (arXiv 2010.11929, appendix B.1). Images are uint8 (h, w, 3),
sizes are (h, w), and whatever is random takes a generator. Called by: data.preprocess, data.loader."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vit_jax.data.encoded import PNG, CorruptImage, check_rows, check_scans, check_size, is_plain_png, walk_jpeg

if TYPE_CHECKING:
    from vit_jax.data.jpeg import TopOfJpeg

# What Pillow may open. It knows forty formats more, and starts another program for one of them (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_ATTEMPTS = 100  # of tf.image.sample_distorted_bounding_box, before it takes the whole image

Image = np.ndarray[Any, np.dtype[np.uint8]]
Size = tuple[int, int]


def decode(data: bytes, *, fast_dct: bool = False, upright: bool = True) -> Image:
    """Decodes an encoded image, or refuses it whole: a truncated file never becomes a half-grey picture.

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
      CorruptImage: the data is empty, truncated, damaged, not an image, or larger than `data.encoded` allows.
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


def resize(image: Image, size: Size, out: Image | None = None) -> Image:
    """Bilinear, without antialiasing, half-pixel centres, as the released models were trained.

    Args:
      image: uint8 (h, w, 3), any size.
      size: (h, w) of the result; the aspect ratio is not kept.
      out: uint8 (size[0], size[1], 3), to be written and returned in place of a new array.

    Returns:
      uint8 (size[0], size[1], 3), within 1 of the exact value (OpenCV interpolates in fixed point).

    Source: `tf.image.resize(method="bilinear", antialias=False)`.
    """
    return cv2.resize(image, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def resize_small(image: Image, size: Size) -> Image:
    """Keeps the aspect ratio: the smallest picture that covers `size`, (h, w). Each pixel is the mean of the area that it
    covers, be it of many pixels or a part of one: enlarging repeats pixels and mixes them where they meet.

    Source: big_vision's `resize_small` (`tf.image.resize(method="area")`), within 1, for it truncates.
    """
    h, w = image.shape[:2]
    scale = max(size[0] / h, size[1] / w)
    shape = max(round(h * scale), size[0]), max(round(w * scale), size[1])
    if scale <= 1:
        return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
    enlarged = _spread(_spread(image.astype(np.float32), shape[0], 0), shape[1], 1)
    return cv2.convertScaleAbs(enlarged) if image.dtype == np.uint8 else enlarged  # type: ignore[return-value]


def _spread(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Enlarges one axis of a float image to `size` by area, for which INTER_AREA takes another way: a new pixel lies in one old
    pixel or across the border of two."""
    length = image.shape[axis] / size  # of a new pixel, in old ones
    ends = np.arange(1, size + 1) * length
    last = np.minimum(np.ceil(ends - 1e-9).astype(int), image.shape[axis]) - 1
    share = np.clip((ends - last) / length, 0, 1).astype(np.float32)  # of the new pixel that lies in its last old one
    share = share.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    before, after = image.take(np.maximum(last - 1, 0), axis), image.take(last, axis)
    after -= before
    after *= share
    after += before
    return after


def sample_box(
    height: int, width: int, rng: np.random.Generator, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draws the box of an Inception crop.

    The aspect ratio is uniform in `aspect`, then the height uniform between those that give the least and the largest
    area (so areas are not uniform, unlike torchvision's). Boxes that do not fit are drawn again, 100 times at most.

    Args:
      height: pixels of the image.
      width: pixels of the image.
      rng: where the randomness comes from.
      area: least and largest share of the image's area, in (0, 1].
      aspect: least and largest width / height of the box.

    Returns:
      (top, left, height, width) of the box in pixels; the whole image after 100 failures.

    Source: `tf.image.sample_distorted_bounding_box` with min_object_covered=0. One thing differs: TensorFlow never
      places the box at the last row or column it could have, which on an 8 x 8 image would pin it to a corner.
    """
    low_area, high_area = area[0] * height * width, area[1] * height * width
    for _ in range(MAX_ATTEMPTS):
        ratio = rng.uniform(*aspect)
        low, high = round(math.sqrt(low_area / ratio)), round(math.sqrt(high_area / ratio))
        high = min(high, height, int((width + 0.5 - 1e-7) / ratio))
        box_h = int(rng.integers(min(low, high), high + 1))
        if box_h * round(box_h * ratio) < low_area:  # rounding went below the range: one pixel more
            box_h += 1
        if box_h * round(box_h * ratio) > high_area:
            box_h -= 1
        box_w = round(box_h * ratio)
        fits = 0 < box_h <= height and 0 < box_w <= width
        if fits and low_area <= box_h * box_w <= high_area:
            top = int(rng.integers(height - box_h + 1))
            left = int(rng.integers(width - box_w + 1))
            return top, left, box_h, box_w
    return 0, 0, height, width


def inception_crop(
    image: Image | TopOfJpeg,
    rng: np.random.Generator,
    size: Size,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    out: Image | None = None,
) -> Image:
    """A random part of the image, resized to `size`; see `sample_box` and `resize` for the arguments."""
    top, left, box_h, box_w = sample_box(image.shape[0], image.shape[1], rng, area, aspect)
    return resize(image[top : top + box_h, left : left + box_w], size, out)


def random_crop(image: Image, rng: np.random.Generator, size: Size) -> Image:
    """A part of exactly `size` pixels, every position equally likely. Raises ValueError where it does not fit."""
    _check_fits(image, size)
    top = int(rng.integers(image.shape[0] - size[0] + 1))
    left = int(rng.integers(image.shape[1] - size[1] + 1))
    return image[top : top + size[0], left : left + size[1]]


def central_crop(image: Image, size: Size) -> Image:
    """The middle `size` pixels; an odd margin leaves the extra pixel below and right. Raises ValueError if too small."""
    _check_fits(image, size)
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def _check_fits(image: Image, size: Size) -> None:
    if image.shape[0] < size[0] or image.shape[1] < size[1]:
        raise ValueError(f"cannot crop {size[0]} x {size[1]} from an image of {image.shape[0]} x {image.shape[1]}")


def random_flip(image: Image, rng: np.random.Generator, out: Image | None = None) -> Image:
    """The image or, one time in two, its mirror image (left and right exchanged), in `out` if given, which may be `image`."""
    # Copying numpy's view image[:, ::-1], three bytes at a time, would take ten times as long as OpenCV.
    return cv2.flip(image, 1, dst=out) if rng.random() < 0.5 else image  # type: ignore[return-value]
