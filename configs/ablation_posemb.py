"""Position embeddings: every cell of table 8 (arXiv 2010.11929, appendix D.4), ViT-B/16.

    vit_jax train --config=configs/ablation_posemb.py:positions=none --workdir=runs/pos_none
    vit_jax train --config=configs/ablation_posemb.py:positions=learned_1d,at=shared --workdir=runs/pos_1d_shared
    vit_jax train --config=configs/ablation_posemb.py:positions=learned_2d,at=every_layer --workdir=runs/pos_2d
    vit_jax train --config=configs/ablation_posemb.py:positions=relative,dataset=imagenet21k --workdir=runs/pos_rel
    vit_jax train --config=configs/ablation_posemb.py:positions=sincos_2d --workdir=runs/pos_sincos
    vit_jax train --config=configs/ablation_posemb.py:positions=learned_2d,at=stem,smoke --workdir=/tmp/smoke

Arguments: `positions` none, learned_1d, learned_2d, relative or sincos_2d; `at` stem (once, before the first block),
every_layer (one table per layer) or shared (every layer, one table), by default the first that the positions support; `dataset`
the pre-training data, which selects B/16's row of table 3 (jft as in the paper, imagenet21k, imagenet2012); `smoke` a
minute on any CPU, on digits.

Expected, 5-shot linear accuracy on ImageNet:

                 stem      every_layer   shared
    none         0.61382
    learned_1d   0.64206   0.63964       0.64292
    learned_2d   0.64001   0.64046       0.64022
    relative               0.64032

sincos_2d (fixed; arXiv 2205.01580) is not in the table. Relative positions act inside attention, so in every layer and not at
the stem; each layer has its own embeddings.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, nearest, parse_arg
from vit_jax.types import UserError

# Table 3, one row of which this changes. The file is loaded as the command line loads it, so that there is one copy of the table.
PRETRAIN = Path(__file__).with_name("pretrain.py")

# Where positions can act; the first is the default.
PLACES = {
    "none": ("stem",),
    "learned_1d": ("stem", "every_layer", "shared"),
    "learned_2d": ("stem", "every_layer", "shared"),
    "relative": ("every_layer",),
    "sincos_2d": ("stem", "every_layer", "shared"),
}


def get_config(text: str | None = None) -> ConfigDict:
    """One cell of table 8; see the module's docstring."""
    arg = parse_arg(text, positions="learned_1d", at="", dataset="jft", smoke=False)
    if arg.positions not in PLACES:
        raise UserError(f"positions={arg.positions} is unknown; {nearest(arg.positions, PLACES)}")
    places = PLACES[arg.positions]
    if arg.at and arg.at not in places:
        raise UserError(
            f"positions={arg.positions},at={arg.at} is no cell of table 8; for {arg.positions}, at is {' or '.join(places)}"
        )
    config = load(f"{PRETRAIN}:variant=B/16,dataset={arg.dataset},fewshot,smoke={arg.smoke}")
    config.model.update({"positions": arg.positions, "positions_at": arg.at or places[0]})
    return config
