import jax
import made
import numpy as np
import pytest

from vit_jax.data.prepare.prepare import prepare
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


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data folder with digits in it."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare("digits", data_dir=str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny ViT with random weights, as an npz of the release's names."""
    from vit_jax.models.build import init_params
    from vit_jax.models.vit import VisionTransformer

    width, rng = 16, np.random.default_rng(0)
    module = VisionTransformer(
        patch_size=(4, 4), width=width, depth=1, mlp_dim=16, num_heads=2, num_classes=0, representation_size=0
    )
    params = init_params(module, jax.random.key(0), (8, 8))
    file = tmp_path_factory.mktemp("model") / "tiny.npz"
    flat = {"/".join(k.key for k in path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params)}
    np.savez(file, **{name: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32) for name, x in flat.items()})
    return str(file)
