"""Small checkpoints as others would have written them, and what a loaded one answers; for the tests of this folder."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import numpy_vit
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def save_npz(path, tensors):
    """The path as text, whatever its suffix (`np.savez` would add one to a name)."""
    with path.open("wb") as file:
        np.savez(file, **tensors)
    return str(path)


def save_safetensors(path, tensors):
    save_file({name: np.asarray(x, order="C") for name, x in tensors.items()}, path)
    return str(path)


def golden_tensors(name):
    return load_file(GOLDEN / name / "model.safetensors")


def golden_answer(name):
    """(images, what the library that made it answers)."""
    with np.load(GOLDEN / name / "answer.npz") as kept:
        return kept["images"], kept["answer"]


def copy_golden(name, folder, *, config=None, tensors=None):
    """A golden folder with other values in its config (None removes a key) or other tensors; its path as text."""
    shutil.copytree(GOLDEN / name, folder)
    value = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps({key: x for key, x in value.items() if x is not None}))
    if tensors is not None:
        save_safetensors(folder / "model.safetensors", tensors)
    return str(folder)


def flat(loaded):
    """{our name: array} of what was loaded."""
    return flatten_dict(loaded.params, sep="/")


def images(h=8, w=12, count=3):
    return np.random.default_rng(3).integers(0, 256, (count, h, w, 3), np.uint8)


def run(loaded, x):
    """Outputs for uint8 images, or for floats as they are; compiled in haste, as it runs once."""
    x = numpy_vit.pixels(x).astype(np.float32) if x.dtype == np.uint8 else x
    hasty = {"xla_backend_optimization_level": 0}
    return jax.jit(loaded.module.apply, compiler_options=hasty)({"params": loaded.params}, x)


def agree(found, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    assert np.abs(expected).max() > 0.3, "all near zero: equal to anything"
    np.testing.assert_allclose(np.asarray(found), expected, rtol=tolerance, atol=tolerance)


def same_bits(found, expected):
    """Every array equal: names, dtypes, shapes, bytes."""
    assert sorted(found) == sorted(expected)
    for name, x in expected.items():
        assert (found[name].dtype, found[name].shape) == (x.dtype, x.shape), name
        assert found[name].tobytes() == x.tobytes(), name
