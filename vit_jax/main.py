"""`python -m vit_jax.main --config=configs/NAME.py:ARGS --workdir=DIR --config.key=value`: the spelling of `vit_jax train` that
other code bases use, with the same flags and exit codes."""

from vit_jax.cli.train import main
from vit_jax.process import begin, finish

__all__ = ["main"]

if __name__ == "__main__":
    begin()
    finish(main)
