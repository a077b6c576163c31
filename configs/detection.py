"""Detection with YOLOS (arXiv 2106.00666): a plain ViT, detection tokens, and DETR's loss.

    vit_jax train --config=configs/detection.py:variant=S/16,dataset=coco,init=DEIT --workdir=runs/yolos_s
    vit_jax train --config=configs/detection.py:variant=Ti/16,dataset=coco,init=DEIT,sizes --workdir=runs/yolos_ti
    vit_jax train --config=configs/detection.py:variant=Ti/16,dataset=FOLDER,init=YOLOS --workdir=runs/mine
    vit_jax train --config=configs/detection.py:variant=Nano/8,dataset=canvases,classifier --workdir=runs/items
    vit_jax train --config=configs/detection.py:variant=Nano/8,dataset=canvases,init=runs/items --workdir=runs/canvases
    vit_jax train --config=configs/detection.py:variant=S/16,dataset=coco,smoke --workdir=/tmp/smoke

Arguments: `variant` SIZE/PATCH; `dataset` coco (TFDS's coco/2017), voc (voc/2007), kitti, canvases (scikit-learn's digits on
canvases, written on first use), another TFDS name whose examples have objects, or a folder of images with COCO's
`instances_*.json`; `init` a classifier of the same size, or a detector; `classifier` pre-trains one on single digits
of the canvases; `sizes` trains on several sizes of images; `smoke` the row's loss, optimizer and schedule in a minute on any
CPU, on canvases.

The published rows train for 300 epochs of batches of 16 (Ti) or 150 of 8 (S, B), AdamW with clip 0.1, no warm-up, cosine, from
DeiT's weights. Published AP on COCO val2017: Ti 28.7 at 512 pixels, S 36.1 and B 42.0 at 800. Those models saw images whose
shorter side was drawn from 480 to 800 (Ti: 256 to 608). Here each image is scaled, its aspect kept, to 0.6 to 1 times what fits
into one canvas of the row's largest size, so that one program is compiled.

With `sizes` each batch has one of five canvases, 480, 560, 640, 720 or 800 pixels high (Ti: 256, 320, 384, 448 or 512), and its
images are as large as fit. Five programs are compiled, and a step has 0.66 times the patches in the mean (Ti: 0.59). No canvas
stands upright: a batch has one canvas, most of COCO's images are wider than high, one of 640x480 would fill 45% of an upright
canvas, and evaluation's canvas lies on its side. For data of upright images, turn data.resolution, data.sizes and
model.position_grid.

From scratch, detection needs far more data than classification: DETR's authors say 10,000 to 15,000 images. Start from a detector
(`init`) on fewer. On canvases the boxes come first; the classes come late from scratch, and much sooner from a classifier.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg
from vit_jax.models.variants import vit_variant
from vit_jax.types import UserError

# arXiv 2106.00666, table 2 and the authors' code: batch, epochs, learning rate, canvas, grid of the stored positions.
ROWS = {
    "Ti": (16, 300, 5e-5, (512, 864), (50, 83)),
    "S": (8, 150, 2.5e-5, (800, 1344), (32, 54)),
    "B": (8, 150, 2.5e-5, (800, 1344), (50, 84)),
}
# Heights of training's canvases below the row's own; the published ones are 16 pixels apart.
HEIGHTS = {"Ti": (256, 320, 384, 448)}
OTHER_HEIGHTS = (480, 560, 640, 720)
# {dataset: (TFDS name, split to train on, split to score)}
DATASETS = {
    "coco": ("coco/2017", "train", "validation"),
    "voc": ("voc/2007", "train+validation", "test"),
    "kitti": ("kitti", "train", "validation"),
    "canvases": ("canvases", "train", "test"),
}


def get_config(text: str | None = None) -> ConfigDict:
    """One row; see the module's docstring."""
    arg = parse_arg(text, variant="S/16", dataset="coco", init="", classifier=False, sizes=False, smoke=False)
    if arg.classifier:
        return classifier(arg)
    config = paper_config(arg)
    if arg.dataset == "canvases" or arg.smoke:
        small_config(config)
    if arg.smoke:
        smoke(config)
    if arg.sizes:
        several_sizes(config, arg.variant.split("/")[0])
    return config


def paper_config(arg) -> ConfigDict:
    """The config of a published row; other sizes use that of S."""
    size = arg.variant.split("/")[0]
    batch, epochs, lr, resolution, grid = ROWS.get(size, ROWS["S"])
    name, train, held_out = DATASETS.get(arg.dataset, (arg.dataset, "train", "val"))
    model = vit_variant(arg.variant)
    ph, pw = model["patch_size"]
    config = ConfigDict()
    config.model = {
        **model,
        "name": "yolos",
        "num_classes": None,
        "queries": 100,
        "position_grid": grid,
        "dtype": None,
        "scan": None,
    }
    config.data = {
        "dataset": name,
        "split": train,
        "recipe": "detect",
        "resolution": (resolution[0] // ph * ph, resolution[1] // pw * pw),
        "batch_size": batch,
    }
    config.objective = {"name": "detection"}
    config.optim = {
        "name": "adam",
        "lr": lr,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 0.1,
    }
    config.train = {"duration": f"{epochs} epochs", "log_every": "50 steps"}
    scored = {"split": held_out, "recipe": "detect_eval", "every": "5%", "batch_size": batch, "pictures": 8}
    config.evals = {"val": {"name": "detection", **scored}}
    config.checkpoint = {"every": "1 epochs"}
    config.init = {"path": arg.init, "resize": "bicubic"}
    config.seed = 0
    return config


def small_config(config: ConfigDict) -> None:
    """Canvases: square images, few objects, digits that a mirror would change; small enough for two cores, with fixed positions.

    With few tokens, no object weighs more than among 100; boxes are easy here and classes hard, so classes weigh more.
    """
    config.model.update(
        {"depth": 4, "queries": 16, "positions": "sincos_2d", "position_grid": (0, 0), "dtype": "float32"}
    )
    config.data.update({"resolution": (64, 64), "batch_size": 64, "recipe": "resize_flip", "flip": False})
    config.objective.update({"no_object": 0.2, "class_weight": 5.0})
    config.optim.update({"lr": 1e-3, "warmup": "3%", "clip_norm": 1.0})
    config.train.update({"duration": "5 epochs"})
    config.evals.val.update({"recipe": "eval", "every": "20%", "batch_size": 100})


def classifier(arg) -> ConfigDict:
    """A classifier of single digits at the canvases' scale, whose encoder is the detector's."""
    if arg.dataset != "canvases" or arg.init or arg.sizes:
        raise UserError(
            "classifier goes with dataset=canvases and without init and sizes; other detectors start from a released classifier"
        )
    model = {**vit_variant(arg.variant), "depth": 4, "positions": "sincos_centred", "pool": "gap", "class_token": "yes"}
    config = ConfigDict()
    config.model = {**model, "num_classes": None, "dtype": "float32"}
    config.data = {
        "dataset": "canvases/digits_single",
        "split": "train",
        "recipe": "resize_flip",
        "flip": False,
        "resolution": (32, 32),
        "batch_size": 128,
    }
    config.objective = {"name": "softmax"}
    optim = {"name": "adam", "lr": 1e-3, "decay": "cosine", "warmup": "3%", "weight_decay": 0.05, "clip_norm": 1.0}
    config.optim = optim
    config.train = {"duration": "5 epochs", "log_every": "50 steps"}
    config.evals = {"val": {"name": "classification", "split": "test", "every": "20%", "batch_size": 100}}
    config.checkpoint = {"every": "1 epochs"}
    config.init = {"path": ""}
    config.seed = 0
    if arg.smoke:
        config.data.split, config.train.duration = "train[:512]", "8 steps"
    return config


def several_sizes(config: ConfigDict, size: str) -> None:
    """Canvases of several sizes and one aspect, in whole patches, up to the row's own; canvases of digits of two."""
    (h, w), (ph, pw) = config.data.resolution, config.model.patch_size
    heights = (h * 3 // 4,) if h < 256 else HEIGHTS.get(size, OTHER_HEIGHTS)
    config.data.sizes = tuple((y // ph * ph, y * w // h // pw * pw) for y in (*heights, h))
    if config.data.recipe == "detect":
        config.data.recipe = "detect_fit"  # the canvas decides the scale


def smoke(config: ConfigDict) -> None:
    """Shrinks model, data and length, but keeps the row's loss, optimizer and schedule."""
    config.model.update(
        {"width": 64, "depth": 2, "mlp_dim": 128, "num_heads": 2, "patch_size": (16, 16), "scan": False}
    )
    config.data.update({"dataset": "canvases", "split": "train[:64]", "batch_size": 16, "resolution": (128, 128)})
    config.train.update({"duration": "8 steps", "log_every": "4 steps"})
    config.evals.val.update({"split": "test[:32]", "every": "8 steps", "batch_size": 16})
    config.checkpoint.every = "4 steps"
