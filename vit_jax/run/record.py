"""The files of a workdir besides metrics and checkpoints: the run's config, its surroundings, its result.

Files: `config.json` (the resolved config), `run.json` (versions, devices, git, data, result), `init_report.txt`,
`predictions/<evaluator>.npz` (arrays with one row for each scored example).
"""

from __future__ import annotations

import datetime
import fnmatch
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from vit_jax.config import SECTIONS, differences
from vit_jax.files import read_json, read_json_value
from vit_jax.metrics.jsonl import read_jsonl
from vit_jax.train.folders import FOLDER, committed_steps
from vit_jax.types import Metric, UserError

# Keys that may differ when a run resumes: they change where the work is done, not its numbers.
MAY_CHANGE = (
    "checkpoint.*",
    "data.data_dir",
    "data_dir",  # in a few-shot probe's config
    "data.max_corrupt",
    "data.prefetch",
    "data.threads",
    "data.workers",
    "evals.*.data_dir",
    "evals.*.max_corrupt",
    "train.fsdp",
    "train.trackers",
    "train.patience",  # a run that ended early continues with more
)
# The keys of run.json that readers rely on.
RUN: dict[str, Any] = {
    **dict.fromkeys(("config", "scores", "versions", "git"), dict),
    **dict.fromkeys(("steps", "num_params", "train_flops_per_image"), int),
    **dict.fromkeys(("data", "devices"), list),
    "seconds": (int, float),
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")


def check_workdir(
    workdir: epath.Path, config: dict[str, Any], old: dict[str, Any] | None, free: Collection[str] = ()
) -> None:
    """Checks that a workdir is new or holds this run; touches nothing.

    Args:
      workdir: may be missing.
      config: the resolved config, JSON types.
      old: the config of the run that the workdir holds, from `saved_config`.
      free: keys besides MAY_CHANGE that may differ, because the device decided them both times.

    Raises:
      UserError: it holds another run, or checkpoints without a config.
    """
    if old is not None:
        changed = [
            d for d in differences(old, config) if not may_change(key := d.partition(":")[0]) and key not in free
        ]
        if changed:
            raise UserError(
                f"workdir {workdir} holds a different run; give this one another --workdir, or start from that one's weights "
                f"with --config.init={workdir}. They differ in:\n  " + "\n  ".join(changed)
            )
    elif committed_steps(workdir / FOLDER):
        raise UserError(
            f"workdir {workdir} holds checkpoints but no config.json, so it cannot be resumed; to start from its weights "
            f"use --config.init={workdir} and another --workdir"
        )


def is_untrained(workdir: epath.Path | Path) -> bool:
    """Whether a workdir holds neither a checkpoint nor a result: starting over, even with another config, then loses nothing."""
    return not (committed_steps(workdir / FOLDER) or (workdir / "run.json").exists())


def saved_config(workdir: epath.Path) -> dict[str, Any] | None:
    """The config of the run that a workdir holds; None if the workdir is new or its run has saved nothing yet.

    Raises:
      UserError: the file is damaged.
    """
    file = workdir / "config.json"
    if not file.exists() or is_untrained(workdir):
        return None
    advice = f"put a copy of it back, or give another --workdir: --config.init={workdir} starts from its weights"
    saved = read_json(file, advice=advice)
    _check_sections(saved, f"{file} is damaged", advice)
    return saved


def saved_decisions(workdir: epath.Path) -> dict[str, str]:
    """{key: reason} of what `settle` decided for a run, from settled.json; empty for a run of an older version.

    Raises:
      UserError: the file is damaged.
    """
    file = workdir / "settled.json"
    if not file.exists():
        return {}
    advice = "remove it: the run then resumes only on the kind of device that it began on"
    decisions = read_json_value(file, advice=advice)
    decisions = decisions if isinstance(decisions, list) else [None]
    if not all(
        isinstance(d, list) and len(d) == 3 and isinstance(d[0], str) and isinstance(d[2], str) for d in decisions
    ):
        raise UserError(f"{file} is damaged: it should be a list of [key, value, reason]; {advice}")
    return {key: why for key, _, why in decisions}


def _check_sections(config: Any, what: str, advice: str) -> None:
    """Raises UserError if a saved config lacks the sections of a config."""
    config = config if isinstance(config, dict) else {}
    sections = {name: config.get(name) for name in SECTIONS if name != "seed"}
    evaluators = sections["evals"] if isinstance(sections["evals"], dict) else {}
    sections |= {f"evals.{name}": section for name, section in evaluators.items()}
    wrong = [name for name, section in sections.items() if not isinstance(section, dict)]
    if wrong:
        raise UserError(f"{what}: {', '.join(wrong)} should be sections of a config; {advice}")


def read_run(workdir: epath.Path | Path) -> dict[str, Any]:
    """Reads the `run.json` of a finished run.

    Raises:
      UserError: the file is damaged.
    """
    file = workdir / "run.json"
    advice = "remove it and start the same command again, which writes it again"
    record = read_json(file, advice=advice)
    wrong = [key for key, kind in RUN.items() if not isinstance(record.get(key), kind)]
    if wrong:
        raise UserError(f"{file} is damaged: it has no {', '.join(wrong)}; {advice}")
    _check_sections(record["config"], f"{file} is damaged", advice)
    return record


def check_writable(workdir: epath.Path) -> None:
    """Checks, before anything is computed, that an existing workdir is writable.

    Raises:
      UserError: it is not writable.
    """
    if workdir.exists() and "://" not in str(workdir) and not os.access(workdir, os.W_OK):
        raise no_right(workdir, "it may only be read")


def no_right(workdir: epath.Path, reason: object) -> UserError:
    """The error for a workdir that belongs to another user."""
    return UserError(
        f"workdir {workdir} cannot be used: {reason}; give another --workdir, with --config.init={workdir} to start from its "
        "weights"
    )


def claim_workdir(workdir: epath.Path, config: dict[str, Any], settled: Sequence[tuple[str, Any, str]] = ()) -> None:
    """Claims a checked workdir for this run, after every check that can fail before training. Writes config.json, and
    settled.json with each decision and its reason. Neither file changes once a checkpoint or result is saved.

    Raises:
      UserError: the folder cannot be made or written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not (workdir / "config.json").exists() or is_untrained(workdir):
            write_json(workdir / "settled.json", [list(decision) for decision in settled])
            write_json(workdir / "config.json", config)
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written to: {error}; give another --workdir") from error


def may_change(key: str) -> bool:
    """Whether a key, such as `data.workers`, may differ when a run resumes."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE)


def write_json(file: epath.Path | Path, value: Any) -> None:
    """Writes JSON atomically: a reader finds the old file or the new one, never half of one."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(file)


def write_predictions(file: epath.Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Writes per-example arrays, (n, ...), as npz."""
    file.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    np.savez_compressed(held, **predictions)  # type: ignore[arg-type]
    file.write_bytes(held.getvalue())


def write_picture(file: epath.Path, picture: np.ndarray) -> None:
    """Writes an image, uint8 (h, w, 3), as PNG."""
    import PIL.Image

    file.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    PIL.Image.fromarray(picture).save(held, format="PNG")
    file.write_bytes(held.getvalue())


def last_scores(workdir: epath.Path) -> dict[str, float]:
    """The last value of every evaluation metric in a run's record."""
    scores: dict[str, float] = {}
    for entry in read_jsonl(workdir / "metrics.jsonl"):
        scores |= {key: value for key, value in entry.items() if Metric.parse(key)}
    return scores


def surroundings() -> dict[str, Any]:
    """Everything besides the config that a number depends on: code version, library versions, devices, command."""
    import jax

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "devices": [d.device_kind for d in jax.devices()],
        "process_count": jax.process_count(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that a number depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def git_state() -> dict[str, Any]:
    """The commit of the running code and whether files differ from it; empty outside a git checkout."""
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
