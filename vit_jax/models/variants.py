"""The table of model sizes (arXiv 2010.11929, table 1, and its successors). Plain Python, so that configs can read it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from vit_jax.types import UserError

# width, depth, mlp_dim, num_heads.  B, L, H: arXiv 2010.11929 table 1.  Ti, S: arXiv 2012.12877 table 1 as used by
# arXiv 2106.10270.  g, G: arXiv 2106.04560 table 2.  Nano is not published: small enough to learn from scratch on two cores.
VIT_SIZES = {
    "Nano": (96, 6, 384, 3),
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
}

# Hybrids: size, units per stage of the ResNet, patch on its features.  Stages (3, 4, 9) are the paper's option (ii), stride 16;
# four stages are its option (i), stride 32 (section 3.1).  R+Ti/16 is from arXiv 2106.10270 and has stride 32 despite its name.
HYBRIDS = {
    "R+Ti/16": ("Ti", (), 8),
    "R26+S/32": ("S", (2, 2, 2, 2), 1),
    "R26+B/32": ("B", (2, 2, 2, 2), 1),
    "R50+B/16": ("B", (3, 4, 9), 1),
    "R50+B/32": ("B", (3, 4, 6, 3), 1),
    "R50+L/16": ("L", (3, 4, 9), 1),
    "R50+L/32": ("L", (3, 4, 6, 3), 1),
}

# Units per stage.  R50, R101, R152: arXiv 1512.03385 table 1.  R200: arXiv 1603.05027.  R26 has two units per stage.
RESNET_DEPTHS = {
    "R26": (2, 2, 2, 2),
    "R50": (3, 4, 6, 3),
    "R101": (3, 4, 23, 3),
    "R152": (3, 8, 36, 3),
    "R200": (3, 24, 36, 3),
}

# width, depth, hidden units across tokens and across channels: arXiv 2105.01601 table 1.
MIXER_SIZES = {
    "S": (512, 8, 256, 2048),
    "B": (768, 12, 384, 3072),
    "L": (1024, 24, 512, 4096),
    "H": (1280, 32, 640, 5120),
}


def vit_variant(variant: str) -> dict:
    """Spells out a variant such as `B/16` as arguments of `VisionTransformer`.

    Args:
      variant: size and patch, `SIZE/P` (square patch of P pixels) or `SIZE/HxW`.

    Returns:
      {name, patch_size: (h, w) pixels, width, depth, mlp_dim, num_heads}.

    Raises:
      UserError: unknown size or malformed patch, with the nearest right one.
    """
    match = re.fullmatch(r"(\w+)/(\d+)(?:x(\d+))?", variant)
    size = match.group(1) if match else variant.split("/")[0]
    if size not in VIT_SIZES:
        near = difflib.get_close_matches(size, VIT_SIZES, n=1, cutoff=0.0)[0]
        raise UserError(
            f"variant {variant!r}: no size {size!r}; sizes are {', '.join(VIT_SIZES)}; did you mean {near!r}?"
        )
    if not match or int(match.group(2)) == 0 or match.group(3) == "0":
        raise UserError(f"variant {variant!r} has no patch size; write it as {size}/16 or {size}/16x8")
    width, depth, mlp_dim, num_heads = VIT_SIZES[size]
    height = int(match.group(2))
    return {
        "name": "vit",
        "patch_size": (height, int(match.group(3) or height)),
        "width": width,
        "depth": depth,
        "mlp_dim": mlp_dim,
        "num_heads": num_heads,
    }


def hybrid_variant(variant: str) -> dict:
    """Spells out a hybrid such as `R50+B/16` as arguments of `VisionTransformer`.

    Raises:
      UserError: the variant is not in `HYBRIDS`; the message names the nearest one.
    """
    if variant not in HYBRIDS:
        raise UserError(f"no hybrid {variant!r}; {_choices(variant, HYBRIDS)}")
    size, depths, patch = HYBRIDS[variant]
    return {**vit_variant(f"{size}/{patch}"), "stem": "resnet", "stem_depths": depths}


def resnet_variant(variant: str) -> dict:
    """Spells out a ResNet such as `R152x2` as arguments of `ResNet`: layers and width factor.

    Raises:
      UserError: malformed, or unknown number of layers.
    """
    match = re.fullmatch(r"(R\d+)x(\d+)", variant)
    if not match or match[1] not in RESNET_DEPTHS or match[2] == "0":
        raise UserError(f"no ResNet {variant!r}; write it as {', '.join(RESNET_DEPTHS)} and a width: R50x1, R152x2")
    return {"name": "resnet", "depths": RESNET_DEPTHS[match[1]], "width_factor": int(match[2])}


def mixer_variant(variant: str) -> dict:
    """Spells out a Mixer such as `B/16` as arguments of `MlpMixer`.

    Raises:
      UserError: malformed or unknown size.
    """
    match = re.fullmatch(r"(\w+)/(\d+)", variant)
    if not match or match[1] not in MIXER_SIZES or match[2] == "0":
        raise UserError(f"no Mixer {variant!r}; sizes are {', '.join(MIXER_SIZES)}, and B/16 has patches of 16 pixels")
    width, depth, tokens, channels = MIXER_SIZES[match[1]]
    patch = int(match[2])
    return {
        "name": "mixer",
        "patch_size": (patch, patch),
        "width": width,
        "depth": depth,
        "tokens_mlp_dim": tokens,
        "channels_mlp_dim": channels,
    }


def any_variant(variant: str) -> dict:
    """Spells out a variant of any family: `B/16`, `R50+B/16`, `R50x1`, `Mixer-B/16`."""
    if variant.startswith("Mixer-"):
        return mixer_variant(variant.removeprefix("Mixer-"))
    if "+" in variant:
        return hybrid_variant(variant)
    return resnet_variant(variant) if re.fullmatch(r"R\d+x\d+", variant) else vit_variant(variant)


def describe_sizes(settings: Mapping[str, Any]) -> str:
    """Describes a model section's sizes on one line, by the variant's name if it has one: `Ti/16 (width 192, depth 12, ...)`."""
    if settings["name"] not in ("vit", "masked", "mae", "mixer", "resnet"):  # a user's own model
        return f"{settings['name']} ({', '.join(f'{key} {x}' for key, x in settings.items() if key != 'name')})"
    if settings["name"] == "resnet":
        return f"a ResNet of {'-'.join(map(str, settings['depths']))} units, width x{settings['width_factor']}"
    patch = "x".join(map(str, settings["patch_size"]))
    sizes: dict[str, tuple] = {**VIT_SIZES}
    keys, kind = {"width": "width", "depth": "depth", "mlp_dim": "MLP", "num_heads": "heads"}, "a ViT"
    if settings["name"] == "mixer":
        keys = {"width": "width", "depth": "depth", "tokens_mlp_dim": "token MLP", "channels_mlp_dim": "channel MLP"}
        sizes, kind = {f"Mixer-{size}": row for size, row in MIXER_SIZES.items()}, "a Mixer"
    listed = [f"{name} {settings.get(key)}" for key, name in keys.items()] + [f"patches of {patch}"]
    if settings.get("stem", "none") != "none":
        listed.append(f"of the features of a ResNet of {'-'.join(map(str, settings['stem_depths'])) or 'no'} units")
        kind, sizes = "a hybrid", {}
    matching = [size for size, row in sizes.items() if row == tuple(settings.get(key) for key in keys)]
    square = len(set(settings["patch_size"])) == 1
    title = f"{matching[0]}/{settings['patch_size'][0] if square else patch}" if matching else kind
    return f"{title} ({', '.join(listed)})"


def _choices(word: str, known: dict) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]
    return f"did you mean {near!r}? (known: {', '.join(known)})"
