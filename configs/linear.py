"""Linear probe or nearest neighbours on a checkpoint's frozen features, as self-supervised models are judged.

    vit_jax sweep --config=configs/linear.py:init=runs/mae,sets=imagenet2012,pool=token --workdir=runs/mae_linear
    vit_jax sweep --config=configs/linear.py:init=runs/simmim,layers=6+8+12,pool=mean --workdir=runs/simmim_linear
    vit_jax sweep --config=configs/linear.py:init=ViT-B_16.npz,probe=knn,sets=cifar10+FOLDER --workdir=runs/knn

Arguments: `init` any checkpoint (required); `probe` linear (logistic regression until it converges) or knn (the weighted vote
of DINO, k = 10, 20, 100 and 200); `sets` ImageNet by default, or names of data sets and folders with `+` between, with splits
train and test (of ImageNet, validation); `layers` blocks whose tokens are read, with `+` between, 0 for what the head reads;
`pool` the class token (`token`), the mean over patches (`mean`), or the model's own `representation`; `seeds` how many.

Images keep their aspect and the centre is cropped (256 -> 224, `--config.evaluator.recipe=eval` squashes them). The keys of
`evaluator` are those of `vit_jax.evals.linear.LinearProbe` and `neighbours.NearestNeighbours`:
`--config.evaluator.solver=sgd --config.evaluator.lr=0.03` takes SGD's steps, `--config.evaluator.l2_reg=100` shrinks the
weights.

Published: MAE B/16 68.0, L/16 75.8, H/14 76.6 on ImageNet (MAE's LINPROBE.md: class token, batch norm before the head, LARS
with random crops); SimMIM's authors read the mean over patches of block 8 of 12. Features are computed once here, from images
that are not augmented. `configs/finetune.py:... --config.optim.freeze=*,!head/*` trains the head on augmented images.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import parse_arg, parse_seeds
from vit_jax.types import UserError, nearest

TITLES = {"imagenet2012": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "oxford_iiit_pet": "Pets"}
TESTS = {"imagenet2012": "validation"}
PROBES = {
    "linear": {
        "normalize": "batch",
        "solver": "lbfgs",
        "l2_reg": 1.0,
        "iterations": 1000,
        "lr": 0.1,
        "epochs": 90,
        "sgd_batch": 1024,
    },
    "knn": {"neighbours": (10, 20, 100, 200), "temperature": 0.07},
}
METRICS = {"linear": "top1", "knn": "20nn"}


def get_probe(text: str | None = None) -> ConfigDict:
    """The probe of one run: a checkpoint, a set, a layer."""
    arg = parse_arg(text, init="", dataset="imagenet2012", probe="linear", layer=0, pool="representation")
    if arg.probe not in PROBES:
        raise UserError(f"probe={arg.probe}: {nearest(arg.probe, PROBES)}")
    if arg.layer and arg.pool == "representation":
        raise UserError(f"layers={arg.layer}: choose pool=token or pool=mean for a block's tokens")
    chosen = {"layer": arg.layer, "pool": arg.pool, "recipe": "eval_crop"}
    return ConfigDict(
        {
            "init": arg.init,
            "dataset": arg.dataset,
            "data_dir": "",
            "exif": "apply",
            "train_split": "train",
            "test_split": TESTS.get(arg.dataset, "test"),
            "resolution": 0,
            "batch_size": 128,
            "seed": 0,
            "evaluator": {"name": arg.probe, **chosen, **PROBES[arg.probe]},
        }
    )


def get_sweep(text: str | None = None) -> dict:
    """One run per set and layer."""
    arg = parse_arg(text, init="", sets="imagenet2012", probe="linear", layers="0", pool="representation", seeds="1")
    if not arg.init:
        raise UserError("a probe needs a checkpoint: give init=PATH, as in configs/linear.py:init=ViT-B_16.npz")
    layers = arg.layers.split("+")
    if not all(layer.isdecimal() for layer in layers):
        raise UserError(f"layers={arg.layers}: expected numbers of blocks, 0 for the last tokens, as in 6+8+12")
    tasks = []
    for dataset in arg.sets.split("+"):
        for layer in layers:
            spec = f"init={arg.init},dataset={dataset},probe={arg.probe},layer={layer},pool={arg.pool}"
            get_probe(spec)  # reports mistakes now
            title = TITLES.get(dataset, Path(dataset).name) + (f", block {layer}" if layer != "0" else "")
            name = Path(dataset).name + (f"-block{layer}" if layer != "0" else "")
            tasks.append({"name": name, "title": title, "group": "", "dataset": dataset, "final": f"{__file__}:{spec}"})
    return {
        "title": {"linear": "Linear probe of frozen features", "knn": "Nearest neighbours of frozen features"}[
            arg.probe
        ],
        "layout": "list",
        "label": Path(arg.init).name,
        "metric": METRICS[arg.probe],
        "tasks": tasks,
        "candidates": {},
        "seeds": parse_seeds(arg.seeds),
        "kind": "fewshot",
    }
