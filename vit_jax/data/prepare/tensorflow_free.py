"""Lets TFDS's own builders download, extract and write without TensorFlow: while a preparation runs, TFDS's lazy reference
to TensorFlow leads to the few names below, made of the standard library and OpenCV. Reading needs none of it.

What the builders of the paper's data sets ask of TensorFlow is files (`io.gfile`), text, the encoding of arrays as PNG, and
the re-encoding of a few damaged or oddly stored JPEGs; any other name raises ImportError, as if nothing were here.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import os
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

from vit_jax.data.image.decode import FORMATS

# Data sets (TFDS names without config) whose preparation runs what is not here, and what that is.
NEEDS_TENSORFLOW = {
    "dmlab": "its archives are TFRecord files, read by a tf.data graph",
    "sun397": "it decodes in a TensorFlow session",
}
# Packages besides requirements.txt that a builder imports.
NEEDS_PACKAGE = {"dsprites": "h5py", "patch_camelyon": "h5py"}


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed; it is not imported to find out."""
    return importlib.util.find_spec("tensorflow") is not None


def lacks(name: str) -> tuple[str, str]:
    """The package that is missing on this machine for preparing a data set.

    Args:
      name: TFDS name, with or without config and version.

    Returns:
      (package to install, why), or two empty strings.
    """
    base = name.split(":")[0].split("/")[0]
    if base in NEEDS_TENSORFLOW and not has_tensorflow():
        return "tensorflow", NEEDS_TENSORFLOW[base]
    package = NEEDS_PACKAGE.get(base, "")
    if package and importlib.util.find_spec(package) is None:
        return package, "its archives are HDF5 files"
    return "", ""


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """While it lasts, TFDS finds the names of this module where it looks for TensorFlow; only where TensorFlow is not
    installed, and only in TFDS: `import tensorflow` fails as before."""
    from tensorflow_datasets.core.utils import lazy_imports_utils

    # etils keeps a lazy module in the attribute `_module` of the reference, which every module of TFDS shares.
    reference = lazy_imports_utils.tensorflow.__dict__
    if has_tensorflow() or "_module" in reference:
        yield
        return
    reference["_module"] = _TENSORFLOW
    try:
        yield
    finally:
        reference.pop("_module", None)


class _Names(SimpleNamespace):
    """A module of TensorFlow with some of its names."""

    def __getattr__(self, name: str) -> Any:
        raise ImportError(f"No module named 'tensorflow', and tf.{self.path}{name} has no other", name="tensorflow")


class _Array(np.ndarray):
    """A stand-in for an eager tensor, of which builders use only `numpy()`."""

    def numpy(self) -> np.ndarray:
        return self.view(np.ndarray)


class _Bytes(bytes):
    """An eager tensor of one string."""

    def numpy(self) -> bytes:
        return bytes(self)


def _as_text(text: str | bytes, encoding: str = "utf-8") -> str:
    return text.decode(encoding) if isinstance(text, bytes) else os.fspath(text)


def _as_bytes(text: str | bytes, encoding: str = "utf-8") -> bytes:
    return text if isinstance(text, bytes) else text.encode(encoding)


class _File(io.BufferedReader):
    """A file that can be read after its `with` block, as TensorFlow's can: uc_merced opens a picture and decodes it later."""

    def __exit__(self, *_: object) -> None:
        pass

    def __del__(self) -> None:
        self.close()


def _open(path: str | os.PathLike[str], mode: str = "r") -> IO[Any]:
    if mode == "rb":
        return _File(io.FileIO(path))
    if "b" in mode:
        return open(path, mode)
    return open(path, mode, encoding="utf-8", newline="\n")  # as TensorFlow: "\r" is kept


# Sorted: caltech101 draws its 30 training images a class by their place in the listing. TensorFlow's order is that of the
# file system, which is another on another machine.
def _listdir(path: str | os.PathLike[str]) -> list[str]:
    return sorted(os.listdir(path))


def _glob(pattern: str | os.PathLike[str]) -> list[str]:
    return sorted(glob.glob(os.fspath(pattern)))


def _walk(top: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    for path, folders, files in os.walk(top):
        folders.sort()
        yield path, folders, sorted(files)


def _copy(source: str, target: str, overwrite: bool = False) -> None:
    if os.path.exists(target) and not overwrite:
        raise FileExistsError(f"{target} exists")
    shutil.copyfile(source, target)


def _decode(data: bytes, channels: int = 0) -> _Array:
    """An image file as uint8 (h, w, 3), whatever it is called and however much of it is damaged: what calls this is there
    to mend such files, so `decode.decode`, which refuses them, will not do. Alpha is left out, CMYK converted."""
    import cv2
    import PIL.Image

    del channels  # the callers ask for three, or take away what is more than three
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is not None:
        return np.ascontiguousarray(image[..., ::-1]).view(_Array)
    return np.array(PIL.Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB")).view(_Array)


def _encode(suffix: str, image: np.ndarray, *options: int) -> _Bytes:
    import cv2

    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.shape[-1]]  # OpenCV's files are BGR
    done, data = cv2.imencode(suffix, np.asarray(image)[..., order], options)
    if not done:
        raise ValueError(f"cannot encode an image {image.shape} of {image.dtype} as {suffix}")
    return _Bytes(data.tobytes())


def _encode_png(image: np.ndarray) -> _Bytes:
    return _encode(".png", image)


def _encode_jpeg(image: np.ndarray, format: str = "", quality: int = 95) -> _Bytes:
    import cv2

    return _encode(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, quality)


_GFILE = _Names(
    path="io.gfile.",
    GFile=_open,
    exists=os.path.exists,
    isdir=os.path.isdir,
    listdir=_listdir,
    glob=_glob,
    walk=_walk,
    copy=_copy,
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    remove=os.remove,
    rename=os.rename,
    rmtree=shutil.rmtree,
)
_TENSORFLOW = _Names(
    path="",
    int64=np.int64,  # of the features of coco and voc
    bool=np.bool_,
    executing_eagerly=lambda: True,
    shape=np.shape,
    compat=_Names(path="compat.", as_text=_as_text, as_bytes=_as_bytes),
    io=_Names(path="io.", gfile=_GFILE, encode_png=_encode_png, encode_jpeg=_encode_jpeg),
    image=_Names(
        path="image.",
        decode_image=_decode,
        decode_jpeg=_decode,
        decode_png=_decode,
        encode_png=_encode_png,
        encode_jpeg=_encode_jpeg,
    ),
    errors=_Names(
        path="errors.",
        AlreadyExistsError=FileExistsError,
        InvalidArgumentError=ValueError,
        NotFoundError=FileNotFoundError,
        UnimplementedError=NotImplementedError,
    ),
)
