"""A Vision Transformer small enough to run in numpy, and what its tests feed it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vit_jax.models import build
from vit_jax.models.variants import vit_variant
from vit_jax.models.vit import VisionTransformer

# Compiles in a third of the time, which is most of what these tests take; what is computed is the same.
QUICK = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # the option is gone later
    QUICK["xla_cpu_use_fusion_emitters"] = False


def tiny_vit(**options):
    """Patches of 4x6 pixels, width 8, two blocks, two heads, 5 classes, but for the options given."""
    sizes = {"patch_size": (4, 6), "width": 8, "depth": 2, "mlp_dim": 12, "num_heads": 2}
    return VisionTransformer(**{"num_classes": 5, **sizes, **options})


def random_images(b=3, h=8, w=12):
    return np.random.default_rng(1).integers(0, 256, (b, h, w, 3), np.uint8)


def nested(params):
    return traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in params.items()}, sep="/")


def flat(params):
    return {name: np.asarray(x) for name, x in traverse_util.flatten_dict(params, sep="/").items()}


def shapes(params):
    return {name: x.shape for name, x in params.items()}


def model_shapes(model, resolution=(8, 12)):
    return shapes(traverse_util.flatten_dict(build.abstract_params(model, resolution), sep="/"))


def run(model, params, images, **asked):
    """Outputs for uint8 images; `params` flat or nested; `asked` is `train`, `capture` or `rngs`."""

    def apply(params, x):
        return model.apply({"params": params}, build.normalize(x), **asked)

    params = traverse_util.unflatten_dict(traverse_util.flatten_dict(params, sep="/"), sep="/")
    return jax.jit(apply, compiler_options=QUICK)(params, jnp.asarray(images))


def draw(model, seed=0):
    """Every parameter of a looped model at random, so that none is zero or one."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) * 0.4 + name.endswith("scale")).astype(np.float32)
        for name, shape in model_shapes(model).items()
    }


def shapes_of(variant, **options):
    model = VisionTransformer(**{k: v for k, v in vit_variant(variant).items() if k != "name"}, **options)
    return model_shapes(model, (224, 224))
