"""Axial attention: each block attends along rows, then along columns, an MLP after each (appendix D.6, figure 13).

    vit_jax train --config=configs/ablation_axial.py:variant=B/32 --workdir=runs/axial_b32
    vit_jax train --config=configs/ablation_axial.py:variant=B/16,dataset=imagenet21k --workdir=runs/axial_b16
    vit_jax train --config=configs/ablation_axial.py:variant=B/16,smoke --workdir=/tmp/smoke

Arguments: `variant` B/32 or B/16 as in the paper, or any SIZE/PATCH; `dataset` the pre-training data, which selects the row of
table 3 (jft as in the paper, imagenet21k, imagenet2012); `smoke` a minute on any CPU, on digits.

The patches are averaged, since a class token has no row and no column. A block holds twice the parameters of a ViT's.

Expected (D.6): both axial models score higher in 5-shot linear accuracy on ImageNet than their ViTs, and cost more; the paper has
only a plot.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, parse_arg
from vit_jax.models.variants import vit_variant

# Table 3, one row of which this changes. The file is loaded as the command line loads it, so that there is one copy of the table.
PRETRAIN = Path(__file__).with_name("pretrain.py")


def get_config(text: str | None = None) -> ConfigDict:
    """One axial model; see the module's docstring."""
    arg = parse_arg(text, variant="B/32", dataset="jft", smoke=False)
    vit_variant(arg.variant)
    config = load(f"{PRETRAIN}:variant={arg.variant},dataset={arg.dataset},fewshot,smoke={arg.smoke}")
    config.model.update({"axial": True, "pool": "gap"})
    return config
