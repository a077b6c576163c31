"""Rates by depth, factors and frozen parameters: by hand, against AdamW in numpy, and alike for looped and scanned layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax import partition
from vit_jax.flops import count_flops
from vit_jax.models import build
from vit_jax.models.layers import find_layers
from vit_jax.models.vit import VisionTransformer
from vit_jax.train.groups import make_groups
from vit_jax.train.objectives import softmax_cross_entropy
from vit_jax.train.optim import make_optimizer
from vit_jax.train.step import abstract_state, init_state, jit_train_step, make_train_step
from vit_jax.types import Batch, UserError

DEPTH = 3
BLOCK = "Transformer/encoderblock_{}/MlpBlock_3/Dense_0/kernel"


def vit(scan=False):
    return VisionTransformer(3, (4, 4), 8, DEPTH, 12, 2, scan=scan)


def layers_of(scan=False):
    return find_layers(build.abstract_params(vit(scan), (8, 8)))


def factors_of(**keys):
    """{name in a looped model: factor}, of the looped model; of the scanned one they must be the same."""
    found = []
    for scan in (False, True):
        layers = layers_of(scan)
        groups = make_groups(layers, **keys)
        found.append(
            {s.name: f for n, slices in layers.items() for s, f in zip(slices, groups.factors[n], strict=True)}
        )
    assert found[0] == found[1]
    return found[0]


def test_without_any_key_all_parameters_are_trained_alike():
    assert make_groups(layers_of()) is None


def test_the_rate_falls_by_the_decay_from_layer_to_layer():
    # MAE: layer_scales = [decay ** (num_layers - i)], with num_layers = depth + 1.
    found = factors_of(layer_decay=0.65)
    assert found["cls"] == found["embedding/kernel"] == pytest.approx(0.65**4)
    assert [found[BLOCK.format(i)] for i in range(DEPTH)] == pytest.approx([0.65**3, 0.65**2, 0.65])
    assert found["Transformer/encoder_norm/scale"] == found["head/bias"] == 1


def test_a_factor_multiplies_the_decay_and_the_last_pattern_counts():
    found = factors_of(layer_decay=0.5, multipliers=("Transformer/*=3", "Transformer/encoderblock_[12]/*=5"))
    assert [found[BLOCK.format(i)] for i in range(DEPTH)] == pytest.approx([3 * 0.125, 5 * 0.25, 5 * 0.5])
    assert (found["head/kernel"], found["cls"]) == (1, 0.5**4)


def test_frozen_parameters_are_those_of_the_patterns_without_those_after_an_exclamation_mark():
    found = factors_of(freeze=("*", "!head/*", "!Transformer/encoderblock_2/*"))
    trained = {name for name, factor in found.items() if factor}
    assert trained == {name for name in found if name.startswith(("head/", "Transformer/encoderblock_2/"))}
    assert len(trained) == 18


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"layer_decay": 0.0}, "optim.layer_decay is 0.0; expected a factor above 0, and 1 for none"),
        ({"layer_decay": 1.5}, "optim.layer_decay is 1.5"),
        (
            {"freeze": ("heads/*",)},
            r"optim.freeze has 'heads/\*', which no parameter's name matches; did you mean 'head/",
        ),
        ({"multipliers": ("hed/*=2",)}, r"optim.multipliers has 'hed/\*', which no parameter's name matches"),
        ({"multipliers": ("head/*",)}, r"optim.multipliers has 'head/\*'; expected PATTERN=FACTOR"),
        ({"multipliers": ("head/*=0",)}, r"'head/\*=0'; expected PATTERN=FACTOR with a factor above 0"),
        ({"freeze": ("*",)}, r"optim.freeze=\* leaves no parameter to train; add !head/\* to train the head"),
    ],
)
def test_mistakes_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        make_groups(layers_of(), **keys)


def test_a_model_without_blocks_has_no_decay_by_layer():
    with pytest.raises(UserError, match=r"optim.layer_decay is for models with a stack of blocks; this one has none"):
        make_groups({"kernel": (("kernel", 0),)}, layer_decay=0.5)


def test_adamw_with_decay_by_layer_in_numpy():
    """Both the direction and the decoupled decay are multiplied by the layer's own rate, as AdamW's groups do."""
    layers = {"a/kernel": (("a/kernel", 0),), "head/kernel": (("head/kernel", 1),), "head/bias": (("head/bias", 1),)}
    rng = np.random.default_rng(0)
    w = {name: rng.standard_normal((2, 3)).astype(np.float32).astype(np.float64) for name in layers}
    options = {"name": "adam", "lr": 0.1, "decay": "constant", "weight_decay": 0.3, "b1": 0.8, "b2": 0.95}
    optimizer, _ = make_optimizer(total_steps=9, layers=layers, layer_decay=0.25, **options)
    params = unflatten_dict({name: jnp.asarray(x, jnp.float32) for name, x in w.items()}, sep="/")
    state = optimizer.init(params)
    m, v = dict.fromkeys(w, 0.0), dict.fromkeys(w, 0.0)
    for t in range(1, 4):
        g = {name: rng.standard_normal((2, 3)).astype(np.float32).astype(np.float64) for name in w}
        gradients = unflatten_dict({name: jnp.asarray(x, jnp.float32) for name, x in g.items()}, sep="/")
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name in w:
            rate = 0.1 * (0.25 if name == "a/kernel" else 1)
            w[name] = w[name] * (1 - rate * 0.3 * name.endswith("kernel"))
            m[name] = 0.8 * m[name] + 0.2 * g[name]
            v[name] = 0.95 * v[name] + 0.05 * g[name] ** 2
            w[name] = w[name] - rate * m[name] / (1 - 0.8**t) / (np.sqrt(v[name] / (1 - 0.95**t)) + 1e-8)
    found = flatten_dict(params, sep="/")
    for name, right in w.items():
        np.testing.assert_allclose(found[name], right, rtol=2e-5, atol=1e-6)


def parts(scan, accumulation=1, **keys):
    """(groups, optimizer, step, mesh) of one device."""
    mesh = partition.make_mesh(1, jax.devices()[:1])
    options = {"name": "sgd", "lr": 0.1, "decay": "constant", "weight_decay": 0.1, "clip_norm": 0.5, "momentum": 0.9}
    groups = make_groups(layers_of(scan), **keys)
    optimizer, schedule = make_optimizer(total_steps=9, layers=layers_of(scan), **options, **keys)
    step = make_train_step(
        forward=build.make_forward(vit(scan)),
        objective=softmax_cross_entropy(),
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
        accumulation=accumulation,
        frozen=groups.frozen if groups else frozenset(),
    )
    return groups, optimizer, step, mesh


def params_of(scan):
    looped = {
        name: (np.random.default_rng(len(name)).standard_normal(x.shape) * 0.3).astype(np.float32)
        for name, x in flatten_dict(build.abstract_params(vit(), (8, 8)), sep="/").items()
    }
    return unflatten_dict(build.stack_layers(looped) if scan else looped, sep="/")


def trained(scan, steps=2, accumulation=1, **keys):
    """Looped parameters before and after some steps, and the state."""
    _, optimizer, step, mesh = parts(scan, accumulation, **keys)
    before = params_of(scan)
    state = init_state(before, optimizer, jax.random.key(0), mesh, average=False)
    run = jit_train_step(step, state, mesh)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (4, 8, 8, 3), np.uint8), np.arange(4, dtype=np.int32) % 3
    for _ in range(steps):
        state, _ = run(state, partition.put_batch(Batch(images, labels, np.ones(4, np.float32)), mesh))
    flat = (
        build.unstack_layers(flatten_dict(tree, sep="/")) for tree in (params_of(scan), jax.device_get(state.params))
    )
    return *flat, state


PARTLY = {"layer_decay": 0.5, "freeze": ("embedding/*", "Transformer/encoderblock_0/*"), "multipliers": ("head/*=4",)}


@pytest.mark.slow
def test_scanned_layers_and_looped_ones_take_the_same_steps():
    before, looped, state = trained(False, **PARTLY)
    _, scanned, _ = trained(True, **PARTLY)
    assert looped.keys() == scanned.keys()
    for name in looped:
        frozen = name.startswith(("embedding/", "Transformer/encoderblock_0/"))
        if "key/bias" not in name:  # the softmax does not depend on it
            assert np.array_equal(looped[name], before[name]) == frozen, name
        np.testing.assert_allclose(scanned[name], looped[name], rtol=1e-6, atol=1e-6, err_msg=name)
        if frozen:
            assert np.array_equal(scanned[name], before[name])
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    assert any("encoderblock_1" in name for name in names)
    assert not any("encoderblock_0" in name or "['embedding']" in name for name in names)


@pytest.mark.slow
def test_accumulation_changes_no_number_of_a_partly_frozen_model():
    once, twice = trained(False, **PARTLY)[1], trained(False, accumulation=2, **PARTLY)[1]
    for name in once:
        np.testing.assert_allclose(twice[name], once[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_frozen_trunk_costs_a_forward_pass_alone():
    """Training the head of a frozen model needs its forward pass, and two products of the head."""
    shapes, key = build.abstract_params(vit(), (8, 8)), jax.random.key(0)

    def flops(**keys):
        _, optimizer, step, mesh = parts(False, **keys)
        state = abstract_state(shapes, optimizer, key, mesh, average=False)
        batch = Batch(
            *(jax.ShapeDtypeStruct(*x) for x in (((4, 8, 8, 3), np.uint8), ((4,), np.int32), ((4,), np.float32)))
        )
        return count_flops(jit_train_step(step, state, mesh).trace(state, batch).jaxpr), state

    forward = count_flops(
        jax.jit(build.make_forward(vit())).trace(shapes, jax.ShapeDtypeStruct((4, 8, 8, 3), np.uint8)).jaxpr
    )
    whole, _ = flops()
    head, state = flops(freeze=("*", "!head/*"))
    assert (
        head - forward == 2 * 4 * 8 * 3
    )  # the gradient of the head's kernel: b x width x classes, a multiply and an add
    assert whole > 2.5 * forward
    assert (
        sum(x.size for x in jax.tree.leaves(state.opt_state)) == 8 * 3 + 3 + 1
    )  # the momentum, and the schedule's count


def test_the_plan_names_the_rates_of_the_layers_and_what_is_frozen():
    layers, shapes = layers_of(True), build.abstract_params(vit(True), (8, 8))
    rows = make_groups(layers, layer_decay=0.5, freeze=("embedding/*", "Transformer/encoderblock_0/*")).describe(shapes)
    block = 4 * (8 * 8 + 8) + (8 * 12 + 12) + (12 * 8 + 8) + 4 * 8
    embedding = 4 * 4 * 3 * 8 + 8
    total = embedding + 3 * block + 8 + 5 * 8 + 2 * 8 + 8 * 3 + 3
    assert rows[:2] == [
        ("rates", "of layer 0 x0.0625, 2 x0.25, 3 x0.5, 4 x1"),
        ("frozen", f"{embedding + block:,} of {total:,} parameters: embedding, Transformer/encoderblock_0"),
    ]
    assert [row for row, _ in rows[2:]] == ["note"]
    looped = build.abstract_params(vit(), (8, 8))
    assert make_groups(layers_of(), freeze=("*", "!head/*")).describe(looped) == [
        (
            "frozen",
            f"{total - 27:,} of {total:,} parameters: Transformer/posembed_input, cls, embedding, "
            "Transformer/encoderblock_0 and 3 more",
        )
    ]
