"""Fetches a checkpoint from a URL into a local folder: a run's, a file with the files beside it that describe it, or a folder of
Hugging Face's or timm's. Only the files that will be read are fetched; of a run, one step's weights and its meta.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vit_jax.remote import Remote, explained, named
from vit_jax.train.folders import FOLDER, run_folder, steps_among

# Files beside one of this name that describe it; and of an npz file, the JSON of its name.
BESIDE = {"model.safetensors": ("config.json", "preprocessor_config.json")}
READ = (".json", ".safetensors")  # of a folder, all of these
SCORES = "metrics/metrics"


@contextlib.contextmanager
def fetched(url: str, *, item: str = "params") -> Iterator[str]:
    """Yields the local path that stands for a URL inside the `with`; messages of errors name the URL.

    Args:
      url: of a file or folder; of a run, `URL@best`, `URL@last` and `URL@STEP` too.
      item: the weights to fetch of a run, `params` or `average`.

    Raises:
      UserError: it cannot be fetched. If nothing is there, the local path is missing too.
    """
    remote = Remote(url)
    with (
        tempfile.TemporaryDirectory(prefix="vit_jax-") as held,
        named(f"{held}/", remote.url.removesuffix(remote.name)),
    ):
        place = Path(held) / remote.name
        with explained(url, "fetched"):
            if remote.is_file():
                _fetch_file(remote, place)
            elif files := remote.list():
                _fetch_folder(remote, files, place, item)
            elif "@" in remote.name:
                run = Remote(remote.url.rpartition("@")[0])
                _fetch_run(run, run.list(), place, item)
        yield str(place)


def fingerprint_of(url: str) -> list[list[object]]:
    """Names and sizes of the files at a URL."""
    remote = Remote(url)
    with explained(url, "read"):
        return [[name, size] for name, size in sorted(remote.list().items())]


def _fetch_file(remote: Remote, place: Path) -> None:
    folder = Remote(remote.url.rpartition("/")[0])
    name = remote.url.rpartition("/")[2]
    beside = (place.with_suffix(".json").name,) if place.suffix == ".npz" else BESIDE.get(name, ())
    for file in beside:
        if (content := folder.read(file)) is not None:
            (place.parent / file).write_bytes(content)
    folder.fetch({name: folder.size(name)}, place.parent)


def _fetch_folder(remote: Remote, files: Mapping[str, int], place: Path, item: str) -> None:
    if steps_among(files):
        return _fetch_run(remote, files, place, item)
    if any(name.startswith("meta/") for name in files):  # the folder of a step
        (place / "params").mkdir(parents=True)  # by which such a folder is known, also where averages are read
        return remote.fetch({n: x for n, x in files.items() if n.split("/")[0] in ("meta", item)}, place)
    top = {name: size for name, size in files.items() if "/" not in name}
    remote.fetch({name: size for name, size in top.items() if name.endswith(READ)}, place)
    for name in [name for name in top if not name.endswith(READ)][:10]:  # for a message about a folder of another kind
        (place / name).touch()


def _fetch_run(remote: Remote, files: Mapping[str, int], place: Path, item: str) -> None:
    """Finds the step in a copy that holds every step's scores alone, and fetches its weights."""
    steps = steps_among(files)
    run = place.parent / remote.name
    for step in steps:
        (run / FOLDER / str(step)).mkdir(parents=True)
    remote.fetch({n: files[n] for step in steps if (n := f"{FOLDER}/{step}/{SCORES}") in files}, run)
    folder = run_folder(str(place))
    if folder is not None:
        below = f"{FOLDER}/{folder.name}/"
        remote.fetch({n: x for n, x in files.items() if n.startswith((f"{below}meta/", f"{below}{item}/"))}, run)
