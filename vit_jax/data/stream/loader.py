"""From a source and a transform to batches. Grain's threads or processes read ahead; a batch is a pure function of (seed,
position)."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from vit_jax.data.image.recipes import Transform
from vit_jax.data.source import Source
from vit_jax.data.stream.order import EvalKeys, SizedKeys, TrainKeys
from vit_jax.data.stream.reader import BatchReader, Element, SizedReader
from vit_jax.targets import map_arrays
from vit_jax.types import Batch, UserError


class _Loader:
    """Hands out batches and keeps the books on corrupt images: the common part of the two loaders."""

    def __init__(
        self, source: Source, iterator: Iterator[Element], max_corrupt: int, corrupt: Iterable[str], copy: bool
    ):
        self._source, self._max_corrupt, self._copy = source, max_corrupt, copy
        self.corrupt: set[str] = set(corrupt)
        self._iterator = [iterator]
        self._stop = weakref.finalize(self, _stop, self._iterator)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
          UserError: more than `max_corrupt` different images were corrupt, or a label is out of range.
        """
        if not self._iterator:
            raise StopIteration
        element = next(self._iterator[0])
        corrupt = set(self.corrupt)
        for name, reason in element.corrupt:
            if name not in corrupt:
                corrupt.add(name)
                logging.getLogger(__name__).warning("corrupt image %s: %s (%d so far)", name, reason, len(corrupt))
        spec = self._source.spec
        if len(corrupt) > self._max_corrupt or element.problem:
            self.close()
            if not corrupt:
                raise UserError(f"{spec.name} {spec.split}: {element.problem}; choose a split with labels")
            first = ", ".join(sorted(corrupt)[:5])
            raise UserError(
                f"{spec.name} {spec.split}: {len(corrupt)} of {len(self._source)} images could not be decoded, more "
                f"than max_corrupt={self._max_corrupt}{' allows' if not element.problem else f' ({element.problem})'}: "
                f"{first}{', ...' if len(corrupt) > 5 else ''}; repair or remove these files, or raise max_corrupt"
            )
        self.corrupt = (
            corrupt  # of the batches handed out: a checkpoint written now, or after an error, holds no others
        )
        # Batches from workers lie in shared memory that Grain wants back.
        return map_arrays(np.array, element.batch) if self._copy else element.batch

    def close(self) -> None:
        """Stops threads and worker processes. Safe to call twice; runs at exit if nobody has called it."""
        self._stop()


def _stop(iterator: list[Iterator[Element]]) -> None:
    # Grain's iterators complain when the interpreter ends before they do: the last reference goes here.
    close = getattr(iterator.pop(), "close", None)
    if close is not None:
        close()


class TrainLoader(_Loader):
    """An endless iterator of training batches; `.corrupt` holds the names of the images that did not decode so far."""


class EvalLoader(_Loader):
    """One pass over a split; `len` is the number of batches, `.corrupt` the names of the images that did not decode."""

    def __init__(self, source: Source, iterator: Iterator[Element], max_corrupt: int, num_batches: int):
        super().__init__(source, iterator, max_corrupt, (), copy=False)
        self._num_batches = num_batches

    def __len__(self) -> int:
        return self._num_batches


def train_batches(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    sizes: Sequence[Transform] = (),
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 2,
    max_corrupt: int = 100,
    corrupt: Iterable[str] = (),
    upright: bool = True,
) -> TrainLoader:
    """Endless shuffled batches for training.

    Row r of step s on process p is position `s * batch_size + r * process_count + p` of one global stream, whose
    epochs are permutations that depend on (seed, epoch) alone. So processes interleaved are the single-process stream,
    and starting at any step costs the same and gives the same batches as having run up to it, whatever the workers.

    Args:
      source: from `open_source`.
      transform: from `make_transform`; its rng is `default_rng([seed, epoch, index])`.
      batch_size: examples per step over all processes; may exceed the data set (examples then repeat).
      seed: of order and augmentation, 0 or more.
      sizes: transforms that batches take in turns (`size_at`), each of another size; () for `transform` alone.
      start_step: the first step to produce.
      process_index: which share of each batch this process reads.
      process_count: number of processes; divides batch_size.
      workers: processes that decode; 0 decodes in threads. They import the main module again, so a script needs its
        `if __name__ == "__main__"`.
      threads: batches decoded at once where workers is 0.
      prefetch: batches kept ready (by each worker).
      max_corrupt: different corrupt images that are replaced before the run stops.
      corrupt: names already known, from a checkpoint; they are not reported again.
      upright: images are turned as EXIF says.

    Returns:
      The loader; close it when done.

    Raises:
      UserError: batch_size that process_count does not divide, or a negative seed or step.
    """
    import grain

    _check_shares(source, batch_size, process_index, process_count)
    if seed < 0 or start_step < 0:
        raise UserError(f"seed and start_step must be 0 or more, found {seed} and {start_step}")
    cv2.setNumThreads(0)  # a pool of its own in each thread or worker only makes them wait for each other
    keys = TrainKeys(len(source), batch_size, process_index, process_count, seed)
    reader = BatchReader(source, transform, seed, replace=True, max_corrupt=max_corrupt, upright=upright)
    if sizes:
        whole = grain.MapDataset.source(SizedKeys(keys, len(sizes), seed))[start_step:]
        batches = whole.map(SizedReader(reader, sizes))
    else:
        batches = grain.MapDataset.source(keys)[start_step:].map(reader)
    iterator = _read_ahead(batches, workers, threads, prefetch)
    return TrainLoader(source, iterator, max_corrupt, corrupt, copy=workers > 0)


def eval_batches(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    max_corrupt: int = 100,
    upright: bool = True,
) -> EvalLoader:
    """One pass over a split, in order: each example once over all processes, the last batch padded with zeros.

    Batch i of process p is the block of batch_size / process_count examples from `i * batch_size + p * that`, so that
    the processes' rows, one process after the other, are in data set order. All processes get the same number of
    batches; one that has run out gets masked ones.

    Args:
      source: from `open_source`.
      transform: from `make_transform`.
      batch_size: examples per batch over all processes.
      process_index: which share of each batch this process reads.
      process_count: number of processes; divides batch_size.
      threads: batches decoded at once.
      max_corrupt: corrupt images, which get mask 0, before the evaluation stops.
      upright: images are turned as EXIF says.

    Returns:
      The loader; `mask` says which rows count, `.corrupt` which examples are missing from the pass.

    Raises:
      UserError: batch_size that process_count does not divide.
    """
    import grain

    share = _check_shares(source, batch_size, process_index, process_count)
    cv2.setNumThreads(0)
    keys = EvalKeys(len(source), batch_size, share, process_index)
    reader = BatchReader(source, transform, 0, replace=False, max_corrupt=max_corrupt, upright=upright)
    batches = grain.MapDataset.source(keys).map(reader)
    iterator = _read_ahead(batches, 0, threads, threads)
    return EvalLoader(source, iterator, max_corrupt, len(keys))


def _check_shares(source: Source, batch_size: int, process_index: int, process_count: int) -> int:
    """Rows of a batch that one process reads."""
    if len(source) == 0:
        raise UserError(f"{source.spec.name} {source.spec.split} has no examples")
    if not 0 <= process_index < process_count:
        raise UserError(f"process_index must be in [0, {process_count}), found {process_index}")
    if batch_size < 1 or batch_size % process_count:
        near = max(1, round(batch_size / process_count)) * process_count
        raise UserError(
            f"batch_size {batch_size} cannot be shared by {process_count} processes; the nearest that can is {near}"
        )
    return batch_size // process_count


def _read_ahead(batches: Any, workers: int, threads: int, prefetch: int) -> Iterator[Element]:
    """Starts the threads or processes that keep batches ready."""
    import grain

    if workers == 0:
        return iter(batches.to_iter_dataset(_read_options(threads, prefetch)))
    _mark_flags_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(prefetch, 1))
    in_worker = batches.to_iter_dataset(_read_options(0, 0))
    return iter(in_worker.mp_prefetch(options, worker_init_fn=_WorkerInit(os.getpid())))


def _read_options(threads: int, prefetch: int) -> Any:
    import grain

    if threads < 1:
        return grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, 1))


def _mark_flags_parsed() -> None:
    """Grain reads absl flags when it starts workers, which fails outside absl's app.run."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


class _WorkerInit:
    """Sets up a worker process: no OpenCV threads, no accelerator, and it ends with its parent, neither earlier nor much later.

    Args:
      parent: process id of the training process.
    """

    def __init__(self, parent: int):
        self._parent = parent

    def __call__(self, worker: int, num_workers: int) -> None:
        cv2.setNumThreads(0)
        if "jax" in sys.modules:  # Grain imports it where it is installed; nothing may start its backend here
            sys.modules["jax"].config.update("jax_platforms", "cpu")
        # Ctrl-C and a scheduler's SIGTERM reach the whole group: the parent still has a step to finish and will close us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(30, os._exit, (1,)).start())
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_with_parent(self) -> None:
        """After `kill -9` of the parent nobody else would end the worker."""
        while os.getppid() == self._parent:
            time.sleep(2)
        os._exit(1)
