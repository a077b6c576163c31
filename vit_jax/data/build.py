"""The `data` section of a config: the training data, its split, preprocessing and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from vit_jax.data.dedup.exclusion import exclude
from vit_jax.data.image.augment import Augment
from vit_jax.data.image.recipes import Transform, check_recipe, make_transform
from vit_jax.data.open import check_trainable, open_source
from vit_jax.data.source import Source
from vit_jax.data.stream.loader import TrainLoader, train_batches
from vit_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainData(Augment):
    """Training data. The strengths of augmentation, `randaugment` and others, are fields of `data.image.augment.Augment`.

    Args:
      dataset: TFDS name, a folder that holds `train/CLASS/` or `CLASS/` with images, a list, tar shards, what was packed from
        them, or `vtab/TASK`.
      split: in TFDS's syntax, `train[:98%]`; for a folder too; of one's own images also train_kept and train_held_out, a tenth
        of each class; of a VTAB task train800, val200, train800val200 or test.
      resolution: (h, w) of the images the model sees, pixels.
      sizes: (h, w) that training batches take in turns, each once in every round of steps, in a drawn order; () for resolution
        alone. Evaluation and plans keep `resolution`, and no size has more pixels.
      batch_size: global: examples per optimizer step over all devices, processes and accumulation steps.
      recipe: a key of `data.image.recipes.RECIPES`.
      crop_area: smallest and largest area of an inception crop, as shares of the image.
      flip: mirror half of the images left to right.
      exif: `apply` turns photographs as their EXIF orientation says; `ignore` leaves them as stored, as TensorFlow and so the
        published numbers do.
      data_dir: where TFDS data sets lie; "" for $TFDS_DATA_DIR or ~/tensorflow_datasets.
      workers: processes that prepare batches; 0 prepares them in threads of this process.
      threads: threads that read and decode, in each process.
      prefetch: batches prepared ahead.
      exclude: list of examples to leave out, written by vit_jax dedup; "" for none.
      max_corrupt: corrupt images (replaced by their neighbours and reported) above which the run stops.
    """

    dataset: str
    split: str
    resolution: tuple[int, int]
    batch_size: int
    recipe: str
    crop_area: tuple[float, float] = (0.05, 1.0)
    flip: bool = True
    exif: Literal["apply", "ignore"] = "apply"
    data_dir: str = ""
    workers: int = 0
    threads: int = 2
    prefetch: int = 2
    exclude: str = ""
    max_corrupt: int = 100
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "workers": 0, "threads": 0, "prefetch": 0, "max_corrupt": 0}
        low = [
            f"data.{key} is {getattr(self, key)}; expected {n} or more"
            for key, n in least.items()
            if getattr(self, key) < n
        ]
        if min(self.resolution) < 1:
            low.append(f"data.resolution is {self.resolution}; expected (h, w) in pixels")
        (h, w), most = self.resolution, max((y * x for y, x in self.sizes), default=0)
        if self.sizes and min(min(size) for size in self.sizes) < 1:
            low.append(f"data.sizes is {self.sizes}; expected (h, w) in pixels of each size")
        elif most > h * w:
            low.append(
                f"data.sizes is {self.sizes}, of up to {most:,} pixels, and data.resolution, {h}x{w}, has {h * w:,}: memory is "
                "planned for that; leave the larger sizes out, or raise data.resolution"
            )
        if low:
            raise UserError("\n".join(low))
        check_recipe(self.recipe, "data.recipe")
        super().__post_init__()

    def open(self) -> Source:
        """Opens the split without the examples that `exclude` names; raises UserError if one is missing or they do not match."""
        check_trainable(self.dataset)
        source = open_source(self.dataset, self.split, self.data_dir, multi_label=True, values=True, boxes=True)
        for size in (self.resolution, *self.sizes):
            self.transform(source, size)
        return exclude(source, self.exclude, self.data_dir) if self.exclude else source

    def transform(self, source: Source, size: tuple[int, int] | None = None) -> Transform:
        """The preprocessing, to a size or the resolution; raises UserError if a step cannot carry the source's kind of target
        along."""
        return make_transform(
            self.recipe,
            size or self.resolution,
            crop_area=self.crop_area,
            flip=self.flip,
            augment=self,
            target=source.spec.target,
            short_side=source.spec.short_side,
        )

    def batches(
        self,
        source: Source,
        *,
        seed: int,
        start_step: int,
        process_index: int,
        process_count: int,
        corrupt: Iterable[str],
    ) -> TrainLoader:
        """This process's share of the global batches from `start_step` on, for ever."""
        return train_batches(
            source,
            self.transform(source),
            batch_size=self.batch_size,
            seed=seed,
            sizes=[self.transform(source, size) for size in self.sizes],
            start_step=start_step,
            process_index=process_index,
            process_count=process_count,
            workers=self.workers,
            threads=self.threads,
            prefetch=self.prefetch,
            max_corrupt=self.max_corrupt,
            corrupt=corrupt,
            upright=self.exif == "apply",
        )
