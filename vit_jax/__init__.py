"""Vision Transformer research in JAX: the paper "An Image is Worth 16x16 Words" (arXiv 2010.11929), end to end."""

__version__ = "0.1.0"
