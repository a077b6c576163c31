"""Masked models against numpy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_masked
import numpy_vit
import pytest
from flax import traverse_util
from tiny import QUICK, model_shapes, nested, random_images, tiny_vit

from vit_jax.models import build
from vit_jax.models.masked import MaskedAutoencoder, MaskedViT
from vit_jax.models.positions import sincos_2d
from vit_jax.models.variants import vit_variant
from vit_jax.types import UserError

SIZES = {"patch_size": (4, 6), "width": 8, "depth": 2, "mlp_dim": 12, "num_heads": 2}
DECODER = {"decoder_width": 12, "decoder_depth": 1, "decoder_heads": 3, "decoder_mlp_dim": 20}
WIDE = random_images(w=18)  # of 2 x 3 patches
HIDDEN = np.array([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0]], bool)
NOISE = (
    np.random.default_rng(2).permuted(np.linspace(0, 1, 18, endpoint=False).reshape(3, 6), axis=1).astype(np.float32)
)


def drawn(model):
    rng = np.random.default_rng(0)
    shapes = model_shapes(model, (8, 18))
    return {k: (rng.standard_normal(s) * 0.4 + k.endswith("scale")).astype(np.float32) for k, s in shapes.items()}


def outputs_of(model, params, images=WIDE, **asked):
    def apply(params, x):
        return model.apply({"params": params}, build.normalize(x), **asked)

    return jax.jit(apply, compiler_options=QUICK)(nested(params), jnp.asarray(images))


def close(found, expected):
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("final_norm", [True, False])
def test_hidden_patches_become_the_mask_token_and_pixels_are_decoded_from_each_patchs_token(final_norm):
    model = MaskedViT(**SIZES, final_norm=final_norm)
    params = drawn(model)
    found = outputs_of(model, params, hidden=HIDDEN)
    tokens, decoded = numpy_masked.masked(params, WIDE, HIDDEN)
    close(found.tokens, tokens)
    close(found.extra["pixels"], numpy_masked.as_image(decoded, (2, 3), (4, 6)))
    assert found.logits is None


def test_a_patchs_embedding_may_be_another_patchs():
    model = MaskedViT(**SIZES)
    params, other = drawn(model), np.array([[1, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]], np.int32)
    found = outputs_of(model, params, hidden=HIDDEN, other=other)
    close(found.tokens, numpy_masked.masked(params, WIDE, HIDDEN, other)[0])


@pytest.mark.parametrize(("decoder", "shape"), [("mean_colour", (3, 6, 512)), ("patch_4x4", (3, 6, 16, 512))])
def test_colours_are_decoded_as_logits(decoder, shape):
    model = MaskedViT(**SIZES, decoder=decoder)
    params = drawn(model)
    found = outputs_of(model, params, hidden=HIDDEN).extra[decoder]
    close(found, numpy_masked.masked(params, WIDE, HIDDEN)[1].reshape(shape))


@pytest.mark.parametrize("kind", [MaskedViT, MaskedAutoencoder])
def test_without_a_mask_the_encoder_is_that_of_a_classifier(kind):
    model = kind(**SIZES, **(DECODER if kind is MaskedAutoencoder else {}))
    params = drawn(model)
    plain = {name: x for name, x in params.items() if not name.startswith(("decoder", "mask_token"))}
    classifier = tiny_vit(num_classes=0)
    assert model_shapes(classifier, (8, 18)) == {name: x.shape for name, x in plain.items()}
    found, expected = outputs_of(model, params), outputs_of(classifier, plain)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.pre_logits, expected.pre_logits)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(("ratio", "keep"), [(0.75, 1), (0.5, 3)])
def test_an_mae_encodes_the_patches_of_lowest_noise_and_predicts_all(ratio, keep, scan):
    model = MaskedAutoencoder(**SIZES, **DECODER, mask_ratio=ratio)
    params = drawn(model)
    tokens, patches, hidden = numpy_masked.autoencoder(params, WIDE, NOISE, keep)
    scanned = model.clone(scan=scan)
    found = outputs_of(scanned, build.stack_layers(params) if scan else params, noise=NOISE)
    close(found.tokens, tokens)
    close(found.extra["patches"], patches)
    np.testing.assert_array_equal(found.extra["hidden"], hidden)
    assert found.extra["hidden"].dtype == bool


def test_an_mae_without_noise_hides_nothing():
    model = MaskedAutoencoder(**SIZES, **DECODER)
    params = drawn(model)
    found = outputs_of(model, params)
    _, patches, _ = numpy_masked.autoencoder(params, WIDE, np.tile(np.arange(6), (3, 1)), 6)
    close(found.extra["patches"], patches)
    assert not np.any(found.extra["hidden"])


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    base = {key: x for key, x in vit_variant("B/16").items() if key != "name"}
    count = {
        kind: build.count_params(build.abstract_params(kind(**base), (224, 224)))
        for kind in (MaskedViT, MaskedAutoencoder)
    }
    # transformers 5.24: ViTForMaskedImageModeling has 86,390,016; an MAE's decoder has 26,109,184 with its table, and the
    # encoder's 85,798,656 are those of ViT-B/16 without a head.
    assert count == {MaskedViT: 86_390_016, MaskedAutoencoder: 85_798_656 + 26_109_184}


@pytest.mark.slow
def test_maes_positions_are_fixed_and_of_its_own_frequencies():
    model = MaskedAutoencoder(**SIZES, **DECODER)
    params = build.init_params(model, jax.random.key(0), (8, 18))
    table = np.asarray(params["Transformer"]["posembed_input"]["pos_embedding"])
    # Width 8: two frequencies, 1 and 10000^(-1/2) = 0.01; the patch of row 1 and column 2 is the last.
    angles = np.array([2.0, 0.02, 2.0, 0.02, 1.0, 0.01, 1.0, 0.01])
    expected = np.where([1, 1, 0, 0] * 2, np.sin(angles), np.cos(angles))
    np.testing.assert_allclose(table[0, -1], expected, rtol=1e-6)
    assert not table[0, 0].any()
    # Ours end at 10000^-1, so that they differ in all but the first frequency.
    np.testing.assert_allclose(sincos_2d((2, 3), 8)[-1, 1], np.sin(2e-4), rtol=1e-6)

    def loss(params):
        out = model.apply({"params": params}, build.normalize(jnp.asarray(WIDE)), noise=NOISE)
        return jnp.square(out.extra["patches"]).sum()

    gradients = jax.grad(loss)(nested(drawn(model)))
    for tree in (gradients, gradients["decoder"]):
        assert not np.any(tree["Transformer"]["posembed_input"]["pos_embedding"])
    assert np.any(gradients["embedding"]["kernel"])


def test_a_mask_of_another_shape_is_refused():
    model = MaskedViT(**SIZES)
    with pytest.raises(UserError, match=r"hidden has shape \(3, 5\); expected \(3, 6\), a value for each patch"):
        outputs_of(model, drawn(model), hidden=HIDDEN[:, :5])
    model = MaskedAutoencoder(**SIZES, **DECODER)
    with pytest.raises(UserError, match=r"noise has shape \(6,\); expected \(3, 6\)"):
        outputs_of(model, drawn(model), noise=NOISE[0])


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5])
def test_an_mae_that_hides_nothing_or_all_is_refused(ratio):
    model = MaskedAutoencoder(**SIZES, **DECODER, mask_ratio=ratio)
    with pytest.raises(UserError, match=rf"model.mask_ratio is {ratio}; expected above 0 and below 1"):
        model_shapes(model, (8, 18))


def test_an_mae_that_sees_no_patch_is_refused():
    model = MaskedAutoencoder(**SIZES, **DECODER, mask_ratio=0.9)
    with pytest.raises(UserError, match=r"model.mask_ratio=0.9 hides all 6 patches; choose smaller patches"):
        outputs_of(model, drawn(model), noise=NOISE)


def test_numpys_plain_encoder_is_the_same_one():
    params = numpy_vit.draw_params()
    images = random_images()
    plain = numpy_vit.forward(params, images)["tokens"]
    extra = {"mask_token": np.zeros((1, 1, 8)), "decoder/kernel": np.zeros((8, 1)), "decoder/bias": np.zeros(1)}
    np.testing.assert_allclose(numpy_masked.masked(params | extra, images)[0], plain, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MaskedViT, MaskedAutoencoder])
def test_parameters_may_be_numpys_outside_jit(kind):
    model = kind(**SIZES, **(DECODER if kind is MaskedAutoencoder else {}))
    params = drawn(model)
    tree = traverse_util.unflatten_dict(params, sep="/")
    given = {"noise": NOISE} if kind is MaskedAutoencoder else {"hidden": HIDDEN}
    images = np.asarray(build.normalize(jnp.asarray(WIDE)))
    found = model.apply({"params": tree}, images, **given).extra
    expected = outputs_of(model, params, **given).extra
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
