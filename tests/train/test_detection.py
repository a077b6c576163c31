"""The loss of set prediction against SciPy's matching and numpy in float64, and however the batch is spread."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from vit_jax import partition
from vit_jax.models.build import init_params, make_forward
from vit_jax.models.detection import Yolos
from vit_jax.targets import Boxes
from vit_jax.train import detection
from vit_jax.train.objectives import set_prediction
from vit_jax.train.optim import make_optimizer
from vit_jax.train.step import init_state, jit_train_step, make_train_step
from vit_jax.types import Batch, Outputs

CLASSES, MOST = 3, 4


def make_batch(counts, *, seed=0, crowds=(), mask=None, size=8) -> Batch:
    """A batch with so many objects in each image; `crowds` are (image, object)."""
    rng = np.random.default_rng(seed)
    b = len(counts)
    target = Boxes(CLASSES, MOST).empty(b)
    for row, count in enumerate(counts):
        low = rng.uniform(0, 0.6, (count, 2))
        target.box[row, :count] = np.concatenate([low, low + rng.uniform(0.05, 0.4, (count, 2))], axis=1)
        target.kind[row, :count] = rng.integers(0, CLASSES, count)
        target.valid[row, :count] = 1
    for row, k in crowds:
        target.crowd[row, k] = 1
    image = rng.integers(0, 256, (b, size, size, 3), np.uint8)
    return Batch(image, target, np.ones(b, np.float32) if mask is None else np.asarray(mask, np.float32))


def make_outputs(b, q, *, seed=1) -> Outputs:
    rng = np.random.default_rng(seed)
    extra = {
        "class_logits": rng.normal(0, 2, (b, q, CLASSES + 1)).astype(np.float32),
        "boxes": rng.uniform(0.1, 0.9, (b, q, 4)).astype(np.float32),
    }
    return Outputs(None, None, None, None, extra=jax.tree.map(jnp.asarray, extra))


def corners(box):
    return np.concatenate([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], axis=-1)


def giou(a, b):
    """Of two boxes as corners, by the formula of arXiv 1902.09630."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(width, 0) * max(height, 0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return shared / union - (hull - union) / hull


def by_hand(outputs: Outputs, batch: Batch, no_object=0.1):
    """YOLOS's three losses over the whole batch, in float64, with SciPy's matching."""
    logits, boxes = (np.asarray(outputs.extra[name], np.float64) for name in ("class_logits", "boxes"))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    b, q, _ = logits.shape
    nll = weight = l1 = apart = number = 0.0
    for row in range(b):
        keep = (batch.target.valid[row] > 0) & (batch.target.crowd[row] == 0)
        box, kind = batch.target.box[row][keep].astype(np.float64), batch.target.kind[row][keep]
        centres = np.concatenate([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], axis=1)
        cost = np.array(
            [
                [
                    5 * np.abs(boxes[row, i] - centres[j]).sum()
                    - p[row, i, kind[j]]
                    - 2 * giou(corners(boxes[row, i]), box[j])
                    for j in range(len(box))
                ]
                for i in range(q)
            ]
        ).reshape(q, len(box))
        queries, objects = scipy.optimize.linear_sum_assignment(cost)
        wanted = np.full(q, CLASSES)
        wanted[queries] = kind[objects]
        each = np.where(wanted == CLASSES, no_object, 1.0)
        if batch.mask[row]:
            nll += (-np.log(p[row, np.arange(q), wanted]) * each).sum()
            weight += each.sum()
            number += len(box)
            l1 += np.abs(boxes[row, queries] - centres[objects]).sum()
            apart += sum(1 - giou(corners(boxes[row, i]), box[j]) for i, j in zip(queries, objects, strict=True))
    number = max(number, 1)
    parts = {"loss_class": nll / weight, "loss_box": l1 / number, "loss_giou": apart / number}
    return parts | {"loss": parts["loss_class"] + 5 * parts["loss_box"] + 2 * parts["loss_giou"]}


def mean(outputs, batch):
    """The values over the batch, as the training step averages them."""
    batch = jax.tree.map(jnp.asarray, batch)
    objective = set_prediction()
    values = jax.jit(lambda o, b: objective.values(o, objective.prepare(b)))(outputs, batch)
    return {name: float((x * batch.mask).sum() / batch.mask.sum()) for name, x in values.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "queries", "options"),
    [
        ((2, 0, 4, 1), 6, {}),
        ((0, 0), 5, {}),
        ((1,), 5, {}),
        ((4, 4), 2, {}),  # more objects than queries
        ((3, 2), 5, {"crowds": [(0, 1)]}),
        ((3, 2, 1), 5, {"mask": [1, 0, 1]}),
    ],
    ids=["mixed", "none", "one", "too many", "crowd", "padding row"],
)
def test_the_losses_are_those_of_yolos_by_hand(counts, queries, options):
    outputs, batch = make_outputs(len(counts), queries), make_batch(counts, **options)
    found, expected = mean(outputs, batch), by_hand(outputs, batch)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-5), name
    beyond = np.maximum(np.array(counts) - queries, 0).mean()
    assert found["left_out"] == pytest.approx(beyond)


@pytest.mark.slow
@pytest.mark.parametrize(("q", "m"), [(12, 5), (5, 5), (3, 7)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_matching_costs_as_little_as_scipys(q, m, ties):
    rng = np.random.default_rng(q)
    cost = rng.uniform(-3, 20, (6, q, m)).astype(np.float32)
    cost = cost.round(-1) if ties else cost
    valid = (np.arange(m) < rng.integers(0, m + 1, (6, 1))).astype(np.float32)
    query = np.asarray(detection.match(jnp.asarray(cost), jnp.asarray(valid), 24.0))
    for row in range(6):
        count = int(valid[row].sum())
        expected = cost[row][:, :count][scipy.optimize.linear_sum_assignment(cost[row][:, :count])].sum()
        matched = np.flatnonzero(query[row] >= 0)
        assert len(matched) == min(count, q) == len(set(query[row][matched]))
        assert set(matched) <= set(range(count))
        assert cost[row][query[row][matched], matched].sum() == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_costs_that_are_no_numbers_end_in_a_matching(bad):
    cost = np.random.default_rng(0).uniform(0, 20, (2, 6, 4)).astype(np.float32)
    cost[0, :, 2] = bad
    cost[1] = bad
    query = np.asarray(detection.match(jnp.asarray(cost), jnp.ones((2, 4)), 24.0))
    assert all(len(set(row)) == 4 and row.min() >= 0 and row.max() < 6 for row in query)


@pytest.mark.parametrize(
    ("a", "b", "iou", "generalised"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1, 1),
        ([0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], 0, -0.5),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, -0.079365),
        ([0, 0, 1, 1], [2, 0, 3, 1], 0, -1 / 3),
        ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], 0, 0),  # no area: finite
    ],
)
def test_generalised_overlap_has_its_known_values(a, b, iou, generalised):
    found = detection.overlaps(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(found, [iou, generalised], atol=1e-5)


@pytest.mark.slow
def test_a_box_of_one_pixel_and_padding_give_finite_gradients():
    batch = make_batch((1, 0))
    batch.target.box[0, 0] = [0.5, 0.5, 0.5 + 1 / 4000, 0.5 + 1 / 4000]
    batch = jax.tree.map(jnp.asarray, batch)
    objective = set_prediction()

    def loss(extra):
        outputs = Outputs(None, None, None, None, extra=extra)
        return objective.values(outputs, objective.prepare(batch))["loss"].sum()

    extra = dict(make_outputs(2, 5).extra)
    extra["boxes"] = extra["boxes"].at[0, 0].set(jnp.asarray([1e-9, 1e-9, 1e-9, 1e-9]))
    gradient = jax.jit(jax.grad(loss))(extra)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


@pytest.fixture(scope="module")
def detector():
    model = Yolos(CLASSES, (4, 4), 8, 1, 16, 2, queries=5)
    return make_forward(model), init_params(model, jax.random.key(0), (8, 8))


def run_step(detector, batch, *, devices, accumulation, fsdp=1):
    forward, params = detector
    mesh = partition.make_mesh(fsdp, jax.devices()[:devices])
    optimizer, schedule = make_optimizer(total_steps=10, name="sgd", lr=0.1, decay="constant")
    step = make_train_step(
        forward=partition.on_mesh(forward, mesh),
        objective=set_prediction().on_mesh(mesh),
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
        accumulation=accumulation,
    )
    state = init_state(
        jax.tree.map(lambda x: jnp.array(x, copy=True), params), optimizer, jax.random.key(0), mesh, average=False
    )
    state, metrics = jit_train_step(step, state, mesh)(state, partition.put_batch(batch, mesh))
    return jax.tree.map(np.asarray, (state.params, metrics))


@pytest.mark.slow
def test_devices_and_accumulation_change_no_number(detector):
    # Empty images, full ones and padding rows lie unevenly over devices and micro-batches.
    batch = make_batch((4, 0, 1, 0, 3, 3, 0, 2) * 2, mask=[1] * 13 + [0] * 3)
    whole, metrics = run_step(detector, batch, devices=1, accumulation=1)
    assert metrics["overlap"] > 0
    for spread in (
        {"devices": 8, "accumulation": 1},
        {"devices": 1, "accumulation": 4},
        {"devices": 4, "fsdp": 2, "accumulation": 4},
    ):
        params, found = run_step(detector, batch, **spread)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, whole)
        for name, value in metrics.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_matching_of_a_sharded_batch_needs_no_other_device():
    mesh = partition.make_mesh(1, jax.devices()[:4])
    rows = partition.batch_sharding(mesh)
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=rows) for s in ((8, 5, 3), (8, 3))]
    lowered = jax.jit(lambda c, v: detection.match(c, v, 24.0, mesh)).lower(*shapes)
    text = lowered.compile().as_text()
    assert "while" in text
    assert not any(word in text for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all"))
