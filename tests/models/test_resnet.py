"""ResNets against numpy: weight standardisation, paddings, both residual units, the hybrids' stem and BiT."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpy_options
import numpy_resnet
import numpy_vit
import pytest
from flax import traverse_util
from tiny import QUICK, flat, model_shapes, nested, random_images, run, shapes, tiny_vit

from vit_jax.models import build
from vit_jax.models.resnet import PreActivationUnit, ResidualUnit, ResNet, StdConv, resnet_stem
from vit_jax.models.variants import any_variant
from vit_jax.models.vit import VisionTransformer
from vit_jax.types import UserError

FLOAT32 = jnp.dtype("float32")


def normal(*shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def double(params):
    return {name: np.asarray(x, np.float64) for name, x in params.items()}


def apply(module, params, x):
    return np.asarray(jax.jit(module.apply, compiler_options=QUICK)({"params": nested(params)}, jnp.asarray(x)))


# Standardised convolutions


@pytest.mark.parametrize(("eps", "under_root", "expected"), [(1e-5, False, 1.0), (1e-10, True, np.sqrt(2))])
def test_the_two_epsilons_by_hand(eps, under_root, expected):
    # A kernel of +-1e-5 has deviation 1e-5: doubled by an epsilon beside it, by sqrt(2) under the root.
    kernel = np.array([3e-5, 1e-5], np.float32).reshape(1, 1, 2, 1)
    conv = StdConv(1, 1, 1, "SAME", eps, under_root, FLOAT32)
    out = apply(conv, {"kernel": kernel}, np.array([5, 3], np.float32).reshape(1, 1, 1, 2))
    assert out.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("eps", "under_root"), [(1e-5, False), (1e-10, True)])
def test_kernels_are_standardised_per_output_channel(eps, under_root):
    # Output channels of very different deviations and means.
    kernel = normal(3, 3, 4, 5) * np.float32(10) ** np.arange(-5, 0, dtype=np.float32) + normal(5, seed=4)[None] * 1e-5
    x = normal(2, 6, 5, 4)
    conv = StdConv(5, 3, 1, "SAME", eps, under_root, FLOAT32)
    standardized = numpy_resnet.standardized(kernel.astype(np.float64), eps, under_root)
    expected = numpy_resnet.conv2d(x, standardized, 1, ((1, 1), (1, 1)))
    np.testing.assert_allclose(apply(conv, {"kernel": kernel}, x), expected, rtol=1e-4, atol=1e-4)


def test_same_pads_behind_and_pairs_pad_evenly():
    # One bright pixel in row 2 and column 2 of 4x4, stride 2. SAME pads one zero, behind: windows begin at 0 and 2, and the
    # pixel is at an end of all of them. Pairs (1, 1): windows begin at -1 and 1, and it is the middle of one.
    kernel = np.broadcast_to(np.array([-1, 2, -1], np.float32)[None, :, None, None], (3, 3, 1, 1)) / np.sqrt(2)
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 2, 2, 0] = np.sqrt(2)
    same, even = (
        apply(StdConv(1, 3, 2, padding, 0.0, True, FLOAT32), {"kernel": kernel.astype(np.float32)}, x)[0, :, :, 0]
        for padding in ("SAME", ((1, 1), (1, 1)))
    )
    np.testing.assert_allclose(same, [[-1, -1], [-1, -1]], atol=1e-6)
    np.testing.assert_allclose(even, [[0, 0], [0, 2]], atol=1e-6)


def test_a_bfloat16_convolution_standardises_in_float32():
    # Deviations of a hundredth of the mean: bfloat16 would round all entries to the same.
    kernel = 1 + 1e-3 * normal(1, 1, 64, 3)
    x = normal(1, 2, 2, 64)
    conv = StdConv(3, 1, 1, "SAME", 1e-10, True, jnp.dtype("bfloat16"))
    out = apply(conv, {"kernel": kernel}, x)
    assert out.dtype == jnp.bfloat16
    standardized = numpy_resnet.standardized(kernel.astype(np.float64), 1e-10, True)
    expected = numpy_resnet.conv2d(x, standardized, 1, ((0, 0), (0, 0)))
    np.testing.assert_allclose(out.astype(np.float32), expected, atol=0.2)


# Residual units


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize(
    ("unit", "reference"),
    [(ResidualUnit, numpy_resnet.residual_unit), (PreActivationUnit, numpy_resnet.preactivation_unit)],
)
def test_a_unit_is_numpys_and_projects_where_its_shape_changes(unit, reference, channels, stride):
    module = unit(16, stride, FLOAT32)
    x = normal(2, 6, 7, channels)
    found = traverse_util.flatten_dict(
        jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(x))["params"], sep="/"
    )
    assert ("conv_proj/kernel" in found) == (channels != 64 or stride != 1)
    assert ("gn_proj/scale" in found) == ("conv_proj/kernel" in found and unit is ResidualUnit)
    params = numpy_vit.draw(shapes(found))
    result, expected = apply(module, params, x), reference(double(params), "", x.astype(np.float64), stride)
    assert result.shape == (2, -(-6 // stride), -(-7 // stride), 64)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


# Hybrids


class Stem(nn.Module):
    depths: tuple[int, ...]
    width: int = 16

    @nn.compact
    def __call__(self, x):
        return resnet_stem(x, self.depths, self.width, FLOAT32)


# Odd sizes and even ones, which SAME pads differently at every stride.
@pytest.mark.parametrize("size", [(37, 50), (32, 36)])
@pytest.mark.parametrize("depths", [(), (1, 2)])
def test_the_stem_is_numpys(depths, size):
    params = numpy_vit.draw(numpy_resnet.stem_shapes(depths, 16))
    x = normal(2, *size, 3)
    result = apply(Stem(depths), params, x)
    expected = numpy_resnet.stem(double(params), x.astype(np.float64), depths)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    # What a max-pool sees beyond the border cannot matter behind a ReLU, but where it begins does.
    evenly = numpy_resnet.stem(double(params), x.astype(np.float64), depths, pool_pads=((1, 1), (1, 1)))
    odd = all(-(-side // 2) % 2 for side in size)
    assert (evenly.shape == expected.shape and np.allclose(evenly, expected)) == odd


def quiet(of, seed=0):
    """Kernels whose output channels deviate by 3e-6 to 3e-5, and norms that make little: an epsilon shows everywhere."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, x in of.items():
        scale = 10 ** rng.uniform(-5.5, -4.5, x.shape[-1]) if name.endswith("kernel") else 1e-3
        out[name] = (x * scale).astype(np.float32)
    return out


STEM_EPS = {"conv_eps": 1e-5, "under_root": False, "norm_eps": 1e-6}
BIT_EPS = {"conv_eps": 1e-10, "under_root": True, "norm_eps": 1e-5}


def conventions(reference, right, wrong):
    """What the reference gives with its epsilons, and with each convention of the other family in its place."""
    others = [{"conv_eps": wrong["conv_eps"], "under_root": wrong["under_root"]}, {"norm_eps": wrong["norm_eps"]}]
    return reference(**right), [reference(**right | other) for other in others]


def test_the_stems_epsilons_are_the_releases():
    params = quiet(numpy_vit.draw(numpy_resnet.stem_shapes((1,), 64)))
    x = 1e-4 * normal(2, 16, 16, 3)
    right, wrongs = conventions(
        lambda **eps: numpy_resnet.stem(double(params), x.astype(np.float64), (1,), **eps), STEM_EPS, BIT_EPS
    )
    scale = np.abs(right).max()
    np.testing.assert_allclose(apply(Stem((1,), 64), params, x), right, rtol=0, atol=1e-4 * scale)
    assert all(np.abs(wrong - right).max() > 0.01 * scale for wrong in wrongs)


@pytest.mark.slow
@pytest.mark.parametrize(("depths", "patch", "grid"), [((1, 2), (1, 1), (5, 7)), ((), (2, 5), (5, 2))])
def test_a_hybrid_cuts_its_patches_from_the_stems_features(depths, patch, grid):
    # 37x40 pixels are 10x10 positions behind the root block, 5x5 behind the second stage; see below for 37x50.
    size = (37, 50) if depths else (37, 40)
    model = tiny_vit(stem="resnet", stem_depths=depths, stem_width=16, patch_size=patch)
    found = model_shapes(model, size)
    stem = numpy_resnet.stem_shapes(depths, 16)
    plain = shapes(numpy_vit.draw_params(patch=patch, grid=grid))
    channels = 128 if depths else 16
    assert found == plain | stem | {"embedding/kernel": (*patch, channels, 8)}
    params = numpy_vit.draw(found)
    images = random_images(2, *size)
    outputs = run(model, params, images)
    features = numpy_resnet.stem(double(params), numpy_vit.pixels(images), depths)
    expected = numpy_options.forward(params, features, grid=grid)
    for name in ("tokens", "logits"):
        np.testing.assert_allclose(getattr(outputs, name), expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_parameter_tree_of_r50_b16_is_the_released_file():
    settings = {key: value for key, value in any_variant("R50+B/16").items() if key != "name"}
    hybrid = model_shapes(VisionTransformer(num_classes=21843, **settings), (224, 224))
    plain = {key: value for key, value in any_variant("B/16").items() if key != "name"}
    others = model_shapes(VisionTransformer(num_classes=21843, **plain), (224, 224))
    stem = numpy_resnet.stem_shapes((3, 4, 9), 64)
    assert hybrid == others | stem | {"embedding/kernel": (1, 1, 1024, 768)}
    assert len(hybrid) == 356
    assert stem["block3/unit9/conv3/kernel"] == (1, 1, 256, 1024)
    assert stem["block2/unit1/conv_proj/kernel"] == (1, 1, 256, 512)
    assert stem["block1/unit1/gn_proj/scale"] == (256,)


# BiT


def bit_params(depths=(1, 2), classes=5):
    channels = 64 * 2 ** (len(depths) - 1) * 4
    head = {"head/kernel": (channels, classes), "head/bias": (classes,)}
    return numpy_vit.draw(numpy_resnet.bit_shapes(depths, 64) | head)


@pytest.mark.parametrize("size", [(37, 50), (32, 36)])
def test_bit_is_numpys_and_its_max_pool_sees_zeros_beyond_the_border(size):
    model, params, images = ResNet(5, (1, 2)), bit_params(), random_images(2, *size)
    assert model_shapes(model, size) == shapes(params)
    outputs = run(model, params, images)
    x = numpy_vit.pixels(images)
    expected = numpy_resnet.bit(double(params), x, (1, 2))
    b, gh, gw, d = expected.shape
    np.testing.assert_allclose(outputs.tokens, expected.reshape(b, gh * gw, d), rtol=1e-4, atol=1e-4)
    pooled = expected.mean(axis=(1, 2))
    np.testing.assert_allclose(outputs.pooled, pooled, rtol=1e-4, atol=1e-4)
    assert np.array_equal(outputs.pre_logits, outputs.pooled)
    p = double(params)
    np.testing.assert_allclose(outputs.logits, pooled @ p["head/kernel"] + p["head/bias"], rtol=1e-4, atol=1e-4)
    against_least = numpy_resnet.bit(double(params), x, (1, 2), beyond=-np.inf)
    assert np.abs(against_least - expected).max() > 0.02


def test_where_all_is_negative_the_border_of_bits_max_pool_is_zero():
    # A kernel of one -1 among 147 entries, standardised, is -sqrt(146) there and 1 / sqrt(146) elsewhere. On an image of ones
    # (in one channel) an output sees up to 48 more of them, and is (48 - 146) / sqrt(146) at most. Of the 4x4 outputs the
    # pool's first row and column see the border.
    root = np.zeros((7, 7, 3, 64), np.float32)
    root[3, 3, 0] = -1
    params = nested(bit_params((1,)) | {"conv_root/kernel": root})

    def pooled(images):
        seen = []

        def note(call, args, kwargs, context):
            if isinstance(context.module, PreActivationUnit):
                seen.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            ResNet(5, (1,)).apply({"params": params}, images)
        return seen[0]

    images = jnp.ones((1, 8, 8, 3)) * jnp.array([1.0, 0.0, 0.0])[None, None, None]
    found = jax.jit(pooled, compiler_options=QUICK)(images)
    assert found.shape == (1, 2, 2, 64)
    np.testing.assert_allclose(found[0, :, :, 0], [[0, 0], [0, -98 / np.sqrt(146)]], atol=1e-5)


def test_bits_epsilons_are_the_releases():
    params = quiet(bit_params((1,)))
    x = 1e-4 * normal(2, 16, 16, 3)
    right, wrongs = conventions(
        lambda **eps: numpy_resnet.bit(double(params), x.astype(np.float64), (1,), **eps), BIT_EPS, STEM_EPS
    )
    scale = np.abs(right).max()
    features = jax.jit(lambda params: ResNet(5, (1,)).apply({"params": params}, jnp.asarray(x)), compiler_options=QUICK)
    tokens = features(nested(params)).tokens
    np.testing.assert_allclose(tokens, right.reshape(tokens.shape), rtol=0, atol=1e-4 * scale)
    assert all(np.abs(wrong - right).max() > 0.01 * scale for wrong in wrongs)


@pytest.mark.slow
def test_a_new_head_gives_its_bias_and_no_classes_no_head():
    model = ResNet(3, (1,), head_bias=-4.0)
    params = build.init_params(model, jax.random.key(0), (16, 16))
    assert np.asarray(run(model, params, random_images(2, 16, 16)).logits).tolist() == [[-4.0] * 3] * 2
    del params["head"]
    without = ResNet(0, (1,))
    assert model_shapes(without, (16, 16)) == shapes(flat(params))
    assert run(without, params, random_images(2, 16, 16)).logits is None


def test_the_width_factor_multiplies_every_channel():
    one, three = (model_shapes(ResNet(5, (1, 1), width_factor=factor), (16, 16)) for factor in (1, 3))
    assert one["conv_root/kernel"] == (7, 7, 3, 64)
    fixed = {"conv_root/kernel": {2}, "head/kernel": {1}, "head/bias": {0}}
    for name, shape in one.items():
        axes = {axis for axis, size in enumerate(shape) if size >= 64} - fixed.get(name, set())
        assert three[name] == tuple(size * 3 if axis in axes else size for axis, size in enumerate(shape)), name


def test_bfloat16_is_computed_to_its_precision():
    model, params, images = ResNet(5, (1, 2), dtype="bfloat16"), bit_params(), random_images(2, 32, 32)
    outputs = run(model, params, images)
    assert outputs.tokens.dtype == jnp.bfloat16
    assert outputs.logits.dtype == jnp.float32
    p = double(params)
    expected = (
        numpy_resnet.bit(p, numpy_vit.pixels(images), (1, 2)).mean(axis=(1, 2)) @ p["head/kernel"] + p["head/bias"]
    )
    error = np.abs(outputs.logits - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 5e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": ()}, r"model\.depths is \(\) and model\.width_factor 1; expected 1 or more"),
        ({"depths": (1, 0)}, r"model\.depths is \(1, 0\)"),
        ({"depths": (1,), "width_factor": 0}, r"model\.width_factor 0; expected 1 or more"),
    ],
)
def test_a_resnet_that_cannot_be_is_an_error(options, message):
    with pytest.raises(UserError, match=message):
        build.abstract_params(ResNet(5, **options), (32, 32))


def test_a_resnet_has_no_attention():
    with pytest.raises(UserError, match="a ResNet has no attention to capture"):
        jax.eval_shape(
            lambda: ResNet(5, (1,)).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), capture=("attention",))
        )
