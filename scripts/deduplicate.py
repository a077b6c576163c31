"""Finds images of a training set that are copies of test images, and writes the list of what to leave out of training.

    python scripts/deduplicate.py --train=photos --against=cifar10@test --against=oxford_iiit_pet@test --to=runs/duplicates
    python scripts/deduplicate.py --train=photos --against=cifar10 --to=runs/duplicates --checkpoint=augreg:B/16 --neighbours
    python -m vit_jax.main --config=... --config.data.exclude=runs/duplicates/exclude.txt

A data set is DATASET or DATASET@SPLIT: what follows the last @ is the split, in TFDS's syntax (`cifar10:3.0.2@train[:90%]`,
`photos@train+val`), unless a slash comes after it. Without one it is `train` for --train and `test` for --against.

Candidates are images whose perceptual hashes are near, as they are or mirrored. Without a checkpoint their pixels confirm
them: copies that were encoded again, resized, mirrored, made brighter or cropped a little are found. With one, its
representations do, and --neighbours also looks for what hashes miss, among all images. The first and the third command need
no accelerator; hashing reads each image once, and what was hashed or embedded stays in FOLDER for the next run, also one
that was interrupted.

FOLDER gets exclude.txt (for data.exclude), pairs.csv and pairs.html, a page of the most doubtful pairs to look at.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

import numpy as np

from vit_jax.data.dedup import duplicates, hashing
from vit_jax.data.dedup.exclusion import example_ids, probe, stored_splits, write_exclusion
from vit_jax.data.dedup.page import Shown, write_page
from vit_jax.data.image.decode import Image
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.data.subset import SubsetSource
from vit_jax.flags import add_set
from vit_jax.process import prepare_process, reports_user_errors
from vit_jax.types import UserError

SIMILARITY = 0.9


class Named(NamedTuple):
    """A data set as the user named it, and opened."""

    text: str
    source: Source


class Found(NamedTuple):
    """PAIRS of the training set and one test set, and which of them are confirmed."""

    against: Named
    pairs: np.ndarray
    confirmed: np.ndarray


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

    found = hashing.hash_source(named.source, folder / "hashes", threads=threads, progress=said)
    states = {state: int((found["state"] == state).sum()) for state in (hashing.BLANK, hashing.CORRUPT)}
    left_out = f"; not compared: {states[hashing.BLANK]:,} blank, {states[hashing.CORRUPT]:,} corrupt"
    seconds = time.monotonic() - began
    print(f"{named.text}: {len(found):,} images hashed in {seconds:.0f} s{left_out if any(states.values()) else ''}")
    return found


def make_embed(flags: argparse.Namespace) -> Callable[[Source, np.ndarray], np.ndarray]:
    """(source, indices) -> float16 (n, d), representations of length 1 by the checkpoint."""
    from vit_jax.convert.load import load, parse_overrides, resolution_of
    from vit_jax.data.image.recipes import make_transform
    from vit_jax.data.stream.loader import eval_batches
    from vit_jax.insight.similarity import Embedder
    from vit_jax.models.build import make_forward

    options = {"channels": 3, **parse_overrides(flags.set)}
    loaded = load(flags.checkpoint, weights=flags.weights, stored_pixels=True, **options)
    embedder = Embedder(make_forward(loaded.module), loaded.params)
    transform = make_transform("eval", resolution_of(loaded))

    def embed(source: Source, indices: np.ndarray) -> np.ndarray:
        subset = SubsetSource(source, indices)
        batches = eval_batches(
            subset, transform, batch_size=flags.batch, threads=flags.threads, max_corrupt=len(indices)
        )
        return embedder(batches)[: len(indices)]

    return embed


def neighbours(
    train: Named, tests: list[Named], embed: Callable[..., np.ndarray], flags: argparse.Namespace
) -> list[np.ndarray]:
    """PAIRS by representation alone, over all images: one array for each test set."""
    from vit_jax.convert.load import fingerprint
    from vit_jax.insight.similarity import embed_parts, find_nearest

    def parts(named: Named) -> Any:
        said = [str(flags.checkpoint), str(fingerprint(flags.checkpoint)), flags.weights, *flags.set]
        key = "\n".join([named.text, probe(named.source), *said])
        cache = Path(flags.to) / "embeddings" / hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        source = named.source
        return embed_parts(len(source), hashing.PART, cache, lambda start, stop: embed(source, np.arange(start, stop)))

    right = [np.concatenate([part for _, part in parts(test)]) for test in tests]
    found: list[list[np.ndarray]] = [[np.zeros(0, duplicates.PAIRS)] for _ in tests]
    for start, left in parts(train):
        for number, other in enumerate(right):
            i, j, cosine = find_nearest(left, other, threshold=flags.similarity)
            part = np.zeros(len(i), duplicates.PAIRS)
            part["train"], part["test"], part["cosine"] = i + start, j, cosine
            part["distance"] = duplicates.UNKNOWN_DISTANCE
            found[number].append(part)
    return [np.concatenate(rows) for rows in found]


def find_all(flags: argparse.Namespace, train: Named, tests: list[Named]) -> list[Found]:
    """Candidates of every test set, scored and confirmed."""
    from vit_jax.insight.similarity import pair_cosines

    folder = Path(flags.to)
    hashes = hash_named(train, folder, flags.threads)
    embed = make_embed(flags) if flags.checkpoint else None
    more = neighbours(train, tests, embed, flags) if embed is not None and flags.neighbours else None
    found = []
    for number, test in enumerate(tests):
        other = hash_named(test, folder, flags.threads)
        pairs = duplicates.find_candidates(hashes, other, flags.radius, threads=flags.threads)
        if more is not None:
            pairs = duplicates.merge([pairs, more[number]])
        pairs["correlation"] = duplicates.correlate(train.source, test.source, pairs, threads=flags.threads)
        if embed is not None:
            unknown = np.isnan(pairs["cosine"])
            pairs["cosine"][unknown] = pair_cosines(
                pairs["train"][unknown],
                pairs["test"][unknown],
                functools.partial(embed, train.source),
                functools.partial(embed, test.source),
                part=hashing.PART,
            )
        confirmed = pairs["cosine"] >= flags.similarity if embed else pairs["correlation"] >= flags.correlation
        print(f"{test.text}: {len(pairs):,} candidates, {int(confirmed.sum()):,} confirmed")
        found.append(Found(test, pairs, confirmed))
    return found


def write_pairs(flags: argparse.Namespace, train: Named, found: list[Found]) -> None:
    """Writes pairs.csv and pairs.html."""
    counts = {part: len(whole) for part, whole in stored_splits(train.source, flags.data_dir).items()}
    score, least = ("cosine", flags.similarity) if flags.checkpoint else ("correlation", flags.correlation)
    rows = [
        (abs(float(pair[score]) - least), number, i) for number, f in enumerate(found) for i, pair in enumerate(f.pairs)
    ]
    with (Path(flags.to) / "pairs.csv").open("w", newline="") as opened:
        out = csv.writer(opened)
        out.writerow(["train", "against", "test", "distance", "correlation", "cosine", "copy"])
        for f in found:
            ids = example_ids(train.source, f.pairs["train"].tolist(), counts)
            for name, pair, confirmed in zip(ids, f.pairs, f.confirmed, strict=True):
                distance = "" if pair["distance"] == duplicates.UNKNOWN_DISTANCE else int(pair["distance"])
                cosine = "" if math.isnan(pair["cosine"]) else f"{pair['cosine']:.4f}"
                test = f.against.source.read(int(pair["test"]))[2] if len(rows) <= 100_000 else f"#{pair['test']}"
                out.writerow(
                    [name, f.against.text, test, distance, f"{pair['correlation']:.4f}", cosine, int(confirmed)]
                )
    how = "the cosine of the representations" if flags.checkpoint else "the correlation of the pixels"
    shown = []
    for _, number, i in sorted(rows)[: flags.pairs]:
        f = found[number]
        pair, source = f.pairs[i], f.against.source
        (name,) = example_ids(train.source, [int(pair["train"])], counts)
        images = _image(train.source, int(pair["train"])), _image(source, int(pair["test"]))
        named = f"{f.against.text} {source.read(int(pair['test']))[2]}"
        shown.append(Shown(name, named, images[0], images[1], _scores(pair), bool(f.confirmed[i])))
    lines = [
        f"{train.text}, {len(train.source):,} images, against {', '.join(f.against.text for f in found)}.",
        f"A pair is taken for a copy where {how} is {least} or more; its training image is then excluded.",
    ]
    write_page(Path(flags.to) / "pairs.html", "Copies of test images in a training set", lines, shown, len(rows))


def _image(source: Source, index: int) -> Image:
    try:
        return hashing.decode_of(source)(source.read(index)[0])
    except CorruptImage:
        return np.zeros((1, 1, 3), np.uint8)


def _scores(pair: Any) -> str:
    distance, cosine = int(pair["distance"]), float(pair["cosine"])
    parts = [f"hash {distance} of {hashing.BITS} bits"] if distance != duplicates.UNKNOWN_DISTANCE else []
    parts += [f"pixels {pair['correlation']:.2f}"] + ([] if math.isnan(cosine) else [f"cosine {cosine:.3f}"])
    return ", ".join(parts)


def deduplicate(flags: argparse.Namespace) -> int:
    """Does all of it; returns the number of training examples to exclude.

    Raises:
      UserError: data that cannot be opened, options that do not go together, or too many candidates.
    """
    if flags.neighbours and not flags.checkpoint:
        raise UserError("--neighbours compares representations; expected a --checkpoint to make them, found none")
    if flags.radius < 0 and not flags.neighbours:
        raise UserError(
            f"--radius={flags.radius} finds no candidates; give 0 or more, or --checkpoint and --neighbours"
        )
    train = open_named(flags.train, "train", flags.data_dir)
    stored_splits(train.source, flags.data_dir)  # refuses now what no list can be made of
    tests = [open_named(text, "test", flags.data_dir) for text in flags.against]
    folder = Path(flags.to)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to={flags.to} cannot be written: {error}; give another folder") from error
    found = find_all(flags, train, tests)
    excluded = np.unique(np.concatenate([f.pairs["train"][f.confirmed] for f in found]))
    write_exclusion(folder / "exclude.txt", train.source, excluded.tolist(), [t.text for t in tests], flags.data_dir)
    write_pairs(flags, train, found)
    print(
        f"{len(excluded):,} of {len(train.source):,} training images to exclude; look at {folder}/pairs.html, then train with"
    )
    print(f"  --config.data.exclude={folder}/exclude.txt")
    return len(excluded)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--train", required=True, metavar="DATASET[@SPLIT]", help="to remove copies from")
    parser.add_argument("--against", required=True, action="append", metavar="DATASET[@SPLIT]", help="test set; repeat")
    parser.add_argument(
        "--to", required=True, metavar="FOLDER", help="for the results, and what is kept for a next run"
    )
    parser.add_argument("--data-dir", default="", help="where TFDS data sets are")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2, help="that decode and compare")
    parser.add_argument("--pairs", type=int, default=200, help="pairs on the page at most (default %(default)s)")
    parser.add_argument(
        "--radius",
        type=int,
        default=duplicates.RADIUS,
        help=f"bits of {hashing.BITS} that hashes may differ in (%(default)s)",
    )
    parser.add_argument(
        "--correlation",
        type=float,
        default=duplicates.CORRELATION,
        help="least, of a copy's pixels (default %(default)s)",
    )
    parser.add_argument(
        "--checkpoint", default="", help="of any format; its representations confirm, in place of pixels"
    )
    parser.add_argument("--neighbours", action="store_true", help="search by representation too, over all images")
    parser.add_argument(
        "--similarity",
        type=float,
        default=SIMILARITY,
        help="least cosine of a copy (default %(default)s; what is right depends on the model: look at the page)",
    )
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a workdir of ours")
    add_set(parser)
    parser.add_argument("--batch", type=int, default=64, help="images the model sees at once")
    flags = parser.parse_args(argv)
    prepare_process()
    deduplicate(flags)
    return 0


if __name__ == "__main__":
    sys.exit(main())
