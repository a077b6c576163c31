"""A section's reader and sections for it, for the tests of configs."""

from typing import Any, Literal

import ml_collections

from vit_jax.resolve import fill
from vit_jax.types import Duration


def section(**values):
    return ml_collections.ConfigDict(values)


def schema(
    *,
    size: tuple[int, int],
    rate: float = 0.5,
    count: int = 3,
    name: Literal["adam", "sgd"] = "adam",
    flip: bool = True,
    every: Duration = "5%",
    shots: tuple[int, ...] = (1, 5),
    label: str = "",
    injected: Any = None,
):
    """Returns its arguments."""
    return dict(locals())


def completed(**values):
    """(completed section, errors)."""
    made = section(**values)
    return made, fill(made, schema, "part", ["injected"])
