"""ResNets with GroupNorm and standardised convolutions ("ResNet (BiT)"), pre-trained with Adam or SGD: appendix D.1, table 7.

    vit_jax train --config=configs/bit.py:variant=R50x1,dataset=jft,optimizer=adam --workdir=runs/r50x1_adam
    vit_jax train --config=configs/bit.py:variant=R50x1,dataset=jft,optimizer=sgd --workdir=runs/r50x1_sgd
    vit_jax train --config=configs/bit.py:variant=R152x2,dataset=jft,optimizer=sgd,epochs=40 --workdir=runs/r152x2
    vit_jax train --config=configs/bit.py:variant=R50x1,dataset=imagenet2012,optimizer=sgd --workdir=runs/bit_s
    vit_jax train --config=configs/bit.py:variant=R101x3,dataset=imagenet21k,optimizer=sgd --workdir=runs/bit_m
    vit_jax train --config=configs/bit.py:variant=R50x1,optimizer=sgd,smoke --workdir=/tmp/smoke

Arguments: `variant` R50, R101, R152 or R200 (R26 too) and a width: R50x1, R50x2, R50x3, R101x1, R101x3, R152x1, R152x2, R152x4,
R200x3; `dataset` jft, imagenet21k, imagenet2012, or your own (then the ImageNet row applies, with softmax); `optimizer` adam,
the rows of table 3 (1e-3 for R50x{1,2}, 8e-4 for R101x1, 6e-4 for R152x{1,2}; R200x3, from table 6, uses R152's rate; others
use the row of their depth), or sgd; `epochs` one of the row's values; `smoke` a minute on any CPU, on digits.

SGD is BiT's recipe (arXiv 1912.11370, section 3): momentum 0.9, batch 4096, weight decay 1e-4, rate 0.03 per 256 images
(0.48) after 5,000 steps of warm-up. D.1 compares at 7 epochs of JFT, BiT trains for 40; on ImageNet-21k it trains for 90. On
ImageNet: the released code's 90 epochs, rate 0.1 per 256 images (1.6), 1,000 steps of warm-up, clipping at 1, softmax.
JFT and ImageNet-21k keep the sigmoid loss of the Adam rows (not from BiT).
Differences from BiT: it divides the rate by ten at 30, 60 and 80 of 90 epochs (10, 23, 30 and 37 of 40); here a cosine, which
its released code has too, replaces these steps. Its weight decay is an L2 loss, whose gradient the momentum sums
tenfold; here decay is applied outside the momentum and multiplied by the rate, so that its 1e-4 is 1e-3 here.

Expected (D.1): pre-trained on JFT, Adam is better than SGD on most fine-tuning tasks and on average. Hardware: the released
code trains R50x1 on ImageNet in 32 minutes on a TPUv3-128.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, nearest, parse_arg
from vit_jax.models.variants import resnet_variant
from vit_jax.types import UserError

# Table 3, one row of which this changes. The file is loaded as the command line loads it, so that there is one copy of the table.
PRETRAIN = Path(__file__).with_name("pretrain.py")

# BiT's recipe, {dataset: (epochs, LR, warm-up steps, clip norm, loss)}. Always: momentum 0.9, batch 4096, weight decay 1e-4.
SGD = {
    "jft": ((7, 40), 0.48, 5_000, 0.0, "sigmoid"),
    "imagenet21k": ((90,), 0.48, 5_000, 0.0, "sigmoid"),
    "imagenet2012": ((90,), 1.6, 1_000, 1.0, "softmax"),
}


def get_config(text: str | None = None) -> ConfigDict:
    """One ResNet and one optimizer; see the module's docstring."""
    arg = parse_arg(text, variant="R50x1", dataset="jft", optimizer="adam", epochs=0, smoke=False)
    resnet_variant(arg.variant)
    if arg.optimizer not in ("adam", "sgd"):
        raise UserError(f"optimizer={arg.optimizer} is unknown; {nearest(arg.optimizer, ('adam', 'sgd'))}")
    row = f"{PRETRAIN}:variant={arg.variant},dataset={arg.dataset},smoke={arg.smoke}"
    return load(f"{row},epochs={arg.epochs}") if arg.optimizer == "adam" else sgd(load(row), arg)


def sgd(config: ConfigDict, arg) -> ConfigDict:
    """The config with BiT's optimizer, loss and length."""
    epochs, lr, warmup, clip_norm, loss = SGD.get(arg.dataset, SGD["imagenet2012"])
    if arg.epochs and arg.epochs not in epochs:
        raise UserError(
            f"epochs={arg.epochs}: SGD has {epochs} for this data set; --config.train.duration sets any other"
        )
    config.optim = {
        "name": "sgd",
        "lr": lr,
        "momentum": 0.9,
        "decay": "cosine",
        "warmup": config.optim.warmup if arg.smoke else f"{warmup} steps",
        "weight_decay": 1e-3,  # 1e-4 / (1 - 0.9); see the module's docstring
        "clip_norm": clip_norm,
    }
    if not arg.smoke:
        config.train.duration = f"{arg.epochs or epochs[0]} epochs"
    config.objective = {"name": loss}
    config.model.head_bias = -10.0 if loss == "sigmoid" else 0.0
    return config
