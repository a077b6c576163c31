import made
import pytest

from vit_jax.sweeps.grid import load_grid


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "swept.py"
    file.write_text(made.CONFIG)
    return file


@pytest.fixture
def grid(config_file):
    """Tasks a and b, learning rates 0.1, 0.2 and 0.4, seeds 0 and 1."""
    return load_grid(str(config_file), [("train.duration", "5")])
