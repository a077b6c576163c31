"""Facts that all processes of one run must share: config, code, packages, data, and the step they start from.

Processes that differ in one of these would train anyway: each takes its part in every collective, and the replicas drift
apart silently.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_jax import config as configs
from vit_jax.convert.load import fingerprint
from vit_jax.data.likeness import likeness
from vit_jax.run import record
from vit_jax.run.job import Job
from vit_jax.train.folders import FOLDER, committed_steps

# Keys that each machine may set for itself. The data's location is one of them; the data's content is compared.
OWN = ("data.data_dir", "data.prefetch", "data.threads", "data.workers", "evals.*.data_dir")


def facts(job: Job, workdir: Any) -> dict[str, Any]:
    """{name: JSON value} of everything that must be equal in all processes that start in `workdir`."""
    config = {
        f"config.{key}": value
        for key, value in _flat(configs.to_dict(job.config)).items()
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in OWN)
    }
    git = record.git_state()
    path = job.config.init.path
    return {
        **config,
        "code": f"{git.get('commit', 'no commit')[:12]}{', modified' if git.get('modified') else ''}, {hash_of_sources()}",
        **{f"version of {name}": version for name, version in record.versions().items()},
        "data (hash of labels, names and some examples)": likeness(job.source),
        "splits (name, split, examples, classes)": [
            [s.name, s.split, s.num_examples, s.num_classes] for s in job.specs
        ],
        "files of the checkpoint to start from": [list(file[:2]) for file in fingerprint(path)] if path else [],
        "workdir": str(workdir.absolute()),
        "checkpoints in it": committed_steps(workdir / FOLDER),
        "a finished run in it": (workdir / "run.json").exists(),
    }


def hash_of_sources() -> str:
    """A hash of every Python source file of `vit_jax`."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _flat(section: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat
