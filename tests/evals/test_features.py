"""Features of a split: one row for each example, in the split's order, whatever the batches and devices."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from tiny import draw, nested, run, tiny_vit

from vit_jax import partition
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.evals.base import Bound, Scores
from vit_jax.evals.features import Probe, extract_features, jit_features
from vit_jax.models.build import abstract_params, make_forward
from vit_jax.types import UserError

MESH = partition.make_mesh(1, jax.devices()[:1])
PARAMS = {"kernel": jnp.zeros((147, 7))}


def stored(source):
    """The forward's representation of each image cut to 7x7, decoded by another library; and the labels."""
    examples = [source.read(index) for index in range(len(source))]
    images = np.stack([np.asarray(PIL.Image.open(io.BytesIO(e[0])))[:7, :7] for e in examples])
    return (images.reshape(len(images), -1)[:, :12].astype(np.float32) - 127.5) / 127.5, [e[1] for e in examples]


@pytest.mark.parametrize("devices", [1, 8])
def test_every_example_has_a_row_in_the_order_of_the_split(folder, forward, devices):
    mesh, source = partition.make_mesh(devices=jax.devices()[:devices]), open_source(str(folder[0]), "test")
    x, y = extract_features(jit_features(forward, mesh), PARAMS, source, mesh, resolution=(7, 7), batch_size=8)
    expected, labels = stored(source)
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert y.tolist() == labels


TINY = tiny_vit(registers=1)


@pytest.fixture(scope="module")
def params():
    return nested(draw(TINY))


def bound(grid=TINY.grid, model=TINY):
    return Bound(make_forward(model), None, MESH, 5, grid, abstract_params(model, (8, 12)))


def collect(store):
    """A probe that keeps the features that it is given."""

    class Collect(Probe):
        def score(self, train, test, mesh):
            store.append((train, test))
            return Scores({})

    return Collect


@pytest.mark.slow
def test_a_probe_reads_the_layer_and_the_tokens_that_it_names(folder, params):
    choices = [(0, "representation"), (0, "mean"), (1, "token")]
    found, model = [], bound()
    settings = {"train_split": "train[:8]", "test_split": "test[:8]", "dataset": str(folder[0]), "batch_size": 8}
    for layer, pool in choices:
        probe = collect(found)(**settings, resolution=(8, 12), layer=layer, pool=pool)
        assert [spec.num_examples for spec in probe.open()] == [8, 8]
        probe.bind(model)(params)
    source, transform = open_source(str(folder[0]), "train[:8]"), make_transform("fewshot", (8, 12))
    images = [source.decode(source.read(i)[0]) for i in range(8)]
    images = np.stack([transform.map_image(image, np.random.default_rng(0)) for image in images])
    outputs = run(TINY, params, images, capture=("layers",))
    for (layer, pool), (train, _) in zip(choices, found, strict=True):
        tokens = outputs.layers[layer - 1] if layer else outputs.tokens
        tokens = np.asarray(tokens, np.float64)  # the class token, in layers a register, and 2 x 2 patches
        expected = tokens[:, -4:].mean(axis=1) if pool == "mean" else tokens[:, 0]
        np.testing.assert_allclose(train[0], expected, rtol=1e-4, atol=1e-5, err_msg=f"{layer} {pool}")


@pytest.mark.slow
def test_probes_that_read_the_same_features_share_them(folder, params, monkeypatch):
    calls, found = [], []
    extract = Probe._extract
    monkeypatch.setattr(Probe, "_extract", lambda *args: calls.append(1) or extract(*args))
    model, settings = (
        bound(),
        {"train_split": "train[:8]", "test_split": "test[:8]", "dataset": str(folder[0]), "batch_size": 8},
    )
    probes = [collect(found)(**settings, resolution=(8, 12), pool=pool) for pool in ("token", "token", "mean", "token")]
    for probe in probes:
        probe.open()
    scorers = [probe.bind(model) for probe in probes]
    other = jax.tree.map(jnp.array, params)
    for scorer in scorers:
        scorer(params)
        scorer(other)
    # Two splits, of two kinds of features, for two sets of parameters.
    assert len(calls) == 8
    assert found[0][0][0] is found[2][0][0] is found[6][0][0]
    assert found[0][0][0] is not found[1][0][0]
    assert not model.shared["features"]._held  # the last probe has taken them
    scorers[0](params)
    assert len(model.shared["features"]._held) == 2
    jax.tree.map(lambda x: x.delete(), params)
    scorers[0](other)
    assert len(calls) == 12
    assert len(model.shared["features"]._held) == 2


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        ({"layer": 3, "pool": "mean"}, {}, "layer=3 is none of the model's 2 blocks"),
        ({"layer": 1}, {}, "layer=1 and pool=representation; expected layer=0, or a block from 1 on with pool=token"),
        ({"layer": -1, "pool": "mean"}, {}, "layer=-1 and pool=mean"),
        ({"pool": "token"}, {"pool": "gap"}, "pool=token reads the class token, and the model has none; use pool=mean"),
    ],
)
def test_what_a_model_does_not_have_is_refused_before_the_run(folder, options, model, message):
    probe = Probe(train_split="train", test_split="test", dataset=str(folder[0]), resolution=(8, 12), **options)

    def start():
        probe.open()
        probe.bind(bound(model=tiny_vit(**model)))

    with pytest.raises(UserError, match=message):
        start()
