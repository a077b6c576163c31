"""What a run leaves in its workdir besides metrics and checkpoints: its config, its surroundings, its result.

Files: `config.json` (the resolved config), `run.json` (versions, devices, git, data, result), `init_report.txt`,
`predictions/<evaluator>.npz` (of each scored example).
"""

from __future__ import annotations

import datetime
import fnmatch
import importlib.metadata
import io
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from vit_jax.config import differences
from vit_jax.metrics import read_jsonl
from vit_jax.types import UserError

# Keys that may change between a run and its continuation: they move the work elsewhere and leave its numbers alone.
MAY_CHANGE = (
    "checkpoint.*",
    "data.data_dir",
    "data_dir",  # of a few-shot probe
    "data.max_corrupt",
    "data.prefetch",
    "data.threads",
    "data.workers",
    "evals.*.data_dir",
    "evals.*.max_corrupt",
    "train.fsdp",
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")


def check_workdir(workdir: epath.Path, config: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Checks that a workdir is new or holds this run; touches nothing.

    Args:
      workdir: need not exist.
      config: the resolved config, JSON types.
      old: that of the run that the workdir holds, from `saved_config`.

    Raises:
      UserError: it holds another run, or checkpoints without a config, or is no folder.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"workdir {workdir} is a file; give a folder, new or of a run to resume")
    if old is not None:
        changed = [d for d in differences(old, config) if not may_change(d.partition(":")[0])]
        if changed:
            saved = (workdir / "checkpoints").exists()
            weights = f"start from that one's weights with --config.init={workdir}"
            advice = f"give this one another --workdir, or {weights if saved else 'remove it: it has no checkpoint'}"
            raise UserError(
                f"workdir {workdir} holds a different run; {advice}. They differ in:\n  " + "\n  ".join(changed)
            )
    elif (workdir / "checkpoints").exists():
        raise UserError(
            f"workdir {workdir} holds checkpoints but no config.json, so it cannot be resumed; to start from its weights "
            f"use --config.init={workdir} and another --workdir"
        )


def saved_config(workdir: epath.Path) -> dict[str, Any] | None:
    """The config of the run that a workdir holds; None for a new one.

    Raises:
      UserError: the file is damaged.
    """
    file = workdir / "config.json"
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file} is not JSON ({error}); it should hold the config of the run in this workdir"
        ) from error


def claim_workdir(workdir: epath.Path, config: dict[str, Any]) -> None:
    """Makes a checked workdir this run's, once everything that can go wrong before training has not: writes config.json.

    Raises:
      UserError: the folder cannot be made or written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not (workdir / "config.json").exists():
            write_json(workdir / "config.json", config)
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written to: {error}; give another --workdir") from error


def may_change(key: str) -> bool:
    """Whether a key, `data.workers`, may differ between a run and its continuation."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE)


def write_json(file: epath.Path | Path, value: Any) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never a half."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(file)


def write_predictions(file: epath.Path, predictions: dict[str, np.ndarray]) -> None:
    """Writes per-example arrays, each (n,), as npz."""
    file.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    np.savez_compressed(held, **predictions)  # type: ignore[arg-type]
    file.write_bytes(held.getvalue())


def last_scores(workdir: epath.Path) -> dict[str, float]:
    """The last value of every evaluation in a run's record."""
    scores: dict[str, float] = {}
    for entry in read_jsonl(workdir / "metrics.jsonl"):
        scores |= {key: value for key, value in entry.items() if key.startswith(("eval/", "eval_average/"))}
    return scores


def surroundings() -> dict[str, Any]:
    """What a number depends on besides the config: code version, library versions, devices, command."""
    import jax

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": _git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [d.device_kind for d in jax.devices()],
        "process_count": jax.process_count(),
    }


def _git_state() -> dict[str, Any]:
    """Commit of the code that runs and whether files differ from it; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}
