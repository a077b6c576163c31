"""Fine-tuning at higher resolution: table 4 of arXiv 2010.11929, a row per dataset, for any ViT variant.

    vit_jax train --config=configs/finetune.py:variant=B/16,dataset=cifar10,init=ViT-B_16.npz --workdir=runs/c10
    vit_jax train --config=configs/finetune.py:variant=Ti/16,dataset=FOLDER --workdir=runs/mine
    vit_jax train --config=configs/finetune.py:variant=L/16,dataset=imagenet2012,table2 --workdir=runs/l16_512
    vit_jax train --config=configs/finetune.py:variant=L/16,dataset=imagenet2012,real --workdir=runs/l16_real
    vit_jax train --config=configs/finetune.py:dataset=oxford_iiit_pet,lr=0.003,dev --workdir=runs/pets_dev
    vit_jax train --config=configs/finetune.py:dataset=FOLDER --config.init=CHECKPOINT --workdir=runs/theirs
    vit_jax train --config=configs/finetune.py:variant=B/16,dataset=cifar10,smoke --workdir=/tmp/smoke
    vit_jax sweep --config=configs/finetune.py:dataset=cifar10+cifar100,init=ViT-B_16.npz --workdir=runs/table4

Arguments: `variant` SIZE/PATCH, a hybrid (`R50+B/16`), a ResNet (`R50x1`) or `Mixer-B/16`; by default the model in `init`
(B/16 without `init`); `dataset` a row of table 4, `vtab/TASK`, your own TFDS name, a folder that holds
`train/CLASS/*.jpg`, a list of `path,label`, tar shards (`shards/train-{000..123}.tar`, or their folder), or the folder that
vit_jax prepare packed from any of them; `init` where the weights come from; `lr` one of the row's sweep (default its
third value, 0.01 for CIFAR, 0.03 for ImageNet); `crop` how training images are cropped, see below; `dev` trains on the
training set less the row's development split and scores that (to choose the LR), without it the whole training set is used and
the test split is scored; `trainval` trains on Flowers' 1,020 validation images as well; `table2` ImageNet at 512 (518 for
patch 14) pixels with Polyak averaging 0.9999; `real` scores ImageNet ReaL too, with calibration and intervals; `smoke` a minute
on any CPU, on digits (or your images). Your own images train for 20 epochs of batches of 64 at 224 pixels; set any of these with
`--config.data.resolution=384 --config.data.batch_size=512`. A list that begins with `path,labels` has sets of labels (`cat;dog`;
a sigmoid per class, scored by mean average precision), one that begins with `path,value:AGE,value:SIZE` numbers to predict.

`crop=inception` (the default) cuts out 5 to 100% of the area and resizes it to 384: the published numbers were made so, as the
authors say, although section 4.1 points to BiT's pre-processing. That is `crop=resize`: squash to 448, then cut out a random
384. `crop=resize_small` resizes the shorter side to 448 and cuts out 384; big_vision's best for CIFAR. All three flip, and all
are evaluated on the whole image, squashed to 384. VTAB's tasks have their own crops.

Dropout is 0.1 for L/16, H/14, R50+B/16 and R50+L/32 (and /16), 0 for other sizes, for AugReg's checkpoints and for VTAB, as the
released models were fine-tuned. The size is `variant`, or the one in the checkpoint's name (`imagenet21k:L/16`, ViT-L_16.npz);
a checkpoint whose name gives no size gets no dropout: `--config.model.dropout=0.1` sets it.

In a sweep, `dataset` and `lr` take several values with `+` between; the default `lr` is the row's whole sweep, each trained as
`dev`; the best is trained again on the whole training set with every seed (`seeds`, default 3) and scored on the test split.

Expected from ImageNet-21k weights (table 5): B/16 CIFAR-10 98.95, CIFAR-100 91.67, ImageNet 83.97, Flowers 99.38, Pets
94.43; L/16 99.16, 93.44, 85.15, 99.61, 94.73. Mean of three seeds; spread below 0.1 but for Pets and Flowers.
"""

import re
from pathlib import Path
from types import SimpleNamespace

from ml_collections import ConfigDict

from vit_jax.config import parse_arg, parse_rates, parse_seeds
from vit_jax.data.vtab.tasks import find_task
from vit_jax.files import read_json, read_regular
from vit_jax.models.variants import any_variant
from vit_jax.types import UserError, nearest

TITLES = {
    "imagenet2012": "ImageNet",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "oxford_iiit_pet": "Pets",
    "oxford_flowers102": "Flowers-102",
}
# Table 4: (steps, LRs swept, dev split as a share of train, warm-up, test split). Always: SGD momentum 0.9, batch 512, cosine,
# no weight decay, clip at global norm 1, 384 pixels. The warm-up follows the reference transfers: 500, and 100 for 500 steps.
ROWS = {
    "imagenet2012": (20_000, (0.003, 0.01, 0.03, 0.06), 1, 500, "validation"),
    "cifar100": (10_000, (0.001, 0.003, 0.01, 0.03), 2, 500, "test"),
    "cifar10": (10_000, (0.001, 0.003, 0.01, 0.03), 2, 500, "test"),
    "oxford_iiit_pet": (500, (0.001, 0.003, 0.01, 0.03), 10, 100, "test"),
    "oxford_flowers102": (500, (0.001, 0.003, 0.01, 0.03), 10, 100, "test"),
}
OWN = (500, (0.001, 0.003, 0.01, 0.03), 10, 100, "test")  # any other TFDS name uses the row of the small data sets
VTAB = (2_500, (0.01,), 0, 200, "")  # 2,500 steps at 0.01; 200 development examples

# How training images are cropped: {crop: recipe of vit_jax.data.image.recipes}.
CROPS = {"inception": "pretrain", "resize": "finetune", "resize_small": "finetune_small"}

# The sizes that the release fine-tunes with dropout; R50+L/16 was not released and is treated like them.
DROPOUT = {"L/16": 0.1, "H/14": 0.1, "R50+B/16": 0.1, "R50+L/32": 0.1, "R50+L/16": 0.1}

# Reassessed labels of the validation images (arXiv 2006.07159), in tables 2 and 5.
REAL: dict = {
    "name": "scorecard",
    "dataset": "imagenet2012_real",
    "split": "validation",
    "every": "10%",
    "batch_size": 512,
}

# How a VTAB task's training may change an image: (recipe, flip).
VTAB_RECIPES = {
    "crop_flip": ("finetune", True),
    "crop": ("finetune", False),
    "flip": ("resize_flip", True),
    "none": ("eval", False),
}


def parse(text: str | None) -> SimpleNamespace:
    """Parses the arguments of get_config."""
    arg = parse_arg(
        text,
        variant="",
        dataset="cifar10",
        init="",
        lr=0.0,
        crop="inception",
        dev=False,
        trainval=False,
        table2=False,
        real=False,
        smoke=False,
    )
    if arg.crop not in CROPS:
        raise UserError(f"crop={arg.crop}: {nearest(arg.crop, CROPS)}")
    if arg.crop != "inception" and arg.dataset.startswith("vtab/"):
        raise UserError(
            f"crop={arg.crop}: each VTAB task has a crop of its own; leave it out, or set --config.data.recipe"
        )
    if arg.trainval and (arg.dataset != "oxford_flowers102" or arg.dev):
        raise UserError(
            "trainval adds Flowers' validation images to the final run's training set; leave it out elsewhere"
        )
    if arg.table2 and arg.dataset != "imagenet2012":
        raise UserError(
            f"table2 is the ImageNet set-up of table 2; with dataset={arg.dataset} set --config.data.resolution"
        )
    if arg.real and arg.dataset != "imagenet2012":
        raise UserError(f"real scores the labels of ImageNet ReaL; with dataset={arg.dataset} leave it out")
    return arg


def get_config(text: str | None = None) -> ConfigDict:
    """One row of table 4; see the module's docstring."""
    arg = parse(text)
    dataset, row, (train, test) = choose_data(arg.dataset, arg.dev)
    train = f"{train}+validation" if arg.trainval else train
    steps, rates, _, warmup, _ = row
    if arg.lr and arg.lr not in rates:
        raise UserError(f"lr={arg.lr}: table 4 sweeps {rates} here; --config.optim.lr sets any other")
    model = any_variant(arg.variant or "B/16")
    pixels = 512 if arg.table2 else 384
    patch = model.get("patch_size", (1, 1)) if model.get("stem") is None else (32, 32)

    config = ConfigDict()
    config.model = {**model, "num_classes": None, "head_bias": 0.0, "dtype": None}
    if model["name"] == "vit":
        dropout = 0.0 if dataset.startswith("vtab/") else choose_dropout(arg.variant, arg.init)
        config.model.update({"representation_size": 0, "dropout": dropout, "scan": None})
    config.data = {
        "dataset": dataset,
        "split": train,
        "recipe": CROPS[arg.crop],
        # The nearest multiple of the patch: 384 for 16 and 32; for 14, 378, or 518 with table2, as in the paper.
        "resolution": tuple(518 if arg.table2 and p == 14 else pixels // p * p for p in patch),
        "batch_size": 512,
    }
    config.objective = {"name": "softmax"}
    config.optim = {
        "name": "sgd",
        "lr": arg.lr or rates[min(2, len(rates) - 1)],
        "momentum": 0.9,
        "decay": "cosine",
        "warmup": f"{warmup} steps",
        "weight_decay": 0.0,
        "clip_norm": 1.0,
    }
    config.train = {
        "duration": f"{steps} steps",
        "log_every": "50 steps",
        "average_decay": 0.9999 if arg.table2 else 0.0,
    }
    name = "dev" if arg.dev else "test"
    config.evals = {name: {"name": "classification", "split": test, "every": "10%", "batch_size": 512}}
    if arg.real:
        config.evals.real = REAL
    config.checkpoint = {
        "every": "500 steps",
        "keep_best": 1 if arg.dev else 0,
        "best_metric": "eval/dev/top1" if arg.dev else "",
    }
    config.init = {"path": arg.init, "head": "zeros", "architecture": "config" if arg.variant else "source"}
    config.seed = 0
    if dataset.startswith("vtab/"):
        config.data.recipe, config.data.flip = VTAB_RECIPES[find_task(dataset).augmentation]
    if is_own(dataset):
        own_images(config, patch)
        own_columns(config, own_header(dataset))
    return smoke(config, patch) if arg.smoke else config


def get_sweep(text: str | None = None) -> dict:
    """Table 4's grid for one data set or several: the LR chosen on the development split, then the final runs."""
    arg = parse_arg(
        text, variant="", dataset="cifar10", init="", lr="", crop="inception", seeds="3", table2=False, smoke=False
    )
    names = [arg.dataset] if is_own(arg.dataset) else arg.dataset.split("+")
    grids = [choose_data(name, False)[1][1] for name in names]
    if not arg.lr and len(set(grids)) > 1:
        raise UserError(f"dataset={arg.dataset}: table 4 sweeps other rates for some; give lr=, or a sweep each")
    flags = "".join(f",{flag}" for flag in ("table2", "smoke") if getattr(arg, flag))
    tasks = []
    for name in names:
        # get_config parses the arguments of each config now, so that mistakes in them are reported before anything runs.
        spec = f"{__file__}:dataset={name},init={arg.init},variant={arg.variant},crop={arg.crop}{flags}"
        title = TITLES.get(name, Path(name).name)
        task = Path(name).name if is_own(name) else name.replace("/", "-")
        tasks.append({"name": task, "title": title, "group": "", "dataset": name, "dev": f"{spec},dev", "final": spec})
    rates = parse_rates(arg.lr) if arg.lr else grids[0]
    return {
        "title": "Fine-tuning: the learning rate chosen on the development split (table 4)",
        "layout": "transfer" if set(names) <= set(TITLES) else "list",
        "label": Path(arg.init).name or f"{arg.variant or 'B/16'}, from scratch",
        "metric": "top1",
        "tasks": tasks,
        "candidates": {"optim.lr": rates},
        "seeds": parse_seeds(arg.seeds),
    }


def is_own(dataset: str) -> bool:
    """Whether a data set is a path (the user's folder, list, tar shards or packed folder) and not a name."""
    place = Path(dataset).expanduser()
    # A folder such as cifar10/3.0.2 was prepared by TFDS; the command may run beside it.
    return dataset.endswith(".tar") or (place.exists() and not any(place.glob("*.*.*/dataset_info.json")))


def own_splits(dataset: str) -> set[str]:
    """Names of the splits in the user's images."""
    place = Path(dataset).expanduser()
    packed = place / "dataset_info.json"
    if packed.exists():
        splits = read_json(packed).get("splits")
        return (
            {str(split.get("name")) for split in splits if isinstance(split, dict)}
            if isinstance(splits, list)
            else set()
        )
    pattern = place.parent.glob(re.sub(r"\{.*\}", "*", place.name)) if dataset.endswith(".tar") else place.glob("*.tar")
    shards = [] if (place / "train").is_dir() else [path.stem for path in pattern]
    if shards:  # named after their splits, `train-000.tar`: the same words as in vit_jax.data.formats.folders
        return {word for name in shards for word in re.findall("[a-z]+", name)}
    if place.is_dir():
        return {p.name for p in place.iterdir() if p.is_dir()}
    try:
        lines = read_regular(place).decode(errors="replace").splitlines()
    except OSError:
        return set()  # opening the list reports the error
    return {fields[2].strip() for fields in (re.split("[,\t]", line) for line in lines) if len(fields) == 3}


def own_images(config: ConfigDict, patch: tuple[int, int]) -> None:
    """Table 4 for the user's own images: fewer pixels and a smaller batch, so that a laptop can run it too."""
    config.data.update({"resolution": tuple(224 // p * p for p in patch), "batch_size": 64})
    config.optim.warmup = "10%"
    config.train.update({"duration": "20 epochs", "log_every": "10 steps"})
    config.checkpoint.every = "10%"
    for section in config.evals.values():
        section.batch_size = 64


def own_header(dataset: str) -> list[str]:
    """The fields of a list's first line; [] for anything else."""
    if Path(dataset).suffix.lower() not in (".csv", ".tsv", ".txt"):
        return []
    try:
        lines = read_regular(Path(dataset).expanduser()).decode("utf-8-sig", errors="replace").splitlines()
    except OSError:
        return []  # opening the list reports the error
    return [field.strip() for field in re.split("[,\t]", lines[0])] if lines else []


def own_columns(config: ConfigDict, header: list[str]) -> None:
    """The objective and the evaluator of a list of sets of labels or of numbers."""
    name = next(iter(config.evals))
    for objective, evaluator, metric, begins in (
        ("sigmoid", "multilabel", "map", header[1:2] == ["labels"]),
        ("regression", "regression", "r2", len(header) > 1 and header[1].startswith("value:")),
    ):
        if begins:
            config.objective = {"name": objective}
            config.evals[name].name = evaluator
            config.checkpoint.best_metric = f"eval/{name}/{metric}" if config.checkpoint.best_metric else ""


def choose_data(dataset: str, dev: bool) -> tuple[str, tuple, tuple[str, str]]:
    """(TFDS name or folder, row of table 4, (training split, scored split))."""
    if dataset.startswith("vtab/"):
        find_task(dataset)
        return dataset, VTAB, ("train800", "val200") if dev else ("train800val200", "test")
    row = ROWS.get(dataset, OWN)
    _, _, percent, _, test = row
    kept, held_out = f"train[:{100 - percent}%]", f"train[{100 - percent}%:]"
    if is_own(dataset):
        kept, held_out = "train_kept", "train_held_out"  # a tenth of each class: vit_jax.data.formats.held_out
        test = next((s for s in ("test", "validation", "valid", "val", "dev") if s in own_splits(dataset)), held_out)
    if dev or test == held_out:
        return dataset, row, (kept, held_out)
    return dataset, row, ("train", test)


def choose_dropout(variant: str, init: str) -> float:
    """The release's dropout for a size, or for the size in a checkpoint's name."""
    name = Path(init).name
    if init.startswith("augreg:") or "-aug_" in name:  # arXiv 2106.10270 fine-tunes without dropout
        return 0.0
    released = re.fullmatch(r"((?:R\d+\+)?)ViT-(\w)_(\d+)(?:-\d+)?(?:\.npz)?", name)
    said = f"{released[1]}{released[2]}/{released[3]}" if released else init.partition(":")[2]
    return DROPOUT.get(variant or said.removesuffix("-224"), 0.0)


# The values that make each family small.
TINY: dict[str, dict] = {
    "vit": {"width": 64, "depth": 2, "mlp_dim": 128, "num_heads": 2, "scan": False},
    "mixer": {"width": 64, "depth": 2, "tokens_mlp_dim": 32, "channels_mlp_dim": 128},
    "resnet": {"depths": (1, 1)},
}


def smoke(config: ConfigDict, patch: tuple[int, int]) -> ConfigDict:
    """Shrinks model, data and length, and keeps the row's optimizer, schedule, recipe and head."""
    config.model.update({**TINY[config.model.name], "dtype": "float32"})
    side = tuple(3 * p if p > 1 else 32 for p in patch)
    if config.model.get("stem") == "resnet":
        config.model.stem_depths, side = (1,) * len(config.model.stem_depths), (64, 64)
    config.data.update({"resolution": side, "batch_size": 64})
    if not is_own(config.data.dataset):  # the user's own images exist; other data may be missing
        name = next(iter(config.evals))
        train, test = ("train[:90%]", "train[90%:]") if name == "dev" else ("train", "test")
        config.data.update({"dataset": "digits", "split": train})
        scored = {name: {"name": "classification", "split": test}}
        if "real" in config.evals:
            scored["real"] = {**REAL, "dataset": "digits", "split": "test"}
        config.evals = scored
    for section in config.evals.values():
        section.update({"every": "16 steps", "batch_size": 64})
    config.optim.warmup = "25%"
    config.train.update({"duration": "16 steps", "log_every": "4 steps"})
    config.checkpoint.update({"every": "8 steps", "keep_best": 0, "best_metric": ""})
    return config
