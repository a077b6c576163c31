"""Pre-training without labels: SimMIM (arXiv 2111.09886), MAE (arXiv 2111.06377) and the ViT paper's masked patch prediction.

    vit_jax train --config=configs/masked.py:objective=simmim,variant=B/16,dataset=imagenet2012 --workdir=runs/simmim
    vit_jax train --config=configs/masked.py:objective=simmim,variant=B/16,dataset=imagenet2012,published --workdir=runs/pub
    vit_jax train --config=configs/masked.py:objective=mae,variant=B/16,dataset=imagenet2012 --workdir=runs/mae
    vit_jax train --config=configs/masked.py:objective=patches,target=mean_colour,variant=B/16,dataset=jft --workdir=runs/mpp
    vit_jax train --config=configs/masked.py:objective=patches,target=patch_4x4,corrupt=0.15 --workdir=runs/mpp4
    vit_jax train --config=configs/masked.py:objective=mae,variant=Nano/7,dataset=fashion_mnist,epochs=20 --workdir=runs/fashion
    vit_jax train --config=configs/masked.py:objective=simmim,variant=Nano/4,dataset=digits --workdir=runs/digits
    vit_jax train --config=configs/masked.py:objective=mae,variant=B/16,smoke --workdir=/tmp/smoke

Arguments: `objective` simmim, mae or patches; `variant` and `dataset` as in configs/pretrain.py, a folder of your own among
them, whose classes are not read; `epochs` the length; `target` mean_colour, patch_4x4 or pixels and `corrupt` the share of
corrupted patches, for objective=patches; `published` for simmim: the model behind the published score, which is not the ViT
paper's (a shared relative position bias in place of position embeddings, LayerScale 0.1); `smoke` a minute on any CPU, on
digits. The result is a checkpoint as any other: `configs/finetune.py:...,init=WORKDIR` drops the decoder. Reconstructions are
drawn at each evaluation: `pictures/val-STEP.png` in the workdir.

SimMIM, as its authors trained ViT-B: 800 epochs of ImageNet at 224 pixels, squares of 32 pixels, 60% hidden; AdamW, batch
2048, learning rate 1e-4 x batch / 512 and a tenth of it from epoch 700 on, 10 epochs of warm-up, weight decay 0.05, clipping
at 5, stochastic depth 0.1, crops of 67% and more, flips. Published: 83.8 after fine-tuning, with `published`'s model and
per-layer tables; no score with absolute positions is published. Theirs normalises pixels by ImageNet's mean and deviation,
ours lie in [-1, 1]: losses differ by a factor of about 2.2.

MAE, as its authors trained B, L and H: 800 epochs (their released weights 1600), 75% hidden, AdamW (0.9, 0.95), batch 4096,
learning rate 1.5e-4 x batch / 256, 40 epochs of warm-up, cosine, weight decay 0.05, crops of 20% and more, flips, patches
normalised. Published after fine-tuning: B/16 83.6, L/16 85.9, H/14 86.9; linear probe of B/16 68.0.

Masked patch prediction: 1M steps on JFT, batch 4096, Adam at 2e-4, 10k steps of warm-up, cosine, weight decay 0.1 (that of
all the paper's pre-training; this run's is not stated). Published: B/16 79.9 after fine-tuning at 384 pixels, where training
from scratch gives 77.9 and supervised pre-training 84.0; 100k steps suffice for most of it.

Held out are the images that configs/pretrain.py holds out (1% of ImageNet); the authors trained on all. Small data sets have
rows of our own, in `SMALL`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, nearest, parse_arg
from vit_jax.types import UserError

PRETRAIN = Path(__file__).with_name("pretrain.py")

# {objective: (epochs, batch, learning rate, schedule, weight decay, smallest crop)}.
ROWS: dict[str, tuple[str, int, float, dict, float, float]] = {
    "simmim": ("800 epochs", 2048, 4e-4, {"decay": "staircase", "stairs": (0.875,), "warmup": "10 epochs"}, 0.05, 0.67),
    "mae": ("800 epochs", 4096, 2.4e-3, {"decay": "cosine", "warmup": "40 epochs"}, 0.05, 0.2),
    "patches": ("1000000 steps", 4096, 2e-4, {"decay": "cosine", "warmup": "10000 steps"}, 0.1, 0.05),
}

# Ours: epochs, for the data sets whose other settings configs/pretrain.py has; and an MAE's decoder there.
SMALL = {"fashion_mnist": 20, "digits": 200}
SMALL_DECODER = {"decoder_width": 64, "decoder_depth": 2, "decoder_heads": 2, "decoder_mlp_dim": 256}


def get_config(text: str | None = None) -> ConfigDict:
    """Pre-training by one of the objectives; see the module's docstring."""
    arg = parse_arg(
        text,
        objective="simmim",
        variant="B/16",
        dataset="imagenet2012",
        epochs=0,
        target="mean_colour",
        corrupt=0.5,
        published=False,
        smoke=False,
    )
    if arg.objective not in ROWS:
        raise UserError(f"objective={arg.objective}: {nearest(arg.objective, ROWS)}")
    config = load(f"{PRETRAIN}:variant={arg.variant},dataset={arg.dataset}{',smoke' if arg.smoke else ''}")
    if config.model.name != "vit":
        raise UserError(f"variant={arg.variant}: ViTs and hybrids have patches to hide; choose one, such as B/16")
    small = arg.dataset in SMALL
    duration, batch, lr, schedule, weight_decay, crop = ROWS[arg.objective]
    for key in {"representation_size", "head_bias", "dropout"} & set(config.model):
        del config.model[key]
    config.model.num_classes = None
    optim = {"name": "adam", "lr": lr, **schedule, "weight_decay": weight_decay}
    if arg.objective == "mae":
        optim["b2"] = 0.95
    elif arg.objective == "simmim":
        optim["clip_norm"] = 5.0
    if small:
        optim = {**config.optim.to_dict(), **{key: optim[key] for key in ("b2",) if key in optim}}
    elif not arg.smoke:
        config.data.batch_size = batch
    config.optim = {**optim, **({"warmup": "25%"} if arg.smoke else {})}
    if not small:
        config.data.crop_area = (crop, 1.0)
    if not arg.smoke:
        config.train.duration = f"{arg.epochs or SMALL[arg.dataset]} epochs" if small else duration
        if arg.epochs:
            config.train.duration = f"{arg.epochs} epochs"
    if arg.smoke:  # with 2x2 patches there is too little to hide
        patch = config.model.patch_size if "stem" not in config.model else (32, 32)
        config.data.resolution = tuple(4 * p for p in patch)
    set_task(config, arg, small)
    evaluated = next(iter(config.evals.values()), None)
    config.evals = {}
    if evaluated:
        config.evals.val = {**evaluated.to_dict(), "name": "reconstruction", "pictures": 8}
    return config


def set_task(config: ConfigDict, arg, small: bool) -> None:
    """Sets the model and the objective of a config."""
    model = config.model
    if arg.published and arg.objective != "simmim":
        raise UserError(f"published is SimMIM's model; with objective={arg.objective} leave it out")
    if arg.objective == "mae":
        model.name = "mae"
        if small or arg.smoke:
            model.update(SMALL_DECODER)
        config.objective = {"name": "mae", "norm_pix": True}
        return
    model.name = "masked"
    if arg.objective == "patches":
        model.decoder = arg.target
        config.objective = {"name": "patches", "target": arg.target, "corrupt": arg.corrupt}
        return
    patch, sides = model.patch_size, config.data.resolution
    # Squares of 2x2 patches, as published for B/16, where images are large.
    double = [2 * p if side % (2 * p) == 0 and not small else p for p, side in zip(patch, sides, strict=True)]
    config.objective = {"name": "simmim", "mask_patch": tuple(double), "ratio": 0.6}
    if not small:
        model.stochastic_depth = 0.1
    if arg.published:
        model.update({"positions": "relative_bias", "positions_at": "shared", "layer_scale": 0.1, "pool": "gap"})
        model.class_token = "yes"
