"""The Transformer's shape: depth, width, MLP and patch size, each scaled alone or all together (appendix D.2, figure 8).

    vit_jax train --config=configs/ablation_shape.py:dimension=depth,value=16 --workdir=runs/shape_depth16
    vit_jax train --config=configs/ablation_shape.py:dimension=width,value=2048 --workdir=runs/shape_width2048
    vit_jax train --config=configs/ablation_shape.py:dimension=mlp,value=8192 --workdir=runs/shape_mlp8192
    vit_jax train --config=configs/ablation_shape.py:dimension=patch,value=16 --workdir=runs/shape_patch16
    vit_jax train --config=configs/ablation_shape.py:dimension=all,value=2 --workdir=runs/shape_all2
    vit_jax train --config=configs/ablation_shape.py:dimension=depth,value=64,smoke --workdir=/tmp/smoke

Arguments: `value` replaces the `dimension` of the base point (8 layers, D 1024, MLP 2048, patch 32; all=1, the default):
depth 2 4 8 16 32 64; width 256 512 1024 2048 4096; mlp 512 1024 2048 4096 8192; patch 56 32 28 16 14 8;
all 0.5 1 2, which multiplies depth, width and MLP and divides the patch (56 for 64, which does not divide 224 pixels);
`dataset` the pre-training data, which selects B/32's row of table 3 (jft, imagenet21k, imagenet2012); `smoke` the same shape with
a quarter of the depth and a thirty-second of the widths, on digits, in a minute on any CPU.

The base point is the paper's. The values around it, heads of 64 channels each and the choice of B/32's row are not: the paper has
only a plot.

Expected (D.2): 5-shot linear accuracy on ImageNet gains most from depth, up to 64 layers but less from 16 on, and least from
width; smaller patches help without adding a parameter; scaling all together helps steadily.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, nearest, parse_arg
from vit_jax.types import UserError

# Table 3, one row of which this changes. The file is loaded as the command line loads it, so that there is one copy of the table.
PRETRAIN = Path(__file__).with_name("pretrain.py")

BASE = {"depth": 8, "width": 1024, "mlp": 2048, "patch": 32}
VALUES = {
    "depth": (2, 4, 8, 16, 32, 64),
    "width": (256, 512, 1024, 2048, 4096),
    "mlp": (512, 1024, 2048, 4096, 8192),
    "patch": (56, 32, 28, 16, 14, 8),
    "all": (0.5, 1, 2),
}
ALL = {
    0.5: {"depth": 4, "width": 512, "mlp": 1024, "patch": 56},
    1: BASE,
    2: {"depth": 16, "width": 2048, "mlp": 4096, "patch": 16},
}


def get_config(text: str | None = None) -> ConfigDict:
    """One point of figure 8; see the module's docstring."""
    arg = parse_arg(text, dimension="all", value=1.0, dataset="jft", smoke=False)
    if arg.dimension not in VALUES:
        raise UserError(f"dimension={arg.dimension} is unknown; {nearest(arg.dimension, VALUES)}")
    values = VALUES[arg.dimension]
    if arg.value not in values:
        raise UserError(
            f"{arg.dimension} takes the values {values}, not {arg.value:g}; set any shape by --config.model"
        )
    shape = ALL[arg.value] if arg.dimension == "all" else {**BASE, arg.dimension: int(arg.value)}
    config = load(f"{PRETRAIN}:variant=B/{shape['patch']},dataset={arg.dataset},fewshot,smoke={arg.smoke}")
    less_depth, less_width = (4, 32) if arg.smoke else (1, 1)
    width = shape["width"] // less_width
    config.model.update(
        {
            "depth": max(shape["depth"] // less_depth, 1),
            "width": width,
            "mlp_dim": shape["mlp"] // less_width,
            "num_heads": max(width // 64, 1),
            "representation_size": width,
        }
    )
    return config
