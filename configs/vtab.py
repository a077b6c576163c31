"""VTAB-1k: 19 tasks of 1,000 training images each (tables 2 and 9 of arXiv 2010.11929, figure 2).

    vit_jax sweep --config=configs/vtab.py:init=ViT-B_16.npz --workdir=runs/vtab_b16
    vit_jax sweep --config=configs/vtab.py:init=ViT-B_16.npz,lr=0.003+0.01+0.03,seeds=1 --workdir=runs/vtab_lr
    vit_jax sweep --config=configs/vtab.py:variant=S/16,tasks=cifar100+dtd --workdir=runs/scratch
    vit_jax sweep --config=configs/vtab.py:init=ViT-B_16.npz,protocol=light --workdir=runs/vtab_light
    vit_jax train --config=configs/vtab.py:init=ViT-B_16.npz,task=cifar100 --workdir=runs/one_task

Arguments: `init` and `variant` as in configs/finetune.py; `tasks` (default: all 19) and `lr` (default: 0.01) take several values
with `+` between; `seeds` their number (default: 3); `protocol` `paper` or `light`; `task` the task of a single run, which with
`dev` is trained on train800 and scored on val200.

`paper`: SGD, 2,500 steps of batch 512, warm-up 200, cosine, clip 1, 384 pixels, each task's augmentation. Several learning
rates are compared on val200; the best is trained again on train800val200 with every seed, and scored on the test split.
`light`: the lighter protocol of the benchmark's own script: 1,000 steps of batch 64 at 224 pixels, warm-up 80, the rate
divided by ten after 30, 60 and 90% of the run, no augmentation, no clipping, no dropout. It trains on the first 1,000 images
of train and validation in the order in which TFDS reads its files (16 at a time, 16 examples of each in turn: in sNORB, 504
images come from train and 496 from validation). `paper` trains on other images. Differences from that script: the value range
stays the model's [-1, 1], and every test image is scored.

Expected, mean over 19 (table 2): ViT-L/16 from ImageNet-21k 72.72, H/14 from JFT 77.63.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import parse_arg, parse_rates, parse_seeds
from vit_jax.data.vtab.tasks import FIRST_1000, PREFIX, TASKS, find_task
from vit_jax.types import UserError

PROTOCOLS = {
    "paper": "2,500 steps of batch 512 at 384 pixels",
    "light": "1,000 steps of batch 64 at 224 pixels, no augmentation",
}


def get_config(text: str | None = None) -> ConfigDict:
    """One task; see the module's docstring."""
    arg = parse_arg(text, init="", variant="", task="cifar100", dev=False, protocol="paper")
    if arg.protocol not in PROTOCOLS:
        raise UserError(f"protocol={arg.protocol}: expected one of {', '.join(PROTOCOLS)}")
    finetune = runpy.run_path(str(Path(__file__).with_name("finetune.py")))["get_config"]
    own = (
        f"dataset={PREFIX}{arg.task}" + (f",variant={arg.variant}" if arg.variant else "") + (",dev" if arg.dev else "")
    )
    config = finetune(f"{own},init={arg.init}")
    if arg.protocol == "light":
        patch = config.model.get("patch_size", (1, 1)) if config.model.get("stem") is None else (32, 32)
        config.data.update({"recipe": "eval", "flip": False, "batch_size": 64})
        config.data.resolution = tuple(224 // p * p for p in patch)
        if not arg.dev:
            config.data.split = FIRST_1000
        config.optim.update({"decay": "staircase", "warmup": "80 steps", "clip_norm": 0.0})
        config.train.duration = "1000 steps"
    return config


def get_sweep(text: str | None = None) -> dict:
    """The benchmark, or some of its tasks."""
    arg = parse_arg(text, init="", variant="", tasks="", lr="0.01", seeds="3", protocol="paper")
    if not arg.init and not arg.variant:
        raise UserError("VTAB transfers a model: give init=PATH, or variant=SIZE/PATCH to train one from scratch")
    names = arg.tasks.split("+") if arg.tasks else list(TASKS)
    tasks = []
    for name in names:
        task = find_task(name)
        spec = f"{__file__}:task={name},init={arg.init},variant={arg.variant},protocol={arg.protocol}"
        shown = {"name": name, "title": task.title, "group": task.group, "dataset": PREFIX + name}
        tasks.append({**shown, "dev": f"{spec},dev", "final": spec})
    if arg.protocol not in PROTOCOLS:
        raise UserError(f"protocol={arg.protocol}: expected one of {', '.join(PROTOCOLS)}")
    return {
        "title": f"VTAB-1k: {PROTOCOLS[arg.protocol]}",
        "layout": "vtab",
        "label": Path(arg.init).name or f"{arg.variant}, from scratch",
        "metric": "top1",
        "tasks": tasks,
        "candidates": {"optim.lr": parse_rates(arg.lr)},
        "seeds": parse_seeds(arg.seeds),
        "tasks_in_mean": len(TASKS),
    }
