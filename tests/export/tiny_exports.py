"""Tiny models of every family, loaded as checkpoints are, for tests of what is exported."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.convert.load import Loaded
from vit_jax.models.build import MODELS, abstract_params

VIT = {"patch_size": (4, 4), "width": 8, "depth": 2, "mlp_dim": 12, "num_heads": 2}
FAMILIES = {
    "vit": ("vit", VIT),
    "scanned": (
        "vit",
        VIT | {"pool": "map", "gelu": "erf", "layer_scale": 0.1, "scan": True, "qk_norm": True, "registers": 2},
    ),
    "axial": ("vit", VIT | {"pool": "gap", "axial": True}),
    "relative": ("vit", VIT | {"positions": "relative", "positions_at": "every_layer"}),
    "relative_bias": ("vit", VIT | {"positions": "relative_bias", "positions_at": "shared"}),
    "tanh": ("vit", VIT | {"positions": "learned_2d", "positions_at": "shared", "representation_size": 6}),
    "hybrid": ("vit", VIT | {"patch_size": (1, 1), "stem": "resnet", "stem_depths": (1,), "stem_width": 4}),
    "mixer": (
        "mixer",
        {"patch_size": (4, 4), "width": 8, "depth": 2, "tokens_mlp_dim": 6, "channels_mlp_dim": 12},
    ),
    "resnet": ("resnet", {"depths": (1,)}),
    "yolos": ("yolos", VIT | {"queries": 3, "position_grid": (3, 3), "mid_positions": True}),
    "mae": ("mae", VIT | {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "decoder_mlp_dim": 8}),
    "masked": ("masked", VIT),
}


def tiny(family="vit", resolution=(8, 12), meta=None, **options):
    """A model of 5 classes at a resolution of 8x12 pixels, its parameters drawn at random."""
    name, fields = FAMILIES[family]
    fields = fields | options
    if MODELS[name].classifies:
        fields = {"num_classes": 5} | fields
    module = MODELS[name](**fields)
    rng = np.random.default_rng(0)
    shapes = flatten_dict(abstract_params(module, resolution), sep="/")
    params = {
        key: (rng.standard_normal(x.shape) * 0.3 + key.endswith("scale")).astype(np.float32)
        for key, x in shapes.items()
    }
    settings = {"name": name, "num_classes": 0} | fields
    meta = {"config": {"data": {"dataset": "none", "resolution": list(resolution)}}} | (meta or {})
    source = Checkpoint(f"tiny_{family}", "run", {}, settings, meta=meta)
    return Loaded(module, unflatten_dict(params, sep="/"), source, settings, module.table_grid(resolution), [])


def images(b, resolution=(8, 12)):
    return np.random.default_rng(b).integers(0, 256, (b, *resolution, 3), np.uint8)


def outputs(program, batch):
    """The program's own outputs, by JAX."""
    return {name: np.asarray(x) for name, x in jax.jit(program.run)(batch).items()}
