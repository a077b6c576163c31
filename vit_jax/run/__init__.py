"""A run in one direction: resolve -> settle -> build -> train, each once, from a config and a workdir to a result.

`from vit_jax.run import run` is the whole of it. The parts import in one direction as well: schema < settle < assemble, record,
initial < job < plan, extend, agreement, hooks; lease < mirror; all of them < execute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.run.execute import dry_run as dry_run
    from vit_jax.run.execute import run as run

__all__ = ["dry_run", "run"]


def __getattr__(name: str) -> Any:
    # Imported when first used: the results page reads `record` alone, and should not wait for jax.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vit_jax.run import execute

    return getattr(execute, name)
