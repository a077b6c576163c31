"""Fine-tuning of models that were pre-trained without labels, as MAE (arXiv 2111.06377) and SimMIM (arXiv 2111.09886) publish it.

    vit_jax train --config=configs/finetune_masked.py:variant=B/16,init=runs/mae --workdir=runs/mae_tuned
    vit_jax train --config=configs/finetune_masked.py:variant=B/16,recipe=simmim,init=runs/simmim --workdir=runs/simmim_tuned
    vit_jax train --config=configs/finetune_masked.py:variant=Ti/16,dataset=FOLDER --workdir=runs/mine
    vit_jax train --config=configs/finetune_masked.py:variant=B/16,smoke --workdir=/tmp/smoke

Arguments: `variant` SIZE/PATCH, that of the checkpoint; `dataset` imagenet2012, or whatever configs/finetune.py takes; `init` the
checkpoint; `recipe` mae or simmim; `smoke` a minute on any CPU, on digits (or your images).

Both: AdamW with weight decay 0.05 on kernels alone, a rate that falls from layer to layer, cosine to 0, stochastic depth,
224 pixels, crops of 8 to 100% of the area, flip, RandAugment (rand-m9-mstd0.5-inc1), mixup 0.8 and CutMix 1.0 at equal
chance, erasing 0.25, label smoothing 0.1; the mean over the patches is normalised by a norm of its own, which replaces the
pre-trained model's last norm, and a new head follows.

| recipe | size | epochs (warm-up) | batch | rate at 256 images | layer decay | stochastic depth | clip |
|---|---|---|---|---|---|---|---|
| mae | B | 100 (5) | 1024 | 5e-4 | 0.65 | 0.1 | |
| mae | L | 50 (5) | 1024 | 1e-3 | 0.75 | 0.2 | |
| mae | H | 50 (5) | 1024 | 1e-3 | 0.75 | 0.3 | |
| simmim | all | 100 (20) | 2048 | 6.25e-4 | 0.65 | 0.1 | 5 |

Smaller sizes, of which neither published a fine-tuning, have B's row. The rate is multiplied by the batch size / 256.

Published on ImageNet: MAE B/16 83.6 (four seeds 83.46 to 83.66), L/16 85.9, H/14 86.9; SimMIM B/16 83.8, a model with relative
positions and LayerScale. Images are resized bilinearly here, bicubically there; erased pixels are uniform noise here, normal
there.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, parse_arg
from vit_jax.types import UserError, nearest

FINETUNE = Path(__file__).with_name("finetune.py")
# {recipe: {size: (epochs, warm-up epochs, batch, rate at 256 images, layer decay, stochastic depth, clip)}}; "" for other sizes.
RECIPES = {
    "mae": {
        "": (100, 5, 1024, 5e-4, 0.65, 0.1, 0.0),
        "L": (50, 5, 1024, 1e-3, 0.75, 0.2, 0.0),
        "H": (50, 5, 1024, 1e-3, 0.75, 0.3, 0.0),
    },
    "simmim": {"": (100, 20, 2048, 6.25e-4, 0.65, 0.1, 5.0)},
}


def get_config(text: str | None = None) -> ConfigDict:
    """One fine-tuning; see the module's docstring."""
    arg = parse_arg(text, variant="B/16", dataset="imagenet2012", init="", recipe="mae", smoke=False)
    if arg.recipe not in RECIPES:
        raise UserError(f"recipe={arg.recipe}: {nearest(arg.recipe, RECIPES)}")
    rows = RECIPES[arg.recipe]
    epochs, warmup, batch, rate, decay, depth, clip = rows.get(arg.variant.partition("/")[0], rows[""])
    flags = ",smoke" if arg.smoke else ""
    config = load(f"{FINETUNE}:variant={arg.variant},dataset={arg.dataset},init={arg.init}{flags}")
    if config.model.name != "vit" or "stem" in config.model:
        raise UserError(f"variant={arg.variant}: masked pre-training is for ViTs, SIZE/PATCH")
    if config.data.batch_size == 64 and not arg.smoke:  # one's own images
        batch = 64
    config.model.update({"pool": "gap", "class_token": "yes", "norm_after_pool": True})
    config.model.update({"stochastic_depth": depth, "dropout": 0.0})
    config.data.update({"batch_size": 64 if arg.smoke else batch, "crop_area": (0.08, 1.0), "random_erasing": 0.25})
    config.data.auto_augment = "rand-m9-mstd0.5-inc1"
    config.objective = {"name": "softmax", "label_smoothing": 0.1}
    config.optim = {
        "name": "adam",
        "lr": rate * batch / 256,
        "decay": "cosine",
        "warmup": "25%" if arg.smoke else f"{warmup} epochs",
        "weight_decay": 0.05,
        "clip_norm": clip,
        "layer_decay": decay,
    }
    config.train.update({"mixup": 0.8, "cutmix": 1.0})
    for section in config.evals.values():
        section.recipe = "eval_crop"
    if not arg.smoke:
        side = config.model.patch_size
        config.data.resolution = tuple(224 // p * p for p in side)
        config.train.duration = f"{epochs} epochs"
        config.checkpoint.every = "5%"
    return config
