"""Makes a run longer: started again on its workdir with a longer `train.duration`, it continues from its last step.

If the finished steps keep their learning rates (a constant rate after a warm-up given in steps), the result equals that of a
run planned longer, and no flag is needed. Otherwise the caller must ask for the extension: the optimizer's state is kept, and
the remaining steps follow the longer schedule.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from vit_jax import config as configs
from vit_jax.files import read_json_value
from vit_jax.run.job import Job
from vit_jax.run.record import may_change, write_json
from vit_jax.train.folders import FOLDER, committed_steps
from vit_jax.train.optim import make_optimizer
from vit_jax.types import UserError

FILE = "extensions.json"


@dataclasses.dataclass(frozen=True)
class Extension:
    """How a run was made longer; one entry of `extensions.json`.

    Args:
      step: the step from which the run continued.
      old_duration, new_duration: `train.duration`.
      old_steps, new_steps: the same in steps.
      rates_changed: whether the longer schedule changes learning rates of finished steps.
      old_rate, new_rate: the learning rate of the next step in the old and the new schedule.
    """

    step: int
    old_duration: int | str
    new_duration: int | str
    old_steps: int
    new_steps: int
    rates_changed: bool
    old_rate: float
    new_rate: float

    def __str__(self) -> str:
        schedule = "the learning rates of the steps done are those of the longer run"
        if self.rates_changed:
            rates = f"{self.old_rate:.3g} -> {self.new_rate:.3g}"
            schedule = (
                f"the schedule is the longer one from here (next learning rate {rates}), the optimizer's state is kept"
            )
        return f"extended at step {self.step} from {self.old_steps} to {self.new_steps} steps; {schedule}"


def find_extension(
    job: Job, folder: epath.Path, old: dict[str, Any] | None, free: Collection[str] = (), *, asked: bool
) -> Extension | None:
    """How the requested run extends the run in the workdir; None unless `train.duration` got longer and nothing else changed.

    Args:
      job: the requested run.
      folder: its workdir.
      old: the config of the run in the workdir.
      free: further keys that may differ, see `record.check_workdir`.
      asked: the caller accepts a changed schedule.

    Raises:
      UserError: the schedule changes, and the caller did not accept that.
    """
    done = committed_steps(folder / FOLDER)
    changed = configs.differences(old, configs.to_dict(job.config)) if old and done else []
    keys = [key for line in changed if not may_change(key := line.partition(":")[0]) and key not in free]
    if old is None or keys != ["train.duration"]:
        return None
    before, after = old["train"]["duration"], job.config.train.duration
    old_steps = configs.steps(before, steps_per_epoch=job.steps_per_epoch, path="train.duration")
    if job.total_steps <= old_steps:
        return None
    old_rates, new_rates = (rates(job, total, done[-1] + 1) for total in (old_steps, job.total_steps))
    differ = np.flatnonzero(old_rates[:-1] != new_rates[:-1])
    extension = Extension(
        step=done[-1],
        old_duration=before,
        new_duration=after,
        old_steps=old_steps,
        new_steps=job.total_steps,
        rates_changed=bool(differ.size),
        old_rate=float(old_rates[-1]),
        new_rate=float(new_rates[-1]),
    )
    if differ.size and not asked:
        first = int(differ[0])
        raise UserError(
            f"train.duration is {old_steps} steps in {folder} and {job.total_steps} now: the longer schedule has other learning "
            f"rates for steps that are done (step {first + 1}: {old_rates[first]:.3g} -> {new_rates[first]:.3g}), so the result "
            f"would not be that of a longer run. --extend continues from step {done[-1]} on the longer schedule all the same, "
            f"with the optimizer's state; or give another --workdir"
        )
    return extension


def rates(job: Job, total_steps: int, count: int) -> np.ndarray:
    """Learning rates of the first `count` steps of a run of `total_steps`: float32 (count,)."""
    to_steps = functools.partial(configs.steps, steps_per_epoch=job.steps_per_epoch, total=total_steps)
    _, schedule = configs.build(make_optimizer, job.config.optim, to_steps, total_steps=total_steps)
    return np.broadcast_to(np.asarray(schedule(jnp.arange(count))), (count,))


def record_extension(folder: epath.Path, extension: Extension, config: dict[str, Any]) -> None:
    """Writes the longer run's config and an entry about the extension into the workdir."""
    file = folder / FILE
    before = read_json_value(file, advice="remove it; it is a record alone") if file.exists() else []
    write_json(file, [*before, dataclasses.asdict(extension)])
    write_json(folder / "config.json", config)
