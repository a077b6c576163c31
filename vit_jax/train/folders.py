"""Where a run's checkpoints lie, found by looking at folders alone."""

from __future__ import annotations

from pathlib import Path

from etils import epath

FOLDER = "checkpoints"


def committed_steps(folder: epath.Path | Path) -> list[int]:
    """Steps of the complete checkpoints in a `checkpoints` folder, in order, read from disk."""
    folder = epath.Path(folder)
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def run_folder(path: str) -> epath.Path | None:
    """The checkpoint folder that a path names: a workdir (its newest step) or a step in it; None for anything else."""
    place = epath.Path(path).expanduser().absolute()  # Orbax reads no relative paths
    if (place / "meta").exists() and (place / "params").exists():
        return place
    steps = committed_steps(place / FOLDER)
    return place / FOLDER / str(steps[-1]) if steps else None
