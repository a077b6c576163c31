"""Everything measured of a model, against a float64 model and the definitions."""

import functools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import numpy_vit
import PIL.Image
import pytest
from subjects import NAMES, attending, images, loaded, of_numpy

from vit_jax.insight.attention import attention_distance, entropy, rollout
from vit_jax.insight.explain import _read, check, explain
from vit_jax.insight.gradients import class_gradients
from vit_jax.insight.images import open_images
from vit_jax.insight.layers import cka, position_similarity
from vit_jax.insight.pictures import Choice
from vit_jax.insight.subject import Subject, prepare
from vit_jax.models.build import normalize
from vit_jax.types import Outputs, UserError


@pytest.fixture
def photos(tmp_path):
    """Seven images of 8x12 pixels, between them two files that are none."""
    pixels = np.random.default_rng(3).integers(0, 256, (7, 8, 12, 3), np.uint8)
    for i, image in enumerate(pixels):
        PIL.Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "1b.png").write_bytes(b"no image")
    (tmp_path / "5b.png").write_bytes((tmp_path / "5.png").read_bytes()[:60])
    return pixels, open_images([str(tmp_path)], "", 0)


@pytest.mark.slow
def test_all_numbers_are_those_of_a_float64_model(photos, monkeypatch):
    pixels, source = photos
    params = numpy_vit.draw_params()
    attention = []
    monkeypatch.setattr(numpy_vit, "attention", attending(attention))
    logits = numpy_vit.forward(params, pixels)["logits"]
    arrays, facts = explain(of_numpy(params), source, Choice(pictures=3, layer=1, head=2))
    assert (facts["measured"], facts["tokens"]) == (7, 5)
    assert [name[-6:] for name in facts["corrupt"]] == ["1b.png", "5b.png"]
    places = [0, 3, 6]  # 0 of 9 files, 4 of 9, 8 of 9
    assert [name[-5:] for name in facts["pictures"]] == ["0.png", "3.png", "6.png"]
    assert facts["classes"] == ["abcde"[i] for i in logits[places].argmax(axis=1)]
    np.testing.assert_array_equal(arrays["images"], pixels[places])
    np.testing.assert_allclose(arrays["distance"], attention_distance(attention, (2, 2), (4, 6)), rtol=1e-5)
    np.testing.assert_allclose(arrays["entropy"], entropy(attention), rtol=1e-5)
    np.testing.assert_allclose(arrays["rollout"].reshape(3, 4), rollout(attention)[places], atol=1e-5)
    np.testing.assert_allclose(arrays["heads"].reshape(3, 4), attention[0][places, 1, 0, 1:], atol=1e-5)
    np.testing.assert_allclose(arrays["attention"], attention[0][places, 1], atol=1e-5)
    assert arrays["gradient_rollout"].shape == (3, 2, 2)
    expected = position_similarity(params[numpy_vit.POSITIONS], (2, 2))
    np.testing.assert_allclose(arrays["positions"], expected[None], atol=1e-6)
    np.testing.assert_allclose(arrays["cka"].diagonal(), 1)
    assert arrays["norms"].shape == (2, 3)


@pytest.mark.slow
def test_a_map_head_shows_its_probes_attention_and_both_rollouts_end_with_it(photos, monkeypatch):
    pixels, source = photos
    params, attention = numpy_vit.draw_params(pool="map"), []
    monkeypatch.setattr(numpy_vit, "attention", attending(attention))
    numpy_vit.forward(params, pixels, pool="map")
    first, second, probe = (x[[0, 3, 6]].mean(axis=1) for x in attention)
    arrays, facts = explain(of_numpy(params, pool="map"), source, Choice(pictures=3))
    np.testing.assert_allclose(arrays["probe"].reshape(3, 1, 4), probe, atol=1e-5)
    joint = (second + np.eye(4)) / 2 @ ((first + np.eye(4)) / 2)
    np.testing.assert_allclose(arrays["rollout"].reshape(3, 1, 4), probe @ joint, atol=1e-5)
    assert [note for note in facts["notes"] if "rollouts end" in note]
    # The same of the positive part of gradient times attention, without dividing by a row's sum.
    subject, chosen = of_numpy(params, pool="map"), jnp.array(["abcde".index(name) for name in facts["classes"]])
    found = jax.jit(functools.partial(class_gradients, subject.module))(
        subject.params, normalize(jnp.asarray(pixels[[0, 3, 6]])), chosen
    )
    weights, gradients, (weights_of_probe, gradients_of_probe) = jax.tree.map(np.asarray, found)
    first, second = (np.maximum(w * g, 0).mean(axis=1) + np.eye(4) for w, g in zip(weights, gradients, strict=True))
    probe = np.maximum(weights_of_probe * gradients_of_probe, 0).mean(axis=1, keepdims=True)
    assert probe.max() > 1e-3
    np.testing.assert_allclose(arrays["gradient_rollout"].reshape(3, 1, 4), probe @ second @ first, atol=1e-5)


@pytest.mark.slow
def test_layers_of_two_models_are_compared_on_the_same_images(tmp_path):
    first, second = loaded(), loaded("mixer", resolution=(8, 8))
    source = images(tmp_path, 5)
    arrays, facts = explain(first, source, Choice(pictures=0), second)
    assert arrays["cka"].shape == (2, 2)
    assert facts["other"] == "runs/mixer"
    assert "rollout" not in arrays
    subject = prepare(first)
    batch = np.stack([subject_image(subject, source, i) for i in range(5)])
    layers = subject.compiled(("layers",))(batch).layers
    other = prepare(second)
    theirs = other.compiled(("layers",))(np.stack([subject_image(other, source, i) for i in range(5)])).layers
    left, right = np.asarray(layers[0])[:, 1:].mean(axis=1), np.asarray(theirs[1]).mean(axis=1)
    assert arrays["cka"][0, 1] == pytest.approx(cka(left, right), abs=1e-5)


def subject_image(subject, source, index):
    from vit_jax.data.image.decode import decode
    from vit_jax.data.image.recipes import make_transform

    pixels = decode(source.read(index)[0])
    return make_transform("eval", subject.resolution).map_image(pixels, np.random.default_rng(0))


def test_outputs_of_a_batch_are_gone_when_the_next_is_computed(tmp_path, monkeypatch):
    made, alive = [], []

    def compiled(self, capture):
        def run(images):
            alive.append(sum(array() is not None for array in made))
            layer = np.ones((len(images), 17, 24), np.float32)
            made.append(weakref.ref(layer))
            return Outputs(None, None, None, None, layers=(layer,))

        return run

    monkeypatch.setattr(Subject, "compiled", compiled)
    subject = prepare(loaded())._replace(batch_size=2)
    counts = [len(batch) for batch in _read(subject, images(tmp_path, 5), ("layers",), set())]
    assert (counts, alive) == ([2, 2, 1], [0, 0, 0])


@pytest.mark.slow
def test_what_a_detector_finds_is_kept_with_the_names_of_its_classes(tmp_path):
    model = loaded("yolos", queries=1, resolution=(16, 24))
    answers = {
        "head": np.log([0.2, 0.7, 0.05, 0.05]),
        "box_head": np.log([1, 3, 1, 1 / 3]),
    }  # sigmoids 1/2, 3/4, 1/2, 1/4
    for head, bias in answers.items():
        last = model.params[head]["Dense_2"]
        last["kernel"], last["bias"] = np.zeros_like(last["kernel"]), bias.astype(np.float32)
    arrays, facts = explain(model, images(tmp_path, 2))
    np.testing.assert_allclose(arrays["boxes"], [[[6, 10, 18, 14]]] * 2, rtol=1e-6)
    assert arrays["box_classes"].tolist() == [[1], [1]]
    np.testing.assert_allclose(arrays["box_scores"], [[0.7], [0.7]], rtol=1e-6)
    assert (facts["object_classes"], facts["classes"]) == (list(NAMES), [])
    assert "rollout" in arrays


@pytest.mark.slow
def test_images_of_which_none_can_be_read_are_a_mistake_and_one_image_has_no_similarity(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of the 1 images of .* can be read as an image: .*a\.png; give JPEG"):
        explain(loaded("mixer"), open_images([str(tmp_path)], "", 0))
    arrays, facts = explain(loaded("mixer"), images(tmp_path / "one", 1))
    assert "cka" not in arrays
    assert "single image" in facts["notes"][-1]


def test_a_layer_a_head_and_a_class_that_do_not_exist_are_refused_together():
    model = loaded()
    subject = prepare(model)
    with pytest.raises(UserError) as caught:
        check(Choice(layer=3, head=4, label="cow"), subject, model)
    text = str(caught.value)
    for words in ("layer 3: the model has 2 layers", "head 4: a layer has 3 heads", "class 'cow'", "cat, dog, emu"):
        assert words in text
    with pytest.raises(UserError, match="class 'emu': the model gives an image no probabilities of classes; leave"):
        check(Choice(label="emu"), subject._replace(classifies=False), model)
    assert check(Choice(label="emu"), subject, model) == NAMES.index("emu")
    assert check(Choice(label="1"), subject, model) == 1
    assert check(Choice(), subject, model) is None
