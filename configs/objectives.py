"""What pre-training is worth where few images have labels: one column per checkpoint, judged in three ways.

    vit_jax sweep --config=configs/objectives.py:inits=scratch+runs/simmim+runs/mae+runs/patches --workdir=runs/tuned
    vit_jax sweep --config=configs/objectives.py:inits=runs/simmim+runs/mae+runs/patches,judge=linear --workdir=runs/linear
    vit_jax sweep --config=configs/objectives.py:inits=runs/simmim+runs/mae+runs/patches,judge=fewshot --workdir=runs/few
    vit_jax report runs/tuned runs/linear runs/few --to=runs/objectives
    vit_jax train --config=configs/objectives.py:init=runs/mae,labelled=500 --workdir=runs/tuned_mae
    vit_jax train --config=configs/objectives.py:smoke --workdir=/tmp/smoke

Arguments of a sweep: `inits` checkpoints with `+` between, `scratch` for none; a column is called by its folder's name; `judge`
finetune (all layers), linear (logistic regression on the mean over the patches) or fewshot (ridge regression on 5 images of
each class); `seeds` how many. Of both: `dataset` fashion_mnist or digits; `labelled` the images with labels, the first of the
training set; `variant` the model trained from scratch, which must be that of the checkpoints. Of a run: `init` one checkpoint,
`scratch` for none; `smoke` a few steps.

All columns are fine-tuned alike: AdamW, 60 epochs of the labelled images, batches of 64, cosine from 1e-3, weight decay 0.05,
crops of 90% and more, a head on the mean over the patches. Nothing is chosen on the test images, which score the last step alone.

Published, ViT-B/16 fine-tuned on ImageNet (arXiv 2010.11929, B.1.2 and table 5): 77.9% from scratch, 79.9% after masked
prediction of mean colours, 84.0% after supervised pre-training on ImageNet-21k. `configs/masked.py` has the objectives.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, nearest, parse_arg, parse_seeds, run_file
from vit_jax.types import UserError

HERE = Path(__file__).parent
JUDGES = {
    "finetune": ("fine-tuned", "top1"),
    "linear": ("linear probe", "top1"),
    "fewshot": ("few-shot", "5shot"),
}
LR = 1e-3
DATASETS = ("fashion_mnist", "digits")


def get_config(text: str | None = None) -> ConfigDict:
    """Fine-tuning of one checkpoint on a few labelled images."""
    arg = parse_arg(text, init="scratch", dataset="fashion_mnist", labelled=1000, variant="Nano/8", smoke=False)
    if arg.dataset not in DATASETS:
        raise UserError(f"dataset={arg.dataset}: {nearest(arg.dataset, DATASETS)}")
    config = load(f"{HERE / 'pretrain.py'}:variant={arg.variant},dataset={arg.dataset}{',smoke' if arg.smoke else ''}")
    config.model.update({"pool": "gap", "class_token": "yes"})
    config.init = {"path": "" if arg.init == "scratch" else arg.init}
    if arg.smoke:
        return config
    config.data.split = f"train[:{arg.labelled}]"
    config.optim.update({"lr": LR, "warmup": "10%"})
    config.train.duration = "60 epochs"
    config.evals.test.every = "100%"
    config.checkpoint.every = "50%"
    return config


def get_probe(text: str | None = None) -> ConfigDict:
    """The probe of one checkpoint's frozen features."""
    arg = parse_arg(text, init="", dataset="fashion_mnist", labelled=1000, judge="linear")
    probe = {"linear": "linear.py:pool=mean", "fewshot": "fewshot.py:shots=5"}[arg.judge]
    file, _, words = probe.partition(":")
    config = run_file(str(HERE / file))["get_probe"](f"init={arg.init},dataset={arg.dataset},{words}")
    config.train_split = f"train[:{arg.labelled}]"
    if arg.judge == "linear":
        config.evaluator.recipe = "eval"
    return config


def get_sweep(text: str | None = None) -> dict:
    """One run per checkpoint and seed."""
    arg = parse_arg(
        text, inits="", judge="finetune", dataset="fashion_mnist", labelled=1000, variant="Nano/8", seeds="3"
    )
    if arg.judge not in JUDGES:
        raise UserError(f"judge={arg.judge}: {nearest(arg.judge, JUDGES)}")
    inits = arg.inits.split("+") if arg.inits else []
    if not inits or (arg.judge != "finetune" and "scratch" in inits):
        raise UserError(
            f"inits={arg.inits}: expected checkpoints with + between, as in inits=scratch+runs/mae; frozen features need one, "
            "so scratch goes with judge=finetune alone"
        )
    shared = f"dataset={arg.dataset},labelled={arg.labelled}"
    own = f"variant={arg.variant}" if arg.judge == "finetune" else f"judge={arg.judge}"
    tasks = []
    for init in inits:
        spec = f"{__file__}:init={init},{shared},{own}"
        name = Path(init).name
        tasks.append({"name": name, "title": name, "group": "", "dataset": arg.dataset, "final": spec})
    label, metric = JUDGES[arg.judge]
    return {
        "title": f"Objectives of pre-training, {arg.labelled:,} labelled images",
        "layout": "objectives",
        "label": label,
        "metric": metric,
        "tasks": tasks,
        "candidates": {"optim.lr": (LR,)} if arg.judge == "finetune" else {},
        "seeds": parse_seeds(arg.seeds),
        **({} if arg.judge == "finetune" else {"kind": "fewshot"}),
    }
