"""Pre-training from scratch: table 3 of arXiv 2010.11929, a row per (variant, dataset), for every architecture of the paper.

    vit_jax train --config=configs/pretrain.py:variant=B/16,dataset=imagenet21k --workdir=runs/b16_i21k
    vit_jax train --config=configs/pretrain.py:variant=L/16,dataset=jft,epochs=14 --workdir=runs/l16_jft
    vit_jax train --config=configs/pretrain.py:variant=B/32,dataset=imagenet2012 --workdir=runs/b32_i1k
    vit_jax train --config=configs/pretrain.py:variant=B/16,dataset=imagenet2012,real --workdir=runs/b16_real
    vit_jax train --config=configs/pretrain.py:variant=B/16,dataset=imagenet21k,fewshot --workdir=runs/b16_5shot
    vit_jax train --config=configs/pretrain.py:variant=B/16,dataset=imagenet21k,augreg=medium1 --workdir=runs/augreg
    vit_jax train --config=configs/pretrain.py:variant=R50+B/16,dataset=jft --workdir=runs/r50_b16_jft
    vit_jax train --config=configs/pretrain.py:variant=R50x2,dataset=jft --workdir=runs/r50x2_jft
    vit_jax train --config=configs/pretrain.py:variant=Mixer-B/16,dataset=imagenet2012 --workdir=runs/mixer_b16
    vit_jax train --config=configs/pretrain.py:variant=Nano/7,dataset=fashion_mnist --workdir=runs/fashion
    vit_jax train --config=configs/pretrain.py:variant=B/16,dataset=imagenet21k,smoke --workdir=/tmp/smoke

Arguments: `variant` SIZE/PATCH for a ViT, or a hybrid, ResNet or Mixer as above; `dataset` imagenet21k, jft, imagenet2012,
fashion_mnist, digits, or your own TFDS name or image folder (then the ImageNet row applies, with softmax); `epochs` one of
the row's values; `augreg` none, light1, light2, medium1, medium2, strong1 or strong2 adds that RandAugment and mixup of
arXiv 2106.10270; `fewshot` scores 5-shot linear ImageNet accuracy as well, the paper's running metric (section 4.1);
`real` scores ImageNet ReaL as well, with calibration and intervals, for imagenet2012; `smoke` the row's loss, head, optimizer
and model family in a minute on any CPU, on digits.

During pre-training, images are evaluated as published: the shorter side resized to 256, the middle 224 cut out. On ImageNet each
class's sigmoid target lies 1e-4 inside [0, 1], as the authors trained.

`augreg` adds only AugReg's augmentation. Everything else stays the row's: its learning rate, epochs, weight decay, dropout,
and on ImageNet-21k and JFT its linear decay without clipping. configs/augreg.py has AugReg's other settings (cosine, 300 epochs,
clip 1, weight decay 0.1 or 0.03, no dropout, no representation layer).

Table 3 has ViTs on every data set, but hybrids and ResNets on JFT only. On other data a hybrid uses the row of the ViT of its
size, and so does a Mixer, which comes from another paper (arXiv 2105.01601) and has no dropout here; a ResNet uses L's row, which
is not from the paper.

Expected, as published (table 5, fine-tuned ImageNet top-1): ImageNet 300 epochs B/16 77.91, B/32 73.38, L/16 76.53;
ImageNet-21k 90 epochs B/16 83.97, L/16 85.15. Hardware there: TPUv3, 0.23k core-days for L/16 on ImageNet-21k (table 2).
"""

import math
import re

from ml_collections import ConfigDict

from vit_jax.config import nearest, parse_arg
from vit_jax.models.variants import any_variant
from vit_jax.types import UserError

# Table 3: (epochs, base LR, decay, weight decay, dropout, clip norm). Always: Adam, batch 4096, warm-up 10k steps, 224 pixels.
JFT = {
    "B/16": ((7,), 8e-4, "linear", 0.1, 0.0, 0.0),
    "B/32": ((7,), 8e-4, "linear", 0.1, 0.0, 0.0),
    "L/32": ((7,), 6e-4, "linear", 0.1, 0.0, 0.0),
    "L/16": ((7, 14), 4e-4, "linear", 0.1, 0.0, 0.0),
    "H/14": ((14,), 3e-4, "linear", 0.1, 0.0, 0.0),
    "R50x1": ((7,), 1e-3, "linear", 0.1, 0.0, 0.0),
    "R50x2": ((7,), 1e-3, "linear", 0.1, 0.0, 0.0),
    "R101x1": ((7,), 8e-4, "linear", 0.1, 0.0, 0.0),
    "R152x1": ((7,), 6e-4, "linear", 0.1, 0.0, 0.0),
    "R152x2": ((7,), 6e-4, "linear", 0.1, 0.0, 0.0),
    "R200x3": ((14,), 6e-4, "linear", 0.1, 0.0, 0.0),  # not in table 3: table 6's epochs, R152's rate
    "R50+B/16": ((7,), 8e-4, "linear", 0.1, 0.0, 0.0),
    "R50+B/32": ((7,), 8e-4, "linear", 0.1, 0.0, 0.0),
    "R50+L/32": ((7,), 2e-4, "linear", 0.1, 0.0, 0.0),
    "R50+L/16": ((7, 14), 4e-4, "linear", 0.1, 0.0, 0.0),
}
IMAGENET21K = {
    "B/16": ((90,), 1e-3, "linear", 0.03, 0.1, 0.0),
    "B/32": ((90,), 1e-3, "linear", 0.03, 0.1, 0.0),
    "L/16": ((30, 90), 1e-3, "linear", 0.03, 0.1, 0.0),
    "L/32": ((30, 90), 1e-3, "linear", 0.03, 0.1, 0.0),
}
IMAGENET = ((300,), 3e-3, "cosine", 0.3, 0.1, 1.0)  # "ViT-*": every variant

# Variants outside table 3 use the row of the nearest variant in it.
NEAREST_ROW = {
    "Nano": "B/16",
    "Ti": "B/16",
    "S": "B/16",
    "B": "B/16",
    "L": "L/16",
    "H": "H/14",
    "g": "H/14",
    "G": "H/14",
    "R26": "R50x1",
    "R50": "R50x2",
    "R101": "R101x1",
    "R152": "R152x2",
    "R200": "R200x3",
}

# {dataset: (TFDS name, classes, (training split, held-out split), loss)}.
DATASETS = {
    "jft": ("jft_300m", 18291, ("train", "validation"), "sigmoid"),
    "imagenet21k": ("imagenet21k", 21843, ("full[51200:]", "full[25600:51200]"), "sigmoid"),
    "imagenet2012": ("imagenet2012", 1000, ("train[:99%]", "train[99%:]"), "sigmoid"),
}

# 65,000 images hold at least 30 of every class; the reference evaluator draws from as many.
FEWSHOT = {
    "name": "fewshot",
    "dataset": "imagenet2012",
    "train_split": "train[:65000]",
    "test_split": "validation",
    "shots": (5,),
    "every": "10%",
    "batch_size": 4096,
}

# Reassessed labels of ImageNet's validation images (arXiv 2006.07159).
REAL: dict = {
    "name": "scorecard",
    "dataset": "imagenet2012_real",
    "split": "validation",
    "recipe": "eval_crop",
    "every": "10%",
    "batch_size": 4096,
}

# The values that `smoke` sets for each family.
TINY: dict[str, dict] = {
    "vit": {"width": 64, "depth": 2, "mlp_dim": 128, "num_heads": 2, "scan": False},
    "mixer": {"width": 64, "depth": 2, "tokens_mlp_dim": 32, "channels_mlp_dim": 128},
    "resnet": {"depths": (1, 1), "width_factor": 1},
}


# arXiv 2106.10270, section 3.4: RandAugment (layers, magnitude), mixup.
AUGREG = {
    "none": ((0, 0), 0.0),
    "light1": ((2, 0), 0.0),
    "light2": ((2, 10), 0.2),
    "medium1": ((2, 15), 0.2),
    "medium2": ((2, 15), 0.5),
    "strong1": ((2, 20), 0.5),
    "strong2": ((2, 20), 0.8),
}


def get_config(text: str | None = None) -> ConfigDict:
    """One row of table 3; see the module's docstring."""
    arg = parse_arg(
        text, variant="B/16", dataset="imagenet21k", epochs=0, augreg="none", fewshot=False, real=False, smoke=False
    )
    config = small_config(arg) if arg.dataset in SMALL else paper_config(arg)
    if arg.augreg not in AUGREG:
        raise UserError(f"augreg={arg.augreg}: {nearest(arg.augreg, AUGREG)}")
    config.data.randaugment, config.train.mixup = AUGREG[arg.augreg]
    if arg.real and arg.dataset != "imagenet2012":
        raise UserError(f"real scores the labels of ImageNet ReaL; with dataset={arg.dataset} leave it out")
    if arg.fewshot:
        config.evals.fewshot = FEWSHOT
    if arg.real:
        config.evals.real = REAL
    return smoke(config) if arg.smoke else config


def paper_row(variant: str, dataset: str) -> tuple:
    """The row of table 3 that a variant uses on a data set."""
    rows = {"jft": JFT, "imagenet21k": IMAGENET21K}.get(dataset)
    if rows is None:
        return IMAGENET
    if variant in rows:
        return rows[variant]
    plain = variant.split("+")[-1].removeprefix("Mixer-")
    near = plain if plain in rows else NEAREST_ROW[re.split("[/x]", plain)[0]]
    return rows[near if near in rows else "L/16"]


def paper_config(arg) -> ConfigDict:
    """The config of a row of table 3."""
    model = any_variant(arg.variant)
    epochs, lr, decay, weight_decay, dropout, clip_norm = paper_row(arg.variant, arg.dataset)
    if arg.epochs and arg.epochs not in epochs:
        raise UserError(
            f"epochs={arg.epochs}: table 3 has {epochs} for this row; --config.train.duration sets any other"
        )
    name, classes, (train, held_out), loss = DATASETS.get(arg.dataset, (arg.dataset, None, ("train", ""), "softmax"))
    side = tuple(224 // p * p for p in model.get("patch_size", (1, 1)))

    config = ConfigDict()
    config.model = {
        **model,
        "num_classes": classes,  # None: the data's number
        "head_bias": -10.0 if loss == "sigmoid" else 0.0,
        "dtype": None,
    }
    if model["name"] == "vit":
        config.model.update({"representation_size": model["width"], "dropout": dropout, "scan": None})
    config.data = {"dataset": name, "split": train, "recipe": "pretrain", "resolution": side, "batch_size": 4096}
    config.objective = {"name": loss}
    if arg.dataset == "imagenet2012":
        config.objective.target_margin = 1e-4
    config.optim = {
        "name": "adam",
        "lr": lr,
        "b1": 0.9,
        "b2": 0.999,
        "decay": decay,
        "end_lr": 1e-5,
        "warmup": "10000 steps",
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
    }
    config.train = {"duration": f"{arg.epochs or epochs[-1]} epochs", "log_every": "50 steps"}
    config.evals = {}
    if held_out:
        evaluated = {"split": held_out, "recipe": "eval_crop", "every": "2%", "batch_size": 4096}
        config.evals.val = {"name": "classification", **evaluated}
    config.checkpoint = {"every": "1000 steps"}
    config.init = {"path": ""}
    config.seed = 0
    return config


# Rows that are not from the paper, for real data that fits on a laptop; the README gives their results. Images are enlarged to
# the next multiple of the model's patch.
# {dataset: (resolution, batch, epochs, base LR, weight decay, smallest crop, flip, splits)}
SMALL = {
    "fashion_mnist": (28, 64, 13, 2e-3, 0.05, 0.9, True, ("train", "test")),
    "digits": (16, 128, 70, 1e-3, 0.05, 0.75, False, ("train", "test")),
}


def small_config(arg) -> ConfigDict:
    """The config for small data: softmax, no representation layer, gentle crops."""
    resolution, batch, epochs, lr, weight_decay, crop, flip, (train, test) = SMALL[arg.dataset]
    config = ConfigDict()
    config.model = {**any_variant(arg.variant), "num_classes": None, "dtype": "float32"}
    config.data = {
        "dataset": arg.dataset,
        "split": train,
        "recipe": "pretrain",
        "resolution": tuple(math.ceil(resolution / p) * p for p in config.model.get("patch_size", (1, 1))),
        "batch_size": batch,
        "crop_area": (crop, 1.0),
        "flip": flip,
    }
    config.objective = {"name": "softmax"}
    config.optim = {
        "name": "adam",
        "lr": lr,
        "decay": "cosine",
        "warmup": "5%",
        "weight_decay": weight_decay,
        "clip_norm": 1.0,
    }
    config.train = {"duration": f"{arg.epochs or epochs} epochs", "log_every": "50 steps"}
    config.evals = {"test": {"name": "classification", "split": test, "every": "10%", "batch_size": 240}}
    config.checkpoint = {"every": "1 epochs"}
    config.init = {"path": ""}
    config.seed = 0
    return config


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrinks model, data and length, but keeps the row's loss, head, optimizer, schedule and recipe."""
    model = config.model
    model.update({**TINY[model.name], "dtype": "float32"})
    model.num_classes = None
    if model.get("representation_size"):
        model.representation_size = 64
    ph, pw = model.get("patch_size", (16, 16))
    if "stem" in model:  # patches are cut from the stem's features, which have 1/4 to 1/32 of the image's size
        model.update({"stem_width": 16, "stem_depths": (1,) * len(model.stem_depths)})
        ph, pw = 32, 32
    config.data.update({"dataset": "digits", "split": "train", "resolution": (2 * ph, 2 * pw), "batch_size": 64})
    config.optim.warmup = "25%"
    config.train.update({"duration": "16 steps", "log_every": "4 steps"})
    recipe = next((section.recipe for section in config.evals.values() if "recipe" in section), "eval")
    scored = {
        "val": {"name": "classification", "split": "test", "recipe": recipe, "every": "16 steps", "batch_size": 64}
    }
    if "fewshot" in config.evals:
        splits = {"dataset": "digits", "train_split": "train", "test_split": "test"}
        scored["fewshot"] = {**FEWSHOT, **splits, "every": "16 steps", "batch_size": 64}
    if "real" in config.evals:
        scored["real"] = {**REAL, "dataset": "digits", "split": "test", "every": "16 steps", "batch_size": 64}
    config.evals = scored
    config.checkpoint.every = "8 steps"
    return config
