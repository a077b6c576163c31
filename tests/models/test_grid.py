"""How many tokens a model makes of an image, in rows and columns."""

import jax
import jax.numpy as jnp
import pytest
from tiny import tiny_vit

from vit_jax.models import build
from vit_jax.models.resnet import ResNet
from vit_jax.models.variants import any_variant


@pytest.mark.parametrize(
    ("variant", "resolution", "grid"),
    [
        ("B/16", (224, 384), (14, 24)),
        ("R50+B/16", (224, 224), (14, 14)),
        ("R50+B/16", (225, 240), (15, 15)),  # 225 -> 113 -> 57 -> 29 -> 15
        ("R50+B/32", (384, 33), (12, 2)),  # 33 -> 17 -> 9 -> 5 -> 3 -> 2
        ("R+Ti/16", (224, 384), (7, 12)),
        ("R+Ti/16", (221, 224), (7, 7)),  # 221 -> 111 -> 56
        ("R50x1", (224, 257), (7, 9)),  # 257 -> 129 -> 65 -> 33 -> 17 -> 9
        ("Mixer-B/16", (224, 64), (14, 4)),
    ],
)
def test_the_grid_of_tokens_by_hand(variant, resolution, grid):
    settings = any_variant(variant)
    model = build.MODELS[settings.pop("name")](num_classes=0, **settings)
    assert model.grid(resolution) == grid


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [(37, 50), (65, 16)])
def test_the_grid_is_the_number_of_tokens(resolution):
    models = [
        tiny_vit(stem="resnet", stem_depths=(1, 1), stem_width=4, patch_size=(1, 1), pool="gap"),
        tiny_vit(stem="resnet", stem_width=4, patch_size=(1, 1), pool="gap"),
        ResNet(5, (1,)),
        ResNet(5, (1, 1, 1)),
    ]
    for model in models:
        images = jnp.zeros((1, *resolution, 3))
        tokens = jax.eval_shape(lambda x, model=model: model.init_with_output(jax.random.key(0), x), images)[0].tokens
        gh, gw = model.grid(resolution)
        assert tokens.shape[1] == gh * gw
