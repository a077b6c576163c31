"""The kinds of target: the labels of a data set, and their form in a batch.

`DatasetSpec.target` is one of them. A kind allocates the target of a batch and writes one label into it at a time. The loader,
the mesh and the training step treat it as a tree of arrays. A new kind is a class with the three members of `Target`. numpy is
imported only where arrays are allocated, because every start of the command line imports this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np


class Target(Protocol):
    """A kind of target."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    def empty(self, b: int) -> Any:
        """Allocates the target of a batch of `b` examples: an array, or a NamedTuple of arrays, with leading axis b."""
        ...

    def put(self, arrays: Any, row: int, label: Any) -> str:
        """Writes the label of one example into row `row`; returns the problem with the label, or "". A wrong label leaves the
        row as it was."""
        ...


@dataclass(frozen=True)
class ClassId:
    """One class per example. A label is an int, a batch's target int32 (b,)."""

    num_classes: int

    def empty(self, b: int) -> np.ndarray:
        """int32 (b,) of zeros."""
        import numpy as np

        return np.zeros(b, np.int32)

    def put(self, arrays: np.ndarray, row: int, label: int) -> str:
        """Writes a class."""
        if not 0 <= label < self.num_classes:
            return _no_such_class(label, self.num_classes)
        arrays[row] = label
        return ""


@dataclass(frozen=True)
class ClassSet:
    """A set of classes per example, which may be empty. A label is a tuple of ints, a batch's target uint8 (b, num_classes): 1
    for each class of the set."""

    num_classes: int

    def empty(self, b: int) -> np.ndarray:
        """uint8 (b, num_classes) of zeros."""
        import numpy as np

        return np.zeros((b, self.num_classes), np.uint8)

    def put(self, arrays: np.ndarray, row: int, label: tuple[int, ...]) -> str:
        """Writes a set."""
        if not all(0 <= one < self.num_classes for one in label):
            return _no_such_class(label, self.num_classes)
        arrays[row, list(label)] = 1
        return ""


@dataclass(frozen=True)
class Values:
    """Numbers to predict. A label is a tuple of floats, a batch's target float32 (b, num_classes).

    Args:
      num_classes: how many numbers an example has.
    """

    num_classes: int

    def empty(self, b: int) -> np.ndarray:
        """float32 (b, num_classes) of zeros."""
        import numpy as np

        return np.zeros((b, self.num_classes), np.float32)

    def put(self, arrays: np.ndarray, row: int, label: tuple[float, ...]) -> str:
        """Writes the numbers of an example."""
        if len(label) != self.num_classes:
            return f"{len(label)} numbers, expected {self.num_classes}"
        arrays[row] = label
        return ""


class BoxLabel(NamedTuple):
    """The objects of one image, of which there are k.

    Args:
      box: float32 (k, 4), corners (left, top, right, bottom) as shares of the image's width and height, in [0, 1].
      kind: int32 (k,), the class of each object.
      valid: float32 (k,), 1 for an object that counts, 0 for one that a crop has removed.
      image_id: the data set's own number for the image.
      size: (h, w) of the decoded image before any recipe, in pixels; a transform fills it in.
      crowd: float32 (k,), 1 for a box around many objects (COCO), or a difficult one (VOC), which is neither trained on nor
        counted in scores; None for none.
      area: float32 (k,), pixels of the stored image, of a segment where the data set has one; None for that of the box.
    """

    box: np.ndarray
    kind: np.ndarray
    valid: np.ndarray
    image_id: int
    size: tuple[int, int] = (0, 0)
    crowd: np.ndarray | None = None
    area: np.ndarray | None = None


class BoxBatch(NamedTuple):
    """The objects of a batch of images, m rows for each.

    Args:
      box: float32 (b, m, 4) in the prepared image, as in `BoxLabel`. Rows without an object hold the whole image, so that no
        loss divides by an area of 0.
      kind: int32 (b, m).
      valid: float32 (b, m), 1 for an object, 0 for padding.
      image_id: int32 (b,).
      size: int32 (b, 2), (h, w) of the decoded image.
      crowd: float32 (b, m), as in `BoxLabel`.
      area: float32 (b, m), pixels of the stored image; 0 for that of the box.
    """

    box: Any
    kind: Any
    valid: Any
    image_id: Any
    size: Any
    crowd: Any
    area: Any


@dataclass(frozen=True)
class Boxes:
    """The objects of an image: their boxes and classes. A label is a `BoxLabel`, a batch's target a `BoxBatch`.

    Args:
      num_classes: number of object classes.
      most: rows per image, which is the largest number of objects in any image.
    """

    num_classes: int
    most: int

    def empty(self, b: int) -> BoxBatch:
        """Allocates rows that are all padding."""
        import numpy as np

        box = np.zeros((b, self.most, 4), np.float32)
        box[..., 2:] = 1
        kind = np.zeros((b, self.most), np.int32)
        valid, crowd, area = (np.zeros((b, self.most), np.float32) for _ in range(3))
        return BoxBatch(box, kind, valid, np.zeros(b, np.int32), np.zeros((b, 2), np.int32), crowd, area)

    def put(self, arrays: BoxBatch, row: int, label: BoxLabel) -> str:
        """Writes the objects of an image; objects that do not count stay padding."""
        k = len(label.kind)
        if k > self.most:
            return f"{k} boxes, expected at most {self.most}"
        if k and not 0 <= label.kind.min() <= label.kind.max() < self.num_classes:
            return _no_such_class(label.kind.tolist(), self.num_classes)
        if label.box.shape != (k, 4) or not ((label.box >= 0) & (label.box <= 1)).all():
            return f"boxes {label.box.tolist()}, expected {k} of (left, top, right, bottom) in [0, 1]"
        counts = label.valid > 0
        arrays.box[row, :k][counts] = label.box[counts]
        arrays.kind[row, :k][counts] = label.kind[counts]
        arrays.valid[row, :k] = counts
        arrays.image_id[row], arrays.size[row] = label.image_id, label.size
        for held, given in ((arrays.crowd, label.crowd), (arrays.area, label.area)):
            if given is not None:
                held[row, :k][counts] = given[counts]
        return ""


def _no_such_class(label: Any, num_classes: int) -> str:
    return f"label {label}, expected 0 to {num_classes - 1}: this split has no (or other) labels"


def map_arrays(function: Callable[[Any], Any], tree: Any) -> Any:
    """Applies a function to each array of a batch or a target. The data room cannot use `jax.tree`."""
    if isinstance(tree, tuple):
        return type(tree)(*(map_arrays(function, branch) for branch in tree))
    return function(tree)
