"""The program that XLA makes of a step whose parameters are split: each device computes its own rows, with whole parameters."""

import functools
import re

import jax
import numpy as np
import pytest
from flax import traverse_util
from tiny import QUICK

from vit_jax import partition
from vit_jax.models import build
from vit_jax.models.vit import VisionTransformer
from vit_jax.train.objectives import softmax_cross_entropy
from vit_jax.train.optim import make_optimizer
from vit_jax.train.step import init_state, jit_train_step, make_train_step
from vit_jax.types import Batch

# No size of the model is the batch's, so an array with an axis of 88 is one that holds the whole batch. The odd number of
# classes does not divide, so the head's kernel is split along the axis that the product contracts.
BATCH, CLASSES = 88, 35
KINDS = [
    {},
    pytest.param({"scan": True}, marks=pytest.mark.slow),
    pytest.param({"remat": "block"}, marks=pytest.mark.slow),
    {"scan": True, "remat": "dots"},
    pytest.param({"scan": True, "remat": "block"}, marks=pytest.mark.slow),
]


def vit(**options):
    sizes = {"patch_size": (4, 4), "width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 8, "representation_size": 32}
    return VisionTransformer(CLASSES, **{**sizes, "dropout": 0.1, **options})


@functools.cache
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 8, 8, 3), np.uint8)
    return Batch(images, rng.integers(0, CLASSES, BATCH).astype(np.int32), np.ones(BATCH, np.float32))


@functools.cache
def initial():
    """Parameters, all of them random: a head of zeros has no gradient to pass on."""
    rng = np.random.default_rng(1)
    return {
        name: np.asarray(x) + rng.normal(0, 0.1, x.shape).astype(np.float32)
        for name, x in traverse_util.flatten_dict(build.init_params(vit(), jax.random.key(0), (8, 8)), sep="/").items()
    }


def compile_step(model, mesh, *, constrained=True):
    """(state of step 0, compiled step)."""
    params = build.stack_layers(initial()) if model.scan else initial()
    forward = build.make_forward(model)
    optimizer, schedule = make_optimizer(total_steps=10, name="sgd", lr=0.1, decay="constant")
    step = make_train_step(
        forward=partition.on_mesh(forward, mesh) if constrained else forward,
        objective=softmax_cross_entropy(),
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
    )
    nested = traverse_util.unflatten_dict({name: jax.numpy.asarray(x) for name, x in params.items()}, sep="/")
    state = init_state(nested, optimizer, jax.random.key(0), mesh, average=False)
    rows = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=partition.batch_sharding(mesh)), batch()
    )
    return state, jit_train_step(step, state, mesh).lower(state, rows).compile(QUICK)


def after_a_step(state, step, mesh):
    state, _ = step(state, partition.put_batch(batch(), mesh))
    return build.unstack_layers(traverse_util.flatten_dict(jax.tree.map(np.asarray, state.params), sep="/"))


def whole_batches(step):
    """Shapes in a program that have an axis as long as the global batch."""
    shapes = set(re.findall(r"\w+\[([\d,]+)\]", step.as_text()))
    assert len(shapes) > 50
    return {shape for shape in shapes if str(BATCH) in shape.split(",")}


@pytest.fixture(autouse=True)
def small_parameters_are_split(monkeypatch):
    monkeypatch.setattr(partition, "MIN_SHARDED_SIZE", 2**9)


@functools.cache
def on_one_device(**kind):
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    return after_a_step(*compile_step(vit(**kind), mesh), mesh)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " and ".join(map(str, kind.values())) or "unrolled")
def test_no_device_holds_the_whole_batch_and_the_numbers_are_one_devices(kind):
    mesh = partition.make_mesh(8)
    state, step = compile_step(vit(**kind), mesh)
    assert whole_batches(step) == set()
    # Scanned layers draw other keys for dropout.
    found, expected = after_a_step(state, step, mesh), on_one_device(scan=kind.get("scan", False))
    for name, right in expected.items():
        if name.endswith("key/bias"):  # its gradient is 0: attention does not see a shift that all keys share
            continue
        moved, error = np.linalg.norm(right - initial()[name]), np.linalg.norm(found[name] - right)
        assert moved > 0, name
        assert error < 1e-5 * np.linalg.norm(right), name
        assert error < 1e-4 * moved, name


@pytest.mark.slow
def test_unsaid_the_partitioner_gives_every_device_the_whole_batch():
    _, step = compile_step(vit(scan=True), partition.make_mesh(8), constrained=False)
    assert f"{BATCH},5,32" in whole_batches(step)
