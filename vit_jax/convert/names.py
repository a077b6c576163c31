"""Names of parameters in released files, mapped to ours. Ours are the original release's, so most map to themselves.

Called by: run (`init`), after reading a file.
"""

from __future__ import annotations

import re

import numpy as np

# A tree saved with its optimizer or its collection around it.
PREFIXES = ("opt/target/", "params/")

# Later code numbered sub-modules per class and not across classes.
LINEN_BLOCK = (
    ("MultiHeadDotProductAttention_0/", "MultiHeadDotProductAttention_1/"),
    ("LayerNorm_1/", "LayerNorm_2/"),
    ("MlpBlock_0/", "MlpBlock_3/"),
)


def native_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a released file's tensors to ours.

    Args:
      tensors: {name as stored: array}.

    Returns:
      The same arrays under names such as `Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel`. Names that no rule
      knows are kept, so that the report can name them.
    """
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return {_block_name(name): value for name, value in tensors.items()}


def _block_name(name: str) -> str:
    match = re.fullmatch(r"(Transformer/encoderblock_\d+/)(.*)", name)
    if match:
        for linen, native in LINEN_BLOCK:
            if match.group(2).startswith(linen):
                return match.group(1) + native + match.group(2).removeprefix(linen)
    return name
