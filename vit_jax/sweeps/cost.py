"""The cost of a sweep, and every mistake in it that can be found before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax import config as configs
from vit_jax.sweeps.grid import Grid, Run, probe_config
from vit_jax.sweeps.job import evaluator_of
from vit_jax.sweeps.results import hash_of
from vit_jax.types import UserError


class Cost(NamedTuple):
    """The cost of one run: optimizer steps, training examples (repeats counted), and training FLOPs, without evaluation."""

    steps: int
    examples: int
    flops: int


def check_tasks(grid: Grid) -> tuple[dict[str, str], str]:
    """Checks the runs of every task as each run will check itself, and opens their data.

    Returns:
      {task: why its data cannot be read}, only for tasks whose data cannot; and `Sweep.weights`.

    Raises:
      UserError: a mistake in the configs or overrides, or an unreadable checkpoint, so that nothing would run.
    """
    from vit_jax.convert.load import fingerprint
    from vit_jax.run.job import MissingData

    missing, checked = {}, dict[str, Any]()
    for task in grid.sweep.tasks:
        try:
            for run in (*grid.dev_runs(task.name)[:1], grid.final_runs(task.name, grid.candidates()[0])[0]):
                (_check_probe if run.kind == "fewshot" else _check_run)(run, checked)
        except MissingData as error:
            missing[task.name] = str(error)
    weights = [fingerprint(path) for path in sorted(checked.keys() - {""})]
    return missing, hash_of(weights) if weights else ""


def _check_run(run: Run, checked: dict[str, Any]) -> None:
    from vit_jax.run.job import build_job

    draft = configs.load(run.config)
    # All tasks share the checkpoint: read it once, and take its model from the first config that it settled.
    known = checked.get(draft.init.get("path", "")) if draft.init.get("head") != "keep" else None
    config = build_job(draft, list(run.overrides), known).config
    evaluator_of(run, config.evals)
    checked[config.init.path] = configs.to_dict(config)


def _check_probe(run: Run, checked: dict[str, Any]) -> None:
    from vit_jax.convert.load import load
    from vit_jax.data.open import open_source
    from vit_jax.run.job import MissingData

    config = probe_config(run)
    if config.init not in checked:
        load(config.init, stored_pixels=True, channels=3)
        checked[config.init] = None
    try:
        for split in (config.train_split, config.test_split):
            open_source(config.dataset, split, config.data_dir)
    except UserError as error:
        raise MissingData(str(error)) from error


def cost_of(run: Run, traced: dict[str, int]) -> Cost:
    """Costs of a run whose data can be opened. Few-shot runs train nothing, and only the first one extracts features.

    Args:
      run: a run of the grid.
      traced: FLOPs of the programs traced so far, filled in here: most runs of a sweep share one program.
    """
    if run.kind == "fewshot":
        return _cost_of_probe(run)
    from vit_jax.run.job import build_job

    job = build_job(configs.load(run.config), list(run.overrides))
    key = json.dumps([job.config.model.to_dict(), job.batch_size, job.sizes])
    if key not in traced:
        traced[key] = job.parts.mean_flops(job.batch_size, job.sizes)
    examples = job.total_steps * job.batch_size
    return Cost(job.total_steps, examples, traced[key] * examples)


def _cost_of_probe(run: Run) -> Cost:
    """The examples whose features the first seed extracts, and their forward FLOPs; the other seeds read the features."""
    from vit_jax.data.open import open_source
    from vit_jax.sweeps.probe import forward_flops

    if run.after:
        return Cost(0, 0, 0)
    config = probe_config(run)
    examples = sum(
        len(open_source(config.dataset, s, config.data_dir)) for s in (config.train_split, config.test_split)
    )
    return Cost(0, examples, forward_flops(config.init, config.resolution) * examples)


def describe_state(run: Run, folder: Path, done: bool) -> str:
    """`done`, `half done, step 500` or `to do`."""
    if done:
        return "done"
    saved = [p.name for p in (run.folder(folder) / "checkpoints").glob("*") if p.name.isdigit()]
    return f"half done, step {max(map(int, saved))}" if saved else "to do"
