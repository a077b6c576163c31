"""What a run leaves in its workdir besides metrics and checkpoints: its config, its surroundings, its result.

Files: `config.json` (the resolved config), `run.json` (versions, devices, git, data, result), `init_report.txt`.

Called by: run, scripts.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax.config import differences
from vit_jax.types import UserError

# Keys that may change between a run and its continuation: they move the work elsewhere and leave its numbers alone.
MAY_CHANGE = (
    "checkpoint.",
    "data.data_dir",
    "data.max_corrupt",
    "data.prefetch",
    "data.threads",
    "data.workers",
    "train.fsdp",
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")


def claim_workdir(workdir: epath.Path, config: dict[str, Any], *, primary: bool) -> None:
    """Makes the workdir this run's: writes config.json, or checks that the one there is the same run's.

    Args:
      workdir: created if it does not exist.
      config: the resolved config, JSON types.
      primary: whether this process writes.

    Raises:
      UserError: it holds another run, or checkpoints without a config; nothing is touched.
    """
    file = workdir / "config.json"
    if file.exists():
        try:
            old = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise UserError(
                f"{file} is not JSON ({error}); it should hold the config of the run in this workdir"
            ) from error
        changed = [d for d in differences(old, config) if not d.startswith(MAY_CHANGE) and ".data_dir:" not in d]
        if changed:
            raise UserError(
                f"workdir {workdir} holds a different run; give this one another --workdir, or start from that one's "
                f"weights with --config.init={workdir}. They differ in:\n  " + "\n  ".join(changed)
            )
    elif (workdir / "checkpoints").exists():
        raise UserError(
            f"workdir {workdir} holds checkpoints but no config.json, so it cannot be resumed; to start from its weights "
            f"use --config.init={workdir} and another --workdir"
        )
    elif primary:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(file, config)


def write_json(file: epath.Path, value: Any) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never a half."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(file)


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
