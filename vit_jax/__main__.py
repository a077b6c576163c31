"""`python -m vit_jax VERB` is `vit_jax VERB`."""

from vit_jax.cli.main import program

if __name__ == "__main__":
    program()
