"""Maps parameter names in files of the original releases and of big_vision to vit_jax names.

vit_jax names are the original release's, so most map to themselves (for the semantics of each file, see the code releases of
arXiv 2010.11929, arXiv 2105.01601 and arXiv 1912.11370).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from vit_jax.models.build import unstack_layers
from vit_jax.types import UserError, itemize

POSITIONS = "Transformer/posembed_input/pos_embedding"

# Prefixes of a tree saved with its optimizer, in its collection, or as one tower of a two-tower model.
PREFIXES = ("opt/target/", "params/img/", "params/")

# Later code numbers sub-modules per class instead of across classes.
LINEN_BLOCK = (
    ("MultiHeadDotProductAttention_0/", "MultiHeadDotProductAttention_1/"),
    ("LayerNorm_1/", "LayerNorm_2/"),
    ("MlpBlock_0/", "MlpBlock_3/"),
)

# BiT's names, after `resnet/`: (pattern, vit_jax name). `a`, `b`, `c` are the convolutions of a unit, each behind its norm.
BIT = (
    (r"root_block/standardized_conv2d/kernel", r"conv_root/kernel"),
    (r"block(\d+)/unit0*(\d+)/a/proj/standardized_conv2d(?:_\d+)?/kernel", r"block\1/unit\2/conv_proj/kernel"),
    *(
        rule
        for letter, number in zip("abc", "123", strict=True)
        for rule in (
            (
                rf"block(\d+)/unit0*(\d+)/{letter}/standardized_conv2d(?:_\d+)?/kernel",
                rf"block\1/unit\2/conv{number}/kernel",
            ),
            (rf"block(\d+)/unit0*(\d+)/{letter}/group_norm(?:_\d+)?/gamma", rf"block\1/unit\2/gn{number}/scale"),
            (rf"block(\d+)/unit0*(\d+)/{letter}/group_norm(?:_\d+)?/beta", rf"block\1/unit\2/gn{number}/bias"),
        )
    ),
    (r"group_norm/gamma", r"gn_final/scale"),
    (r"group_norm/beta", r"gn_final/bias"),
    (r"head/conv2d/(kernel|bias)", r"head/\1"),
)


def native_names(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Renames a released file's tensors to vit_jax names.

    Args:
      tensors: {name as stored: array}.

    Returns:
      (the arrays under names such as `Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel`, layers unstacked and
      GroupNorms squeezed; {stored name: reason} for tensors that belong to no image model). Names that match no rule are
      kept, so that the report can list them.

    Raises:
      UserError: two tensors map to one vit_jax name.
    """
    tensors, aside = _strip_prefix(dict(tensors))
    if any("standardized_conv2d" in name for name in tensors):
        return _from_bit(tensors), aside
    stacked, apart = (any(re.search(rf"Transformer/encoderblock{x}/", n) for n in tensors) for x in ("", r"_\d+"))
    if stacked and apart:
        raise UserError(
            "it holds layers both stacked (Transformer/encoderblock/) and apart (Transformer/encoderblock_0/)"
        )
    tensors = rename(unstack_layers(tensors), _block_name)
    tensors = {name: _squeeze_group_norm(name, x) for name, x in tensors.items()}
    if "pos_embedding" in tensors and tensors["pos_embedding"].ndim == 3:
        added = with_class_position(tensors.pop("pos_embedding"), "cls" in tensors)
        if POSITIONS in tensors:
            raise UserError(f"pos_embedding and {POSITIONS} are both in the file, and stand for one tensor")
        tensors[POSITIONS] = added
    return tensors, aside


def rename(tensors: Mapping[str, np.ndarray], new_name: Callable[[str], str]) -> dict[str, np.ndarray]:
    """Renames tensors.

    Raises:
      UserError: two tensors would get the same name, and one would be lost.
    """
    out: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    errors = []
    for name, x in tensors.items():
        new = new_name(name)
        if new in out:
            errors.append(f"{origin[new]} and {name}")
        out[new], origin[new] = x, name
    if errors:
        raise UserError(f"these tensors stand for one and the same:\n{itemize(errors)}")
    return out


def with_class_position(positions: np.ndarray, has_class_token: bool) -> np.ndarray:
    """Extends positions of patches alone to vit_jax's form: zeros for the class token, which leave the sum equal."""
    if not has_class_token:
        return positions
    return np.concatenate([np.zeros_like(positions[:, :1]), positions], axis=1)


def _strip_prefix(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    for prefix in PREFIXES:
        inside = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        if inside:
            rest = sorted(name for name in tensors if not name.startswith(prefix))
            return inside, dict.fromkeys(rest, f"outside {prefix.rstrip('/')}")
    return tensors, {}


def _block_name(name: str) -> str:
    match = re.fullmatch(r"(Transformer/encoderblock_\d+/)(.*)", name)
    if match:
        for linen, native in LINEN_BLOCK:
            if match.group(2).startswith(linen):
                return match.group(1) + native + match.group(2).removeprefix(linen)
    return name


def _squeeze_group_norm(name: str, x: np.ndarray) -> np.ndarray:
    """Squeezes a GroupNorm's scale or bias from (1, 1, 1, c), as the release stores it, to (c,)."""
    is_norm = re.search(r"(^|/)gn(\d+|_root|_proj|_final)/(scale|bias)$", name)
    return x.reshape(-1) if is_norm and x.ndim == 4 and x.shape[:3] == (1, 1, 1) else x


def _from_bit(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    def ours(name: str) -> str:
        plain = name.removeprefix("resnet/")
        for pattern, native in BIT:
            if re.fullmatch(pattern, plain):
                return re.sub(pattern, native, plain)
        return plain

    out = {name: _squeeze_group_norm(name, x) for name, x in rename(tensors, ours).items()}
    head = out.get("head/kernel")
    if head is not None and head.ndim == 4 and head.shape[:2] == (1, 1):
        out["head/kernel"] = head[0, 0]
    return out


def bit_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a vit_jax ResNet's parameters to BiT's names: the inverse of `native_names` for BiT's files."""
    letters = {"1": "a", "2": "b", "3": "c"}
    fixed = {
        "conv_root/kernel": "root_block/standardized_conv2d/kernel",
        "gn_final/scale": "group_norm/gamma",
        "gn_final/bias": "group_norm/beta",
        "head/kernel": "head/conv2d/kernel",
        "head/bias": "head/conv2d/bias",
    }
    out = {}
    for name, x in tensors.items():
        match = re.fullmatch(r"block(\d+)/unit(\d+)/(conv|gn)(\d|_proj)/(\w+)", name)
        if match:
            block, unit, kind, which, leaf = match.groups()
            place = "a/proj" if which == "_proj" else letters[which]
            layer = "standardized_conv2d" if kind == "conv" else "group_norm"
            leaf = {"scale": "gamma", "bias": "beta"}.get(leaf, leaf)
            out[f"resnet/block{block}/unit{int(unit):02d}/{place}/{layer}/{leaf}"] = x
        else:
            out[f"resnet/{fixed[name]}"] = x[None, None] if name == "head/kernel" else x
    return out
