"""Parameters that are trained differently from others: a rate that grows with depth, factors and frozen parameters by pattern."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.types import UserError, nearest

# {name of a parameter: (name in a looped model, layer) of each of its layers}, from `models.layers.find_layers`.
Layers = Mapping[str, Sequence[tuple[str, int]]]
SHOWN = 4  # modules of the plan's line on frozen parameters


@dataclasses.dataclass(frozen=True)
class Groups:
    """The factor on the learning rate of each parameter.

    Args:
      factors: {name of a parameter: factor of each of its layers}, 0 for a frozen layer.
      layers: see `Layers`.
    """

    factors: Mapping[str, tuple[float, ...]]
    layers: Layers

    @property
    def frozen(self) -> frozenset[str]:
        """Parameters that are frozen whole: they have no gradient and no optimizer state."""
        return frozenset(name for name, factors in self.factors.items() if not any(factors))

    @property
    def partly(self) -> frozenset[str]:
        """Stacks of which some layers are frozen: their gradient is computed and then set to zero."""
        return frozenset(name for name, factors in self.factors.items() if any(factors) and not all(factors))

    @property
    def differ(self) -> bool:
        """Whether a parameter that is trained has another factor than 1."""
        return any(set(factors) != {1.0} for name, factors in self.factors.items() if name not in self.frozen)

    def scale(self, tree: Any) -> Any:
        """Multiplies each layer's update by its factor."""
        return self._multiply(tree, lambda factor: factor)

    def silence(self, tree: Any) -> Any:
        """Sets the gradients of frozen layers to zero."""
        return self._multiply(tree, lambda factor: float(factor > 0))

    def _multiply(self, tree: Any, of: Callable[[float], float]) -> Any:
        def multiply(path: Any, x: jax.Array) -> jax.Array:
            factors = [of(factor) for factor in self.factors[jax.tree_util.keystr(path, simple=True, separator="/")]]
            if len(set(factors)) == 1:
                return x if factors[0] == 1 else x * jnp.asarray(factors[0], x.dtype)
            return x * jnp.asarray(factors, x.dtype).reshape(-1, *(1,) * (x.ndim - 1))

        return jax.tree_util.tree_map_with_path(multiply, tree)

    def describe(self, params: Any) -> list[tuple[str, str]]:
        """Rows of a run's plan: the rates by layer, and what is frozen. `params` is a tree of arrays or shapes."""
        rates: dict[int, set[float]] = {}
        still: dict[tuple[int, str], int] = {}  # by layer and module
        sizes = {name: x.size for name, x in flatten_dict(params, sep="/").items()}
        for name, slices in self.layers.items():
            for (looped, layer), factor in zip(slices, self.factors[name], strict=True):
                if factor:
                    rates.setdefault(layer, set()).add(factor)
                else:
                    module = "/".join(looped.split("/")[: 2 if looped.startswith("Transformer/") else 1])
                    still[layer, module] = still.get((layer, module), 0) + sizes[name] // len(slices)
        rows = []
        if self.differ:
            lines = [f"{layer} {' and '.join(f'x{x:.3g}' for x in sorted(rates[layer]))}" for layer in sorted(rates)]
            rows.append(("rates", f"of layer {', '.join(lines)}"))
        if still:
            total, more = sum(sizes.values()), len(still) - SHOWN
            listed = ", ".join(module for _, module in sorted(still)[:SHOWN]) + (
                f" and {more} more" if more > 0 else ""
            )
            rows.append(("frozen", f"{sum(still.values()):,} of {total:,} parameters: {listed}"))
        if self.partly:
            rows.append(
                ("note", f"freezing {', '.join(sorted(self.partly)[:1])} in part saves no work; model.scan=False does")
            )
        return rows


def make_groups(
    layers: Layers, layer_decay: float = 1.0, freeze: Sequence[str] = (), multipliers: Sequence[str] = ()
) -> Groups | None:
    """The groups that the keys of `make_optimizer` describe; None if all parameters are trained alike.

    Raises:
      UserError: a pattern that no parameter has, a factor that is none, a decay for a model without layers, nothing to train.
    """
    if layer_decay == 1 and not freeze and not multipliers:
        return None
    names = [name for slices in layers.values() for name, _ in slices]
    last = max((layer for slices in layers.values() for _, layer in slices), default=0)
    if not 0 < layer_decay <= 1:
        raise UserError(f"optim.layer_decay is {layer_decay}; expected a factor above 0, and 1 for none")
    if layer_decay != 1 and last == 0:
        raise UserError("optim.layer_decay is for models with a stack of blocks; this one has none: leave it out")
    fixed = {pattern.removeprefix("!"): float(not pattern.startswith("!")) for pattern in freeze}
    factor = dict(map(_parse, multipliers))
    _check_patterns(names, "freeze", fixed)
    _check_patterns(names, "multipliers", factor)

    def of(name: str, layer: int) -> float:
        if _last_match(fixed, name, 0.0):
            return 0.0
        return layer_decay ** (last - layer) * _last_match(factor, name, 1.0)

    found = Groups({name: tuple(of(*one) for one in slices) for name, slices in layers.items()}, layers)
    if len(found.frozen) == len(layers):
        raise UserError(f"optim.freeze={','.join(freeze)} leaves no parameter to train; add !head/* to train the head")
    return found


def without(tree: Any, frozen: frozenset[str]) -> Any:
    """The part of a parameter tree that is trained."""
    if not frozen:
        return tree
    return unflatten_dict({k: x for k, x in flatten_dict(tree, sep="/").items() if k not in frozen}, sep="/")


def together(whole: Any, trained: Any, frozen: frozenset[str]) -> Any:
    """A whole parameter tree, with the values of its trained part replaced."""
    if not frozen:
        return trained
    return unflatten_dict(flatten_dict(whole, sep="/") | flatten_dict(trained, sep="/"), sep="/")


def _parse(text: str) -> tuple[str, float]:
    pattern, equals, number = text.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        factor = math.nan
    if not equals or not 0 < factor < math.inf:
        raise UserError(
            f"optim.multipliers has {text!r}; expected PATTERN=FACTOR with a factor above 0, as in head/*=10"
        )
    return pattern, factor


def _check_patterns(names: Sequence[str], key: str, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            tops = {"/".join(name.split("/")[:2]) + "/*" if "/" in name else name for name in names}
            raise UserError(f"optim.{key} has {pattern!r}, which no parameter's name matches; {nearest(pattern, tops)}")


def _last_match(patterns: Mapping[str, float], name: str, default: float) -> float:
    return next((x for pattern, x in reversed([*patterns.items()]) if fnmatch.fnmatchcase(name, pattern)), default)
