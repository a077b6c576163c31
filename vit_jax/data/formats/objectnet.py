"""ObjectNet, as distributed: a folder `objectnet-1.0` with images/<Class>/*.png and its maps to ImageNet's classes.

Of its 313 classes 113 are also ImageNet's, most of them one for one, some as several (an alarm clock is an analog or a
digital clock); only their images are scored. A prediction over all 1,000 classes is right if it is any of the classes that
the image's class is mapped to: that is how the data set's authors and arXiv 1912.11370 score, whose protocol gave ViT's
numbers (61.7% for H/14). Others (imagenet-testbed) let only the mapped classes compete, and report more.

Every image has a red border of one pixel, which distinguishes it from training data. The authors' own evaluation code cuts
two pixels, as most do; so does this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from etils import epath

from vit_jax.data.formats.catalogue import BY_FOLDER, find_data_dir
from vit_jax.data.formats.folders import FolderSource
from vit_jax.data.formats.listing import is_image, sort_by_hash
from vit_jax.data.image.decode import Image, decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.source import Source
from vit_jax.data.splits import parse_split
from vit_jax.files import MAX_JSON_BYTES, read_json, read_regular
from vit_jax.targets import ClassSet
from vit_jax.types import DatasetSpec, UserError

NAME = "objectnet"
FOLDER = "objectnet-1.0"
BORDER = 2  # pixels
MAP = "mappings/objectnet_to_imagenet_1k.json"
ADVICE = "unpack the archive again"
LAYOUT = f"{FOLDER}/images/<Class>/*.png and {FOLDER}/{MAP}"


class ObjectNetSource(Source):
    """The images of the mapped classes. A label is the set of ImageNet classes that are right.

    Args:
      spec: what it holds; classes are ImageNet's.
      files: the images, labelled with a position in `sets`.
      sets: ImageNet classes of each mapped class.
    """

    def __init__(self, spec: DatasetSpec, files: FolderSource, sets: Sequence[tuple[int, ...]]):
        self.spec = spec
        self._files, self._sets = files, tuple(sets)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> tuple[bytes, tuple[int, ...], str]:
        """Example `index` of the split: (encoded image, right classes, path)."""
        data, which, path = self._files.read(index)
        return data, self._sets[which], path

    def decode(self, data: bytes) -> Image:
        """Decodes an image and cuts its border."""
        image = decode(data)
        if min(image.shape[:2]) <= 2 * BORDER:
            raise CorruptImage(f"{image.shape[0]} x {image.shape[1]} pixels are no more than the border")
        return image[BORDER:-BORDER, BORDER:-BORDER]


def is_objectnet(dataset: str) -> bool:
    """Whether a data set's name is `objectnet`, or a folder that holds it."""
    return dataset == NAME or (epath.Path(dataset).expanduser() / MAP).exists()


def find_objectnet(dataset: str, data_dir: str) -> epath.Path:
    """Its folder: the one named, else `objectnet-1.0` among the prepared data sets or the files fetched by hand.

    Raises:
      UserError: it is missing.
    """
    if dataset != NAME:
        return epath.Path(dataset).expanduser()
    root = epath.Path(find_data_dir(data_dir))
    places = [root / FOLDER, root / "downloads" / "manual" / FOLDER]
    for place in places:
        if (place / MAP).exists():
            return place
    raise UserError(f"{NAME} is not in {root}: found no {LAYOUT}; {how_to_get(str(root))}")


def how_to_get(root: str) -> str:
    """The command that supplies it."""
    return f"fetch {BY_FOLDER[NAME]}, then `unzip objectnet-1.0.zip -d {root}`"


def open_objectnet(dataset: str, split: str, data_dir: str = "") -> ObjectNetSource:
    """Opens ObjectNet.

    Args:
      dataset: `objectnet`, or its folder.
      split: TFDS's syntax over its only split, `test`; images are ordered by the MD5 of their path.
      data_dir: folder of prepared data sets; empty for the default.

    Returns:
      The source.

    Raises:
      UserError: it is missing, its maps are damaged, or a mapped class has no images.
    """
    root = find_objectnet(dataset, data_dir)
    folders, class_names = read_maps(root)
    paths: list[tuple[str, int]] = []
    empty = []
    for which, folder in enumerate(folders):
        place = root / "images" / folder
        names = [p.name for p in place.iterdir() if is_image(p.name)] if place.is_dir() else []
        paths += [(f"images/{folder}/{name}", which) for name in names if not name.startswith(".")]
        if not names:
            empty.append(folder)
    if empty:
        raise UserError(
            f"{root}: {len(empty)} of the {len(folders)} classes that are also ImageNet's have no images "
            f"({', '.join(empty[:5])}); expected {LAYOUT}, whole: unpack the archive again"
        )
    paths = sort_by_hash(paths)
    slices = parse_split(dataset, split, {"test": len(paths)})
    paths = [path for part in slices for path in paths[part.start : part.stop]]
    spec = DatasetSpec(dataset, split, len(paths), ClassSet(len(class_names)), class_names, (None, None, 3))
    labels = np.array([which for _, which in paths], np.int32)
    return ObjectNetSource(spec, FolderSource(spec, str(root), [p for p, _ in paths], labels), list(folders.values()))


def read_maps(root: epath.Path) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Reads the four maps that come with the images.

    Args:
      root: the folder that contains `mappings`.

    Returns:
      {folder of a class that is also ImageNet's: its ImageNet classes, sorted}, and ImageNet's class names, both in the
      order of sorted wordnet ids, which is that of TFDS and of the released checkpoints.

    Raises:
      UserError: a map is missing, or they do not agree with each other.
    """
    place = root / "mappings"
    try:
        return _join_maps(place)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{place}: the maps hold other values than expected ({error}); {ADVICE}") from error


def _join_maps(place: epath.Path) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    lines = _read(_find(place / "imagenet_to_label_2012_v2")).strip("\n").split("\n")
    order = read_json(_find(place / "pytorch_to_imagenet_2012_id.json"), advice=ADVICE)  # {class: line}
    if sorted(order.values()) != list(range(len(lines))) or sorted(map(int, order)) != list(range(len(lines))):
        raise UserError(f"{place}: expected a line for each class, found {len(lines)} lines and {len(order)} classes")
    names = [lines[order[str(c)]].strip() for c in range(len(lines))]
    wanted = read_json(_find(place / "objectnet_to_imagenet_1k.json"), advice=ADVICE)  # {title: "name; name"}
    titles = read_json(_find(place / "folder_to_objectnet_label.json"), advice=ADVICE)  # {folder: title}
    right = {title: {part.strip() for part in text.split(";")} for title, text in wanted.items()}
    classes: dict[str, tuple[int, ...]] = {}
    for folder, title in sorted(titles.items()):
        if title in right:
            classes[folder] = tuple(c for c, name in enumerate(names) if name in right[title])
    unknown = sorted(set().union(*right.values()) - set(names)) if right else []
    lost = sorted(set(right) - set(titles.values()))
    if unknown or lost or not classes:
        raise UserError(
            f"{place}: the maps do not agree: {len(unknown)} ImageNet names ({', '.join(unknown[:3])}) and {len(lost)} "
            f"classes ({', '.join(lost[:3])}) of objectnet_to_imagenet_1k.json are in no other; unpack the archive again"
        )
    return classes, tuple(names)


def _find(path: epath.Path) -> epath.Path:
    if not path.exists():
        raise UserError(f"{path} does not exist; expected {LAYOUT} as the archive has it: {ADVICE}")
    return path


def _read(path: epath.Path) -> str:
    try:
        return read_regular(path, limit=MAX_JSON_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); {ADVICE}") from error
