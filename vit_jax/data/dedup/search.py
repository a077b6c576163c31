"""The search for copies of test images in a training set: candidates by hash, confirmed by their pixels or by a model, and the
list of what to leave out of training.

A data set is DATASET or DATASET@SPLIT: the text after the last @ is the split, in TFDS's syntax (`cifar10:3.0.2@train[:90%]`,
`photos@train+val`), unless a slash comes after it. What was hashed stays in the output folder for the next run, also an
interrupted one.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vit_jax.data.dedup import duplicates, hashing
from vit_jax.data.dedup.exclusion import example_ids, stored_splits, write_exclusion
from vit_jax.data.dedup.page import Shown, write_page
from vit_jax.data.image.decode import Image
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.types import UserError, printable


class Named(NamedTuple):
    """A data set as the user named it, and opened."""

    text: str
    source: Source


class Found(NamedTuple):
    """PAIRS of the training set and one test set, and which of them are confirmed."""

    against: Named
    pairs: np.ndarray
    confirmed: np.ndarray


class Likeness(Protocol):
    """A model that compares images by its representations; `insight.representation` has one, for this room knows no models."""

    def cosines(self, train: Source, test: Source, pairs: np.ndarray) -> np.ndarray:
        """float32 (p,), of PAIRS."""

    def neighbours(self, train: Named, tests: Sequence[Named], threshold: float) -> list[np.ndarray]:
        """PAIRS of at least this cosine among all images, one array for each test set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What to search for, and how.

    Args:
      train: DATASET[@SPLIT] to remove copies from; `train` by default.
      against: test sets, DATASET[@SPLIT]; `test` by default.
      to: folder of the results, and of what a next run can use.
      data_dir: where TFDS data sets are.
      threads: that decode and compare.
      shown: pairs on the page at most.
      radius: bits that hashes may differ in.
      least: score from which a pair is a copy: the cosine by `model`, or the correlation of the pixels.
      model: whose representations confirm, in place of pixels; None for pixels.
      neighbours: with a model, search all images by it, besides those of near hashes.
    """

    train: str
    against: Sequence[str]
    to: str
    data_dir: str = ""
    threads: int = 2
    shown: int = 200
    radius: int = duplicates.RADIUS
    least: float = duplicates.CORRELATION
    model: Likeness | None = None
    neighbours: bool = False


def open_named(text: str, default: str, data_dir: str) -> Named:
    """Opens DATASET or DATASET@SPLIT."""
    dataset, at, split = text.rpartition("@")
    if not at or "/" in split or "\\" in split:
        dataset, split = text, default
    return Named(f"{dataset}@{split}", open_source(dataset, split, data_dir))


def hash_named(named: Named, folder: Path, threads: int) -> np.ndarray:
    """Hashes of a data set, with a line on the way and one at the end."""
    began, last = time.monotonic(), [time.monotonic()]

    def said(done: int) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            print(f"  {named.text}: {done:,} of {len(named.source):,} hashed", flush=True)

    hashes = hashing.hash_source(named.source, folder / "hashes", threads=threads, progress=said)
    states = {state: int((hashes["state"] == state).sum()) for state in (hashing.BLANK, hashing.CORRUPT)}
    left_out = f"; not compared: {states[hashing.BLANK]:,} blank, {states[hashing.CORRUPT]:,} corrupt"
    seconds = time.monotonic() - began
    print(f"{named.text}: {len(hashes):,} images hashed in {seconds:.0f} s{left_out if any(states.values()) else ''}")
    return hashes


def find_all(search: Search, train: Named, tests: list[Named]) -> list[Found]:
    """Candidates of every test set, scored and confirmed."""
    folder, model = Path(search.to), search.model
    hashes = hash_named(train, folder, search.threads)
    more = model.neighbours(train, tests, search.least) if model is not None and search.neighbours else None
    results = []
    for number, test in enumerate(tests):
        other = hash_named(test, folder, search.threads)
        pairs = duplicates.find_candidates(hashes, other, search.radius, threads=search.threads)
        if more is not None:
            pairs = duplicates.merge([pairs, more[number]])
        pairs["correlation"] = duplicates.correlate(train.source, test.source, pairs, threads=search.threads)
        if model is not None:
            unknown = np.isnan(pairs["cosine"])
            pairs["cosine"][unknown] = model.cosines(train.source, test.source, pairs[unknown])
        confirmed = pairs["cosine" if model is not None else "correlation"] >= search.least
        print(f"{test.text}: {len(pairs):,} candidates, {int(confirmed.sum()):,} confirmed")
        results.append(Found(test, pairs, confirmed))
    return results


def write_pairs(search: Search, train: Named, results: list[Found]) -> None:
    """Writes pairs.csv and pairs.html."""
    counts = {part: len(whole) for part, whole in stored_splits(train.source, search.data_dir).items()}
    score = "cosine" if search.model else "correlation"
    rows = [
        (abs(float(pair[score]) - search.least), number, i)
        for number, f in enumerate(results)
        for i, pair in enumerate(f.pairs)
    ]
    with (Path(search.to) / "pairs.csv").open("w", newline="") as opened:
        out = csv.writer(opened)
        out.writerow(["train", "against", "test", "distance", "correlation", "cosine", "copy"])
        for f in results:
            ids = example_ids(train.source, f.pairs["train"].tolist(), counts)
            for name, pair, confirmed in zip(map(printable, ids), f.pairs, f.confirmed, strict=True):
                distance = "" if pair["distance"] == duplicates.UNKNOWN_DISTANCE else int(pair["distance"])
                cosine = "" if math.isnan(pair["cosine"]) else f"{pair['cosine']:.4f}"
                test = f.against.source.read(int(pair["test"]))[2] if len(rows) <= 100_000 else f"#{pair['test']}"
                out.writerow(
                    [name, f.against.text, test, distance, f"{pair['correlation']:.4f}", cosine, int(confirmed)]
                )
    how = "the cosine of the representations" if search.model else "the correlation of the pixels"
    shown = []
    for _, number, i in sorted(rows)[: search.shown]:
        f = results[number]
        pair, source = f.pairs[i], f.against.source
        (name,) = example_ids(train.source, [int(pair["train"])], counts)
        images = _image(train.source, int(pair["train"])), _image(source, int(pair["test"]))
        named = f"{f.against.text} {source.read(int(pair['test']))[2]}"
        shown.append(Shown(printable(name), named, images[0], images[1], _scores(pair), bool(f.confirmed[i])))
    lines = [
        f"{train.text}, {len(train.source):,} images, against {', '.join(f.against.text for f in results)}.",
        f"A pair is taken for a copy where {how} is {search.least} or more; its training image is then excluded.",
    ]
    write_page(Path(search.to) / "pairs.html", "Copies of test images in a training set", lines, shown, len(rows))


def _image(source: Source, index: int) -> Image:
    try:
        return source.decode(source.read(index)[0])
    except CorruptImage:
        return np.zeros((1, 1, 3), np.uint8)


def _scores(pair: Any) -> str:
    distance, cosine = int(pair["distance"]), float(pair["cosine"])
    parts = [f"hash {distance} of {hashing.BITS} bits"] if distance != duplicates.UNKNOWN_DISTANCE else []
    parts += [f"pixels {pair['correlation']:.2f}"] + ([] if math.isnan(cosine) else [f"cosine {cosine:.3f}"])
    return ", ".join(parts)


def deduplicate(search: Search) -> int:
    """Searches, and writes exclude.txt (for data.exclude), pairs.csv and pairs.html, a page of the most doubtful pairs.

    Returns:
      The number of training examples to exclude.

    Raises:
      UserError: data that cannot be opened, options that do not go together, or too many candidates.
    """
    if search.neighbours and search.model is None:
        raise UserError("--neighbours compares representations; expected a --model to make them, found none")
    if search.radius < 0 and not search.neighbours:
        raise UserError(f"--radius={search.radius} finds no candidates; give 0 or more, or --model and --neighbours")
    train = open_named(search.train, "train", search.data_dir)
    stored_splits(train.source, search.data_dir)  # refuses now what no list can be made of
    tests = [open_named(text, "test", search.data_dir) for text in search.against]
    folder = Path(search.to)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to={search.to} cannot be written: {error}; give another folder") from error
    results = find_all(search, train, tests)
    excluded = np.unique(np.concatenate([f.pairs["train"][f.confirmed] for f in results]))
    texts = [test.text for test in tests]
    write_exclusion(folder / "exclude.txt", train.source, excluded.tolist(), texts, search.data_dir)
    write_pairs(search, train, results)
    counts = f"{len(excluded):,} of {len(train.source):,} training images to exclude"
    print(f"{counts}; look at {folder}/pairs.html, then train with")
    print(f"  --config.data.exclude={folder}/exclude.txt")
    return len(excluded)
