"""configs/vtab.py with splits that fit generated data: 32 examples in place of thousands, the builders and labels as they are.

Runs read this file before they open data, so that their table of tasks is the small one too.
"""

import runpy
from pathlib import Path

from vit_jax.data.vtab.tasks import TASKS

VTAB = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "vtab.py"))

for name, task in TASKS.items():
    if "[:800]" in task.train800:  # once a process
        val, test = task.val200.split("[")[0], task.test.split("[")[0]
        TASKS[name] = task._replace(train800="train[:16]", val200=f"{val}[16:24]", test=f"{test}[24:]")


def get_config(text=None):
    """As configs/vtab.py."""
    return VTAB["get_config"](text)


def get_sweep(text=None):
    """As configs/vtab.py, of runs that read this file."""
    sweep = VTAB["get_sweep"](text)
    for task in sweep["tasks"]:
        for phase in ("dev", "final"):
            task[phase] = f"{__file__}:{task[phase].partition(':')[2]}"
    return sweep
