"""What the head reads: class token, average or attention pooling, with or without its tanh layer (appendix D.3), ViT-B/16.

    vit_jax train --config=configs/ablation_head.py:pool=token --workdir=runs/head_token
    vit_jax train --config=configs/ablation_head.py:pool=gap,lr=3e-4 --workdir=runs/head_gap
    vit_jax train --config=configs/ablation_head.py:pool=gap,representation=false --workdir=runs/head_gap_linear
    vit_jax train --config=configs/ablation_head.py:pool=map,dataset=imagenet21k --workdir=runs/head_map
    vit_jax train --config=configs/ablation_head.py:pool=gap,lr=3e-3,smoke --workdir=/tmp/smoke

Arguments: `pool` token (the class token), gap (the mean over patches, without class token) or map (attention pooling, from
arXiv 2106.04560, not in this paper); `lr` 3e-4, 8e-4 (the default, table 3's for B/16 on JFT) or 3e-3, the other two not from the
paper; `representation` whether the tanh layer precedes the classifier (true), which D.3's first attempt at gap left out;
`dataset` the pre-training data, which selects B/16's row of table 3 but for the rate (jft as in the paper, imagenet21k,
imagenet2012); `smoke` a minute on any CPU, on digits.

Expected (D.3): token and gap reach the same 5-shot linear accuracy on ImageNet, each at its own best learning rate; at the
class token's rate, gap looks much worse than it is.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, nearest, parse_arg
from vit_jax.types import UserError

# Table 3, one row of which this changes. The file is loaded as the command line loads it, so that there is one copy of the table.
PRETRAIN = Path(__file__).with_name("pretrain.py")

POOLS = ("token", "gap", "map")
RATES = (3e-4, 8e-4, 3e-3)


def get_config(text: str | None = None) -> ConfigDict:
    """One head at one rate; see the module's docstring."""
    arg = parse_arg(text, pool="token", lr=8e-4, representation=True, dataset="jft", smoke=False)
    if arg.pool not in POOLS:
        raise UserError(f"pool={arg.pool} is unknown; {nearest(arg.pool, POOLS)}")
    if arg.lr not in RATES:
        raise UserError(f"lr={arg.lr}: the sweep is {RATES}; --config.optim.lr sets any other")
    config = load(f"{PRETRAIN}:variant=B/16,dataset={arg.dataset},fewshot,smoke={arg.smoke}")
    config.model.pool = arg.pool
    if not arg.representation:
        config.model.representation_size = 0
    config.optim.lr = arg.lr
    return config
