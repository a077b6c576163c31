"""The table of model sizes (arXiv 2010.11929, table 1, and its successors). Plain Python, so that configs can read it.

Called by: configs (to spell out a model section), models.build (tests pin every row's parameter count).
"""

from __future__ import annotations

import difflib
import re

from vit_jax.types import UserError

# width, depth, mlp_dim, num_heads.  B, L, H: arXiv 2010.11929 table 1.  Ti, S: arXiv 2012.12877 table 1 as used by
# arXiv 2106.10270.  g, G: arXiv 2106.04560 table 2.  Nano is ours: small enough to learn from scratch on two cores.
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
