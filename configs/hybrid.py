"""Hybrids: patches cut from a ResNet's feature map instead of the image (arXiv 2010.11929, section 3.1, table 3).

    vit_jax train --config=configs/hybrid.py:variant=R50+B/16,dataset=jft --workdir=runs/r50_b16
    vit_jax train --config=configs/hybrid.py:variant=R50+B/32,dataset=imagenet21k --workdir=runs/r50_b32
    vit_jax train --config=configs/hybrid.py:variant=R50+L/16,dataset=jft,epochs=14 --workdir=runs/r50_l16
    vit_jax train --config=configs/hybrid.py:variant=R50+L/32,dataset=imagenet21k --workdir=runs/r50_l32
    vit_jax train --config=configs/hybrid.py:variant=R26+B/32,dataset=imagenet21k --workdir=runs/r26_b32
    vit_jax train --config=configs/hybrid.py:variant=R26+S/32,dataset=imagenet2012 --workdir=runs/r26_s32
    vit_jax train --config=configs/hybrid.py:variant=R+Ti/16,dataset=imagenet2012 --workdir=runs/r_ti16
    vit_jax train --config=configs/hybrid.py:variant=R50+B/16,dataset=imagenet21k,smoke --workdir=/tmp/smoke

Arguments: `variant` the ResNet's layers and the ViT, as above; the number after the slash is the stride of the feature map,
on which patches are 1x1: 32 for all four stages of the ResNet, 16 with the last stage's units moved into the third. R+Ti/16
(arXiv 2106.10270) has only the root block and 8x8 patches, so a stride of 32 despite its name. `dataset` imagenet21k, jft,
imagenet2012, or your own; `epochs` one of the row's values; `smoke` a minute on any CPU, on digits.

Everything else is pretrain.py's. Combinations outside table 3 (another data set than JFT, R26, R+Ti) use the row of the ViT
of the same size.

Expected from the released ImageNet-21k weights, fine-tuned by table 4: R50+B/16 CIFAR-10 98.94, CIFAR-100 92.30, ImageNet
85.08 (98.72, 90.88 and 83.72 without dropout).
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, parse_arg
from vit_jax.models.variants import hybrid_variant

# Table 3, one row of which this is. The file is loaded as the command line loads it, so that there is one copy of the table.
PRETRAIN = Path(__file__).with_name("pretrain.py")


def get_config(text: str | None = None) -> ConfigDict:
    """One hybrid; see the module's docstring."""
    arg = parse_arg(text, variant="R50+B/16", dataset="imagenet21k", epochs=0, smoke=False)
    hybrid_variant(arg.variant)
    return load(f"{PRETRAIN}:variant={arg.variant},dataset={arg.dataset},epochs={arg.epochs},smoke={arg.smoke}")
