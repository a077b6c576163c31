"""Where a run's checkpoints are, found from folders alone, and where they cannot be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax.files import read_json
from vit_jax.types import UserError

FOLDER = "checkpoints"
# In a folder at a URL, where no step is committed by a rename: `checkpoints/10.uploading` stands there while step 10 is being
# written or removed.
UPLOADING = ".uploading"
STEP = re.compile("0|[1-9][0-9]{0,17}")


def check_folder(path: str | os.PathLike[str], what: str = "workdir") -> None:
    """Refuses a folder in which a checkpoint could be written but not read back.

    Orbax finds the parts that it has just written by a glob over the whole path: if the path has brackets, the merged index is
    never written, and no error is raised. A path that is not UTF-8 fails in TensorStore, at the first save.

    Args:
      path: may be missing; the folders above it are checked too.
      what: the folder's name in the message.

    Raises:
      UserError: its absolute path has one of * ? [ ] \\ or a control character, or is not UTF-8; or the path is a file.
    """
    name = str(epath.Path(path).expanduser().absolute())
    wrong = sorted({letter for letter in name if letter in "*?[]\\" or not 32 <= ord(letter) != 127})
    if wrong:
        raise UserError(
            f"{what} {name!r} has {' and '.join(map(repr, wrong))} in its path: checkpoints there cannot be read back; choose a "
            "path without * ? [ ] \\ and control characters, or rename the folder"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{what} {name!r} is not UTF-8: checkpoints cannot be written there; choose another path, or set LC_ALL=C.UTF-8 "
            "if your shell shows the name as it should be"
        ) from error
    if os.path.exists(name) and not os.path.isdir(name):
        raise UserError(f"{what} {name} is a file; give a folder, new or of a run to resume")


def committed_steps(folder: epath.Path | Path) -> list[int]:
    """Steps of the complete checkpoints in a `checkpoints` folder, in order, read from disk."""
    folder = epath.Path(folder)
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def steps_among(names: Iterable[str]) -> list[int]:
    """Steps of the complete checkpoints among the files of a workdir at a URL, `checkpoints/10/meta/metadata`, in order."""
    below = [name.split("/")[1:] for name in names if name.startswith(f"{FOLDER}/")]
    begun = {first for first, *rest in below if rest and STEP.fullmatch(first)}
    return sorted(int(step) for step in begun - {first.removesuffix(UPLOADING) for first, *rest in below if not rest})


def named_steps(workdir: epath.Path | Path) -> dict[str, int]:
    """A run's steps on disk: {"last": step, "best": step}. `best` has the highest saved score (of equal ones the later);
    it is missing if the run kept none (`checkpoint.keep_best`)."""
    steps, scores = committed_steps(workdir / FOLDER), {}
    for step in steps:
        file = workdir / FOLDER / str(step) / "metrics" / "metrics"
        if file.exists() and (values := [x for x in read_json(file).values() if isinstance(x, float) and x == x]):
            scores[step] = values[0]
    best = {"best": max(scores, key=lambda step: (scores[step], step))} if scores else {}
    return ({"last": steps[-1]} if steps else {}) | best


def run_folder(path: str) -> epath.Path | None:
    """Finds the checkpoint folder that a path names: a workdir (its newest step), `WORKDIR@best`, `@last` or `@STEP`, or a step's
    own folder; None for anything else.

    Raises:
      UserError: the text after a workdir's @ names none of its steps.
    """
    place = epath.Path(path).expanduser().absolute()  # Orbax reads no relative paths
    if (place / "meta").exists() and (place / "params").exists():
        return place
    if steps := committed_steps(place / FOLDER):
        return place / FOLDER / str(steps[-1])
    run, at, name = place.name.rpartition("@")
    place = place.parent / run
    if not at or not (steps := committed_steps(place / FOLDER)):
        return None
    step = named_steps(place).get(name, int(name) if name.isdecimal() else -1)
    if step not in steps:
        why = "; it was trained without checkpoint.keep_best, so no step is its best" if name == "best" else ""
        there = ", ".join(f"@{known}" for known in (*named_steps(place), *steps))
        raise UserError(f"{path}: the run {place} has no checkpoint @{name}{why}; expected one of {there}")
    return place / FOLDER / str(step)


def stored_model(folder: epath.Path | Path) -> dict[str, Any]:
    """The model section of the run that wrote a checkpoint, read from its folder; {} if it is missing or unreadable, which the
    restoring code reports."""
    config = stored_meta(folder).get("config")
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}


def stored_meta(folder: epath.Path | Path) -> dict[str, Any]:
    """The meta of a checkpoint, read from its folder alone; {} if it is missing or unreadable."""
    try:
        meta = read_json(folder / "meta" / "metadata")
    except (UserError, OSError):
        return {}
    return meta if isinstance(meta, dict) else {}


def how_to_go_on(folder: epath.Path, damaged: int | None = None) -> str:
    """Advice to the user about a checkpoint that cannot be read.

    Args:
      folder: the checkpoints' folder.
      damaged: the damaged step; None if only some checkpoint's scores cannot be read.
    """
    steps = committed_steps(folder)
    if damaged is None:
        damaged = next(
            (step for step in steps if not _has_readable_scores(folder / str(step))), steps[-1] if steps else 0
        )
    before = [step for step in steps if step != damaged]
    then = f"resumes from step {before[-1]}" if before else "starts over"
    return f"\nIf the folder is damaged, remove {folder / str(damaged)}: the run then {then}"


def _has_readable_scores(folder: epath.Path) -> bool:
    """Whether a checkpoint has no scores, or scores that can be read."""
    file = folder / "metrics" / "metrics"
    try:
        return not file.exists() or all(isinstance(score, float) for score in read_json(file).values())
    except UserError:
        return False
