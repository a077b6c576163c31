"""The table of variants: its rows, and how many parameters each has.

Counts of released models are the release's. Every count is also worked out here by hand-written formulas, which give those
of rows without a release; the formulas are held to the released counts, and the models to the formulas.
"""

import pytest

from vit_jax.models import build
from vit_jax.models.variants import (
    HYBRIDS,
    MIXER_SIZES,
    RESNET_DEPTHS,
    VIT_SIZES,
    any_variant,
    hybrid_variant,
    mixer_variant,
    resnet_variant,
    vit_variant,
)
from vit_jax.types import UserError

# Width, depth, mlp_dim, heads: arXiv 2010.11929 table 1; 2012.12877 table 1; 2106.04560 table 2; Nano is ours.
SIZES = {
    "Nano": (96, 6, 384, 3),
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
}
# Size of the Transformer, units per stage of the ResNet, side of a patch of its features, pixels between features.
STEMS = {
    "R+Ti/16": ("Ti", (), 8, 4),
    "R26+S/32": ("S", (2, 2, 2, 2), 1, 32),
    "R26+B/32": ("B", (2, 2, 2, 2), 1, 32),
    "R50+B/16": ("B", (3, 4, 9), 1, 16),
    "R50+B/32": ("B", (3, 4, 6, 3), 1, 32),
    "R50+L/16": ("L", (3, 4, 9), 1, 16),
    "R50+L/32": ("L", (3, 4, 6, 3), 1, 32),
}
# arXiv 1512.03385 table 1, R200 arXiv 1603.05027; R26 has two units a stage.
DEPTHS = {
    "R26": (2, 2, 2, 2),
    "R50": (3, 4, 6, 3),
    "R101": (3, 4, 23, 3),
    "R152": (3, 8, 36, 3),
    "R200": (3, 24, 36, 3),
}
# Width, depth, hidden units across tokens and across channels: arXiv 2105.01601 table 1.
MIXERS = {
    "S": (512, 8, 256, 2048),
    "B": (768, 12, 384, 3072),
    "L": (1024, 24, 512, 4096),
    "H": (1280, 32, 640, 5120),
}

# 224 pixels, 1000 classes, as the releases' own tests and files have them.
RELEASED_COUNTS = {
    ("Ti/16", "token"): 5_717_416,
    ("S/16", "token"): 22_050_664,
    ("S/32", "token"): 22_878_952,
    ("B/8", "token"): 86_576_872,
    ("B/16", "token"): 86_567_656,
    ("B/32", "token"): 88_224_232,
    ("L/16", "token"): 304_326_632,
    ("L/32", "token"): 306_535_400,
    ("H/14", "token"): 632_045_800,
    ("B/16", "gap"): 86_566_120,
    ("B/32", "gap"): 88_222_696,
    ("S/16", "gap"): 22_049_896,
    ("S/32", "gap"): 22_878_184,
    ("R+Ti/16", "token"): 6_337_704,
    ("R26+S/32", "token"): 36_431_912,
    ("R26+B/32", "token"): 101_383_976,
    ("R50+B/16", "token"): 98_659_112,
    ("R50+L/32", "token"): 328_994_856,
    ("Mixer-B/16", None): 59_880_472,
    ("Mixer-B/32", None): 60_293_428,
    ("Mixer-L/16", None): 208_196_168,
    ("R50x1", None): 25_549_352,
    ("R50x3", None): 217_319_080,
    ("R101x1", None): 44_541_480,
    ("R101x3", None): 387_934_888,
    ("R152x2", None): 236_335_208,
    ("R152x4", None): 936_533_224,
}
# One of every row of the tables that has no released count.
UNRELEASED = [
    *((f"{size}/{patch}", "token") for size, patch in (("Nano", 16), ("g", 14), ("G", 14))),
    *((f"R50+{size}", "token") for size in ("B/32", "L/16")),
    *((f"Mixer-{size}", None) for size in ("S/32", "H/14")),
    ("R26x1", None),
    ("R200x3", None),
]


def dense(inputs, outputs):
    return inputs * outputs + outputs


def transformer(size, tokens, pool, classes=1000):
    """What follows the patch embedding; equations 1 to 4, and a norm of scale and bias before and after each block."""
    d, depth, mlp, _ = SIZES[size]
    attention = 4 * dense(d, d)
    block = 2 * d + attention + 2 * d + dense(d, mlp) + dense(mlp, d)
    cls = d if pool == "token" else 0
    return cls + (tokens * d + cls) + depth * block + 2 * d + dense(d, classes)


def resnet(depths, width, post_activation):
    """Kernels and norms of a ResNet of bottlenecks, and the channels that come out of it."""
    total, channels = 7 * 7 * 3 * width, width
    if post_activation:
        total += 2 * width
    for stage, depth in enumerate(depths):
        middle = width * 2**stage
        for unit in range(depth):
            total += channels * middle + 3 * 3 * middle * middle + middle * 4 * middle
            if post_activation:
                total += 2 * (middle + middle + 4 * middle)
            else:
                total += 2 * (channels + middle + middle)
            if unit == 0:  # a projection, whose norm is the post-activation unit's
                total += channels * 4 * middle + (2 * 4 * middle if post_activation else 0)
            channels = 4 * middle
    return total, channels


def expected_count(variant, pool, classes=1000):
    """Parameters at 224 pixels."""
    if variant.startswith("Mixer-"):
        size, patch = variant.removeprefix("Mixer-").split("/")
        d, depth, across, channels = MIXERS[size]
        tokens = (224 // int(patch)) ** 2
        mixing = dense(tokens, across) + dense(across, tokens) + dense(d, channels) + dense(channels, d)
        return dense(int(patch) ** 2 * 3, d) + depth * (4 * d + mixing) + 2 * d + dense(d, classes)
    if "+" in variant:
        size, depths, patch, stride = STEMS[variant]
        total, channels = resnet(depths, 64, post_activation=True)
        embedding = dense(patch * patch * channels, SIZES[size][0])
        return total + embedding + transformer(size, (224 // stride // patch) ** 2, pool)
    if "x" in variant:
        layers, factor = variant.split("x")
        total, channels = resnet(DEPTHS[layers], 64 * int(factor), post_activation=False)
        return total + 2 * channels + dense(channels, classes)
    size, patch = variant.split("/")
    embedding = dense(int(patch) ** 2 * 3, SIZES[size][0])
    return embedding + transformer(size, (224 // int(patch)) ** 2, pool)


def count(variant, pool):
    settings = any_variant(variant)
    kind = build.MODELS[settings.pop("name")]
    options = {} if pool is None else {"pool": pool}
    model = kind(num_classes=1000, **settings, **options)
    model = model.clone(scan=True) if "scan" in vars(model) else model  # one layer is traced in place of all
    return build.count_params(build.abstract_params(model, (224, 224)))


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "pool"), RELEASED_COUNTS)
def test_parameter_counts_are_the_releases(variant, pool):
    assert count(variant, pool) == RELEASED_COUNTS[variant, pool]


def test_the_formulas_give_every_released_count():
    assert {row: expected_count(*row) for row in RELEASED_COUNTS} == RELEASED_COUNTS


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "pool"), UNRELEASED)
def test_parameter_counts_of_rows_without_a_release_follow_the_formulas(variant, pool):
    assert count(variant, pool) == expected_count(variant, pool)


def test_every_row_is_pinned():
    assert VIT_SIZES == SIZES
    assert {name: row[:3] for name, row in STEMS.items()} == HYBRIDS
    assert RESNET_DEPTHS == DEPTHS
    assert MIXER_SIZES == MIXERS
    counted = {variant for variant, _ in [*RELEASED_COUNTS, *UNRELEASED]}
    assert {variant.split("/")[0] for variant in counted} >= {*SIZES, *(f"Mixer-{size}" for size in MIXERS)}
    assert counted >= set(STEMS)
    assert {variant.split("x")[0] for variant in counted if "x" in variant[1:] and "/" not in variant} == set(DEPTHS)


# Spelling


@pytest.mark.parametrize(
    ("variant", "patch"), [("B/16", (16, 16)), ("Ti/16x8", (16, 8)), ("g/14", (14, 14)), ("Nano/4", (4, 4))]
)
def test_a_variant_spells_out_its_size_and_patch(variant, patch):
    width, depth, mlp_dim, num_heads = SIZES[variant.split("/")[0]]
    assert any_variant(variant) == {
        "name": "vit",
        "patch_size": patch,
        "width": width,
        "depth": depth,
        "mlp_dim": mlp_dim,
        "num_heads": num_heads,
    }


def test_a_hybrid_is_a_vit_on_a_resnet():
    assert any_variant("R50+L/16") == {
        "name": "vit",
        "patch_size": (1, 1),
        "width": 1024,
        "depth": 24,
        "mlp_dim": 4096,
        "num_heads": 16,
        "stem": "resnet",
        "stem_depths": (3, 4, 9),
    }
    assert any_variant("R+Ti/16")["patch_size"] == (8, 8)


def test_a_resnet_spells_out_layers_and_width():
    assert any_variant("R152x2") == {"name": "resnet", "depths": (3, 8, 36, 3), "width_factor": 2}


def test_a_mixer_spells_out_its_size_and_patch():
    assert any_variant("Mixer-L/16") == {
        "name": "mixer",
        "patch_size": (16, 16),
        "width": 1024,
        "depth": 24,
        "tokens_mlp_dim": 512,
        "channels_mlp_dim": 4096,
    }


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("Tiny/16", "no size 'Tiny'.*did you mean 'Ti'"),
        ("B16", "no size 'B16'.*did you mean 'B'"),
        ("B", "no patch size; write it as B/16"),
        ("B/0", "no patch size"),
        ("B/16x0", "no patch size"),
        ("B/x", "no patch size"),
    ],
)
def test_a_wrong_variant_names_the_nearest_right_one(variant, message):
    with pytest.raises(UserError, match=message):
        vit_variant(variant)


@pytest.mark.parametrize(
    ("spell", "variant", "message"),
    [
        (
            hybrid_variant,
            "R50+B/8",
            r"no hybrid 'R50\+B/8'; did you mean 'R50\+B/\d+'\? \(known: R\+Ti/16, R26\+S/32, ",
        ),
        (any_variant, "R26+L/32", r"no hybrid 'R26\+L/32'; did you mean 'R26\+"),
        (resnet_variant, "R50", "no ResNet 'R50'; write it as R26, R50, R101, R152, R200 and a width: R50x1, R152x2"),
        (resnet_variant, "R50x0", "no ResNet 'R50x0'"),
        (any_variant, "R60x1", "no ResNet 'R60x1'"),
        (mixer_variant, "Ti/16", "no Mixer 'Ti/16'; sizes are S, B, L, H, and B/16 has patches of 16 pixels"),
        (mixer_variant, "B/0", "no Mixer 'B/0'"),
        (any_variant, "Mixer-B", "no Mixer 'B'"),
        (any_variant, "Mixer-B/16x8", "no Mixer 'B/16x8'"),
    ],
)
def test_a_wrong_variant_of_another_family_says_how_to_write_it(spell, variant, message):
    with pytest.raises(UserError, match=message):
        spell(variant)
