"""Few-shot sweep: linear accuracy of a frozen representation after 1, 5, 10 and 25 examples per class (section 4.1).

    vit_jax sweep --config=configs/fewshot.py:init=ViT-B_16.npz --workdir=runs/b16_fewshot
    vit_jax sweep --config=configs/fewshot.py:init=runs/mine,sets=caltech101+dtd,shots=5+10 --workdir=runs/few

Arguments: `init` any checkpoint (required); `sets` the sets to probe, with `+` between: rows of SETS, `all` for every row, or
your own folder or TFDS name with splits train and test; `shots` examples per class, with `+` between; `seeds` draws of the
examples. Images are squashed to 8/7 of the checkpoint's resolution and the centre is cropped (256 -> 224;
`--config.resolution=384` sets another). A class with fewer
examples than requested uses all of them. Features are computed once per checkpoint and set, and kept in
WORKDIR/features. Source: big_vision's few-shot evaluator, its sets and splits; ImageNet 5-shot is the paper's running metric.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import parse_arg, parse_seeds
from vit_jax.types import UserError, nearest

# {name: (title, TFDS name, support split, scored split)}.
SETS = {
    "imagenet2012": ("ImageNet", "imagenet2012", "train[:65000]", "validation"),  # at least 30 of each class
    "caltech101": ("Caltech101", "caltech101", "train", "test"),
    "caltech_birds2011": ("Birds", "caltech_birds2011", "train", "test"),
    "cars196": ("Cars", "cars196", "train", "test"),
    "cifar100": ("CIFAR-100", "cifar100", "train", "test"),
    "colorectal_histology": ("Col-Hist", "colorectal_histology", "train[:2000]", "train[2000:]"),
    "dtd": ("DTD", "dtd", "train", "test"),
    "oxford_iiit_pet": ("Pets", "oxford_iiit_pet", "train", "test"),
    "uc_merced": ("UC-Merced", "uc_merced", "train[:1000]", "train[1000:]"),
}
DEFAULT = tuple(name for name in SETS if name != "imagenet2012")  # as published: ImageNet only on request


def choose_sets(text: str) -> list[str]:
    """Names of the requested sets."""
    if text == "all":
        return list(SETS)
    names = text.split("+") if text else list(DEFAULT)
    for name in names:
        if name.isidentifier() and name not in SETS and not Path(name).exists() and name != "digits":
            close = nearest(name, SETS)
            raise UserError(
                f"few-shot set {name!r} is none of the table; {close}; your own is a path with train/ and test/"
            )
    return names


def get_probe(text: str | None = None) -> ConfigDict:
    """The probe of one run: a checkpoint, a set, a number of shots."""
    arg = parse_arg(text, init="", dataset="caltech101", shots="1+5+10+25")
    _, dataset, train, test = SETS.get(arg.dataset, ("", arg.dataset, "train", "test"))
    return ConfigDict(
        {
            "init": arg.init,
            "dataset": dataset,
            "data_dir": "",
            "exif": "apply",
            "train_split": train,
            "test_split": test,
            "resolution": 0,
            "shots": tuple(int(k) for k in arg.shots.split("+")),
            "l2_reg": 1024.0,
            "batch_size": 128,
            "seed": 0,
        }
    )


def get_sweep(text: str | None = None) -> dict:
    """One run per set and seed."""
    arg = parse_arg(text, init="", sets="", shots="1+5+10+25", seeds="3")
    if not arg.init:
        raise UserError("few-shot probes a checkpoint: give init=PATH, as in configs/fewshot.py:init=ViT-B_16.npz")
    shots = sorted(int(k) for k in arg.shots.split("+") if k.isdigit())
    if not shots or "+".join(map(str, shots)) != arg.shots:
        raise UserError(f"shots={arg.shots}: expected numbers of examples per class, ascending, as in 1+5+10+25")
    tasks = []
    for name in choose_sets(arg.sets):
        title, dataset, *_ = SETS.get(name, (Path(name).name, name, "", ""))
        probe = f"{__file__}:init={arg.init},dataset={name},shots={arg.shots}"
        tasks.append({"name": Path(name).name, "title": title, "group": "", "dataset": dataset, "final": probe})
    return {
        "title": f"Few-shot linear accuracy, {arg.shots.replace('+', ', ')} examples per class",
        "layout": "fewshot",
        "label": Path(arg.init).name,
        "metric": f"{5 if 5 in shots else shots[-1]}shot",
        "tasks": tasks,
        "candidates": {},
        "seeds": parse_seeds(arg.seeds),
        "kind": "fewshot",
    }
