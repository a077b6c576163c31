"""AugReg's pre-training, "How to train your ViT?" (arXiv 2106.10270): augmentation and regularisation in place of more data.

    vit_jax train --config=configs/augreg.py:variant=B/16,dataset=imagenet21k --workdir=runs/augreg_b16
    vit_jax train --config=configs/augreg.py:variant=L/16,dataset=imagenet21k,epochs=30,fewshot --workdir=runs/augreg_l16
    vit_jax train --config=configs/augreg.py:variant=S/16,dataset=imagenet2012,real --workdir=runs/augreg_s16_i1k
    vit_jax train --config=configs/augreg.py:variant=R50+L/32,dataset=imagenet21k --workdir=runs/augreg_r50_l32
    vit_jax train --config=configs/augreg.py:variant=B/16,aug=light1,wd=0.03,drop=0.1 --workdir=runs/augreg_b16_other
    vit_jax train --config=configs/augreg.py:variant=B/16,dataset=imagenet21k,smoke --workdir=/tmp/smoke

Arguments: `variant` a ViT or hybrid; `dataset` imagenet21k or imagenet2012; `aug` none, light1, light2, medium1, medium2,
strong1 or strong2 (RandAugment and mixup); `wd` weight decay, 0.1 or 0.03; `drop` dropout and stochastic depth, 0 or 0.1. By
default these three are those of the released checkpoint of that size (on ImageNet-21k), or big_vision's choice (on ImageNet).
`epochs` 300 or 30; `fewshot`, `real` and `smoke` as in configs/pretrain.py.

Always: Adam at 1e-3, batch 4096, 10,000 steps of warm-up, cosine to 0, clipping at global norm 1, Inception crop to 224 and flip.
ImageNet-21k: a sigmoid per class, no representation layer, as in the released files. ImageNet: softmax and the tanh
representation layer, as big_vision trains it.

Expected from the released ImageNet-21k weights, fine-tuned on ImageNet at 384 pixels: Ti/16 78.22, S/32 79.58, S/16 83.73,
B/32 83.59, B/16 85.49, L/16 85.59, R50+L/32 85.99.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import load, parse_arg
from vit_jax.types import UserError, nearest

# Table 3, whose data, model and evaluation this uses. The file is loaded as the command line loads it.
PRETRAIN = Path(__file__).with_name("pretrain.py")

# {variant: (augmentation, weight decay, dropout and stochastic depth)}, from the recommended ImageNet-21k checkpoints' names.
IMAGENET21K = {
    "Ti/16": ("none", 0.03, 0.0),
    "S/32": ("none", 0.1, 0.0),
    "S/16": ("light1", 0.03, 0.0),
    "B/32": ("light1", 0.1, 0.0),
    "B/16": ("medium1", 0.1, 0.0),
    "B/8": ("medium2", 0.1, 0.0),
    "L/16": ("strong1", 0.1, 0.0),
    "R+Ti/16": ("none", 0.03, 0.0),
    "R26+S/32": ("light1", 0.1, 0.0),
    "R50+L/32": ("medium1", 0.1, 0.1),
}
# big_vision's choice for ImageNet, a good average over the paper's figure 4.
IMAGENET = {"Ti/16": ("light1", 0.1, 0.0), "S/32": ("light2", 0.1, 0.0)}
OTHERS = ("medium2", 0.1, 0.0)


def get_config(text: str | None = None) -> ConfigDict:
    """One model; see the module's docstring."""
    arg = parse_arg(
        text,
        variant="B/16",
        dataset="imagenet21k",
        aug="",
        wd=-1.0,
        drop=-1.0,
        epochs=300,
        fewshot=False,
        real=False,
        smoke=False,
    )
    tables = {"imagenet21k": IMAGENET21K, "imagenet2012": IMAGENET}
    if arg.dataset not in tables:
        raise UserError(
            f"dataset={arg.dataset}: {nearest(arg.dataset, tables)}; configs/pretrain.py takes any, with augreg=NAME"
        )
    if arg.epochs not in (300, 30):
        raise UserError(f"epochs={arg.epochs}: AugReg has 300 and 30; --config.train.duration sets any other")
    aug, wd, drop = tables[arg.dataset].get(arg.variant, OTHERS)
    wd, drop = (arg.wd if arg.wd >= 0 else wd), (arg.drop if arg.drop >= 0 else drop)
    flags = "".join(f",{flag}" for flag in ("fewshot", "real", "smoke") if getattr(arg, flag))
    config = load(f"{PRETRAIN}:variant={arg.variant},dataset={arg.dataset},augreg={arg.aug or aug}{flags}")
    if config.model.name != "vit":
        raise UserError(f"variant={arg.variant}: AugReg trains ViTs and hybrids; configs/pretrain.py takes the others")
    config.optim.update({"lr": 1e-3, "decay": "cosine", "weight_decay": wd, "clip_norm": 1.0})
    config.model.update({"dropout": drop, "stochastic_depth": drop})
    if arg.dataset == "imagenet21k":
        config.model.representation_size = 0
    else:
        config.objective = {"name": "softmax"}
        config.model.head_bias = 0.0
    if not arg.smoke:
        config.train.duration = f"{arg.epochs} epochs"
    return config
