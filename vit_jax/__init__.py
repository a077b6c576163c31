"""Vision Transformer research in JAX: the paper "An Image is Worth 16x16 Words" (arXiv 2010.11929), end to end.

Notebooks start with `from vit_jax import load_model, read_images`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.convert.load import load_model as load_model
    from vit_jax.predict import Predictor as Predictor
    from vit_jax.predict import classify as classify
    from vit_jax.predict import read_images as read_images

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "classify", "load_model", "read_images"]

# Functions for notebooks, imported when they are first used: jax takes a second, and `import vit_jax` should not.
_HOMES = {
    "Predictor": "vit_jax.predict",
    "classify": "vit_jax.predict",
    "load_model": "vit_jax.convert.load",
    "read_images": "vit_jax.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
