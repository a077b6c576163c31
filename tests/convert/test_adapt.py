"""Fitting a checkpoint to a model, tensor by tensor, and the report of it."""

import random

import numpy as np
import numpy_vit
import pytest
from checkpoints import (
    copy_golden,
    flat,
    golden_tensors,
    save_npz,
)
from damaged import TENSORS, attempt, safetensors_of

from vit_jax.convert import adapt
from vit_jax.convert.adapt import Fate, format_report
from vit_jax.convert.architecture import infer_grid
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.convert.load import load
from vit_jax.convert.open import open_checkpoint
from vit_jax.types import UserError

POSITIONS = "Transformer/posembed_input/pos_embedding"


def tensors(n=5, classes=3, dtype=np.float32):
    return {
        "cls": np.full((1, 1, 2), 7, dtype),
        POSITIONS: np.arange(n * 2, dtype=dtype).reshape(1, n, 2),
        "head/kernel": np.ones((2, classes), dtype),
        "head/bias": np.full(classes, 2, dtype),
    }


def fit_params(source, fresh, *, old_grid=None, **options):
    grid = old_grid or infer_grid(source, {"pool": "token"})
    return adapt.fit_params(Checkpoint("a.npz", "npz", source, {"pool": "token"}, grid), fresh, **options)


def test_every_tensor_of_either_side_is_reported_once():
    source = tensors() | {"pre_logits/bias": np.zeros(2, np.float32)}
    _, report = fit_params(source, tensors(10, 4), head="zeros", new_grid=(3, 3))
    assert sorted(report) == sorted(
        [
            Fate("cls", "loaded", "1x1x2"),
            Fate(POSITIONS, "resized", "2x2 -> 3x3, bilinear_corners"),
            Fate("head/kernel", "fresh", "2x4 new head (init.head=zeros)"),
            Fate("head/bias", "fresh", "4 new head (init.head=zeros)"),
            Fate("head/kernel", "dropped", "2x3 old head (init.head=zeros)"),
            Fate("head/bias", "dropped", "3 old head (init.head=zeros)"),
            Fate("pre_logits/bias", "dropped", "2 old head (init.head=zeros)"),
        ]
    )


def test_a_head_of_the_same_shape_is_new_all_the_same():
    fresh = tensors() | {"head/bias": np.full(3, -10, np.float32)}
    params, _ = fit_params(tensors(), fresh, head="zeros", new_grid=(2, 2))
    assert params["head/bias"].tolist() == [-10] * 3
    kept, _ = fit_params(tensors(), fresh, head="keep", new_grid=(2, 2))
    assert kept["head/bias"].tolist() == [2] * 3


def test_values_take_the_models_dtype():
    params, _ = fit_params(tensors(dtype=np.float64), tensors(), head="keep", new_grid=(2, 2))
    assert {value.dtype for value in params.values()} == {np.dtype(np.float32)}
    assert np.array_equal(params[POSITIONS], tensors()[POSITIONS])


def test_positions_of_a_grid_that_is_not_square_need_it_said():
    source, fresh = tensors(7), tensors(13)
    with pytest.raises(UserError, match=r"has 6 positions, not a square grid, and a\.npz does not say which"):
        fit_params(source, fresh, head="keep", new_grid=(3, 4))
    params, report = fit_params(source, fresh, head="keep", new_grid=(3, 4), old_grid=(2, 3))
    assert report[1].detail.startswith("2x3 -> 3x4")
    # Corners aligned: the four corners and the class token's entry are the old ones.
    old, new = source[POSITIONS][0], params[POSITIONS][0]
    assert np.array_equal(new[[0, 1, 4, 9, 12]], old[[0, 1, 3, 4, 6]])


def test_a_grid_the_positions_contradict_is_an_error():
    with pytest.raises(UserError, match="hold 5 entries, but a 3x3 grid with class token has 10"):
        fit_params(tensors(), tensors(17), head="keep", new_grid=(4, 4), old_grid=(3, 3))


def test_equal_counts_on_another_grid_are_resampled_and_not_just_copied():
    # 2x3 and 3x2 have six entries each; as rows of two, not of three, they lie elsewhere.
    params, report = fit_params(tensors(7), tensors(7), head="keep", new_grid=(3, 2), old_grid=(2, 3))
    assert report[1].action == "resized"
    # Column 0 of the old grid (entries 1 and 4) at heights 0, 1/2, 1.
    assert params[POSITIONS][0, [1, 3, 5]].tolist() == [[2, 3], [5, 6], [8, 9]]


def test_the_report_counts_and_shows_what_was_not_simply_loaded():
    report = [Fate("a", "loaded", "3"), Fate("b", "loaded", "4"), Fate("c", "dropped", "5 old head")]
    assert format_report(report) == "2 loaded, 1 dropped\n  dropped  c 5 old head"
    assert format_report(report, every_leaf=True).splitlines()[1:3] == ["  loaded   a 3", "  loaded   b 4"]
    assert format_report([Fate("\x1b[2J", "aside", "a\nb")]) == "1 aside\n  aside    \\x1b[2J a\\nb"


# A checkpoint of another model


def refusal(tmp_path, stored, model, *, head="keep", new_grid=(2, 2)):
    """The message about a file of tensors that is to be a model of others."""
    with pytest.raises(UserError) as caught:
        adapt.fit_params(open_checkpoint(save_npz(tmp_path / "a.npz", stored)), model, head=head, new_grid=new_grid)
    first, *lines = str(caught.value).splitlines()
    missing = [line for line in lines if line.startswith("  missing in the checkpoint: ")]
    extra = [line for line in lines if line.startswith("  not in the model: ")]
    return first, lines[0], missing, extra


def test_twelve_layers_into_sixteen_are_refused_with_the_reason(tmp_path):
    twelve, sixteen = (numpy_vit.draw_params(depth=depth) for depth in (12, 16))
    first, reason, missing, extra = refusal(tmp_path, twelve, sixteen)
    assert "a.npz does not fit the model (64 tensors, nothing was loaded)" in first
    assert reason == "the checkpoint has 12 layers, the model 16 (model.depth)"
    assert (len(missing), extra) == (10, [])  # of 4 blocks, with 16 tensors each
    with pytest.raises(UserError, match=r"  and 54 more$"):
        adapt.fit_params(open_checkpoint(save_npz(tmp_path / "b.npz", twelve)), sixteen, head="keep", new_grid=(2, 2))
    assert refusal(tmp_path, sixteen, twelve)[1] == "the checkpoint has 16 layers, the model 12 (model.depth)"


def test_a_grid_without_class_token_into_a_model_with_one_is_refused_with_the_reason(tmp_path):
    without, with_one = (numpy_vit.draw_params(grid=(14, 14), pool=pool) for pool in ("gap", "token"))
    assert without[POSITIONS].shape == (1, 196, 8)
    first, reason, missing, _ = refusal(tmp_path, without, with_one, new_grid=(14, 14))
    assert "(2 tensors, nothing was loaded)" in first
    assert reason == "the model has a class token, the checkpoint has none (model.pool, model.class_token)"
    assert missing == ["  missing in the checkpoint: cls 1x1x8"]
    # Another grid as well: its own 196 entries are resized, and still one too few.
    assert refusal(tmp_path, without, numpy_vit.draw_params(grid=(7, 7)), new_grid=(7, 7))[1] == reason
    reverse = refusal(tmp_path, with_one, without, new_grid=(14, 14))
    assert reverse[1] == "the checkpoint has a class token, the model has none (model.pool, model.class_token)"


def test_a_norm_after_pooling_into_a_model_that_has_it_before_is_refused_with_the_reason(tmp_path):
    before = numpy_vit.draw_params(pool="gap")
    after = {name.replace("Transformer/encoder_norm", "fc_norm"): x for name, x in before.items()}
    for stored, model, who, head in ((after, before, "checkpoint", "zeros"), (before, after, "model", "keep")):
        first, reason, missing, extra = refusal(tmp_path, stored, model, head=head)
        assert "(4 tensors" in first
        assert reason == f"the {who} normalises after pooling, the other before it (model.norm_after_pool)"
        assert (len(missing), len(extra)) == (2, 2)


def test_a_new_norm_after_pooling_is_part_of_a_new_head_as_mae_fine_tunes(tmp_path):
    before = numpy_vit.draw_params(pool="gap")
    after = {name.replace("Transformer/encoder_norm", "fc_norm"): x + 1 for name, x in before.items()}
    source = open_checkpoint(save_npz(tmp_path / "a.npz", before))
    params, report = adapt.fit_params(source, after, head="zeros", new_grid=(2, 2))
    fates = {fate.name: fate.action for fate in report}
    for leaf in ("scale", "bias"):
        assert np.array_equal(params[f"fc_norm/{leaf}"], after[f"fc_norm/{leaf}"])
        assert (fates[f"fc_norm/{leaf}"], fates[f"Transformer/encoder_norm/{leaf}"]) == ("fresh", "dropped")
    assert np.array_equal(params["embedding/kernel"], before["embedding/kernel"])
    assert params.keys() == after.keys()


def test_nothing_is_changed_in_the_source_by_a_refusal(tmp_path):
    stored = numpy_vit.draw_params()
    source = open_checkpoint(save_npz(tmp_path / "a.npz", stored))
    kept = {name: x.copy() for name, x in source.tensors.items()}
    with pytest.raises(UserError, match="does not fit"):
        adapt.fit_params(source, numpy_vit.draw_params(depth=3, grid=(3, 3)), head="keep", new_grid=(3, 3))
    assert all(np.array_equal(source.tensors[name], x) for name, x in kept.items())


@pytest.mark.parametrize(("bad", "dtype"), [(np.nan, np.float32), (np.inf, np.float16), (-np.inf, np.float64)])
def test_values_that_are_no_numbers_are_refused_by_name_and_count(bad, dtype):
    source = {name: x.astype(dtype) for name, x in tensors().items()}
    source["cls"][0, 0, :2] = bad
    source["head/bias"][1] = bad
    with pytest.raises(UserError) as caught:
        fit_params(source, tensors(), head="keep", new_grid=(2, 2))
    if np.isinf(bad) and dtype == np.float64:
        assert "too large for float32: cls holds inf" in str(caught.value)
        return
    message = str(caught.value)
    assert "holds values that are NaN or infinite, and nothing was loaded: it is damaged, or of a run that" in message
    assert message.splitlines()[1:] == ["  cls: 2 of 2 values", "  head/bias: 1 of 3 values"]
    # A head that is not loaded may hold what it likes.
    source["cls"][...] = 1
    fit_params(source, tensors(), head="zeros", new_grid=(2, 2))


# Positions of other kinds


def test_tables_of_rows_and_columns_are_resized_each_along_its_own_axis():
    place = "Transformer/posembed_input/pos_embedding"
    source = {
        f"{place}_x": np.array([[[0.0], [3.0]]], np.float32),
        f"{place}_y": np.array([[[10.0], [20.0]]], np.float32),
    }
    fresh = {f"{place}_x": np.zeros((1, 4, 1), np.float32), f"{place}_y": np.zeros((1, 3, 1), np.float32)}
    params, report = fit_params(source, fresh, old_grid=(2, 2), head="keep", new_grid=(3, 4))
    assert params[f"{place}_x"].ravel().tolist() == [0, 1, 2, 3]
    assert params[f"{place}_y"].ravel().tolist() == [10, 15, 20]
    assert [fate.action for fate in report] == ["resized", "resized"]
    with pytest.raises(UserError, match=r"pos_embedding_x is 1x3x1 in the checkpoint, 1x2x1 in the model"):
        fit_params(
            {f"{place}_x": np.zeros((1, 3, 1), np.float32)},
            {f"{place}_x": np.zeros((1, 2, 1), np.float32)},
            old_grid=(2, 2),
            head="keep",
            new_grid=(2, 2),
        )


def test_the_tables_of_every_layer_are_resized():
    names = [f"Transformer/encoderblock_{layer}/posembed_input/pos_embedding" for layer in range(3)]
    source = {"cls": np.zeros((1, 1, 1), np.float32)}
    fresh = dict(source)
    for layer, name in enumerate(names):
        source[name] = np.array([100, 0, 1, 2, 3], np.float32).reshape(1, 5, 1) + layer
        fresh[name] = np.zeros((1, 7, 1), np.float32)
    params, _ = fit_params(source, fresh, old_grid=(2, 2), head="keep", new_grid=(3, 2))
    for layer, name in enumerate(names):
        assert params[name].ravel().tolist() == [x + layer for x in (100, 0, 1, 1, 2, 2, 3)]


def test_relative_offsets_are_resized_and_those_of_the_class_token_kept():
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/relative_positions/rel_embedding"
    # One row of three patches: offsets -2 ... 2; then the class token's three. Five patches have offsets -4 ... 4.
    table = np.array([-2, -1, 0, 1, 2, 70, 80, 90], np.float32).reshape(8, 1, 1)
    source = {"cls": np.zeros((1, 1, 1), np.float32), name: table}
    fresh = source | {name: np.zeros((12, 1, 1), np.float32)}
    params, report = fit_params(source, fresh, old_grid=(1, 3), head="keep", new_grid=(1, 5))
    assert params[name].ravel().tolist() == [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 70, 80, 90]
    assert report[1].detail == "1x3 -> 1x5, bilinear_corners"


# Channels


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (1, [7]),
        (2, [1 + 2, 2 + 2]),
        (3, [1, 2, 4]),
        (4, [0.5, 2, 4, 0.5]),
        (6, [0.5, 1, 2] * 2),
        (7, [1 / 3, 1, 2] * 2 + [1 / 3]),
    ],
)
@pytest.mark.parametrize("name", ["embedding/kernel", "stem/kernel", "conv_root/kernel"])
def test_a_first_kernel_meets_other_channels_with_the_same_sum(name, channels, expected):
    source = {name: np.array([1, 2, 4], np.float32).reshape(1, 1, 3, 1)}
    params, report = fit_params(
        source, {name: np.zeros((1, 1, channels, 1), np.float32)}, old_grid=(1, 1), head="keep", new_grid=(1, 1)
    )
    np.testing.assert_allclose(params[name].ravel(), expected, rtol=1e-6)
    assert params[name].dtype == np.float32
    assert report[0].action == ("loaded" if channels == 3 else "channels")


def test_only_the_first_kernel_of_a_hybrid_may_have_other_channels():
    names = ("conv_root/kernel", "block1/unit1/conv1/kernel", "embedding/kernel")
    source = {name: np.ones((1, 1, 3, 1), np.float32) for name in names}
    fresh = {name: np.ones((1, 1, 4, 1), np.float32) for name in names}
    message = r"\(2 tensors(.|\n)*shape: block1/unit1/conv1/kernel is 1x1x3x1 .*\n  shape: embedding/kernel is 1x1x3x1"
    with pytest.raises(UserError, match=message):
        fit_params(source, fresh, old_grid=(1, 1), head="keep", new_grid=(1, 1))


# The head


def test_a_checkpoint_without_head_gets_a_new_one_or_is_refused_where_it_should_be_kept():
    source = {name: x for name, x in tensors().items() if not name.startswith("head/")}
    params, report = fit_params(source, tensors(), head="zeros", new_grid=(2, 2))
    assert params["head/bias"].tolist() == [2, 2, 2]
    assert not [fate for fate in report if fate.action == "dropped"]
    with pytest.raises(
        UserError, match=r"no head \(--config.init.head=zeros .*\)\n  missing in the checkpoint: head/kernel"
    ):
        fit_params(source, tensors(), head="keep", new_grid=(2, 2))


def test_a_value_beyond_float32_is_refused_and_a_plain_one_rounded():
    source = tensors(dtype=np.float64)
    source["cls"][0, 0, 1] = 1e39
    with pytest.raises(UserError, match=r"too large for float32: cls holds 1e\+39"):
        fit_params(source, tensors(), head="keep", new_grid=(2, 2))
    source["cls"][0, 0, 1] = 0.1
    params, _ = fit_params(source, tensors(), head="keep", new_grid=(2, 2))
    assert params["cls"][0, 0, 1] == np.float32(0.1)


@pytest.mark.slow
def test_the_order_of_tensors_does_not_matter(tmp_path):
    rng = random.Random(4)
    golden = golden_tensors("hf_classifier")
    expected = flat(load(copy_golden("hf_classifier", tmp_path / "hf")))
    for i in range(5):
        names, hub = list(TENSORS), list(golden)
        rng.shuffle(names)
        rng.shuffle(hub)
        assert attempt(save_npz(tmp_path / f"{i}.npz", {name: TENSORS[name] for name in names}), TENSORS) == ""
        (tmp_path / f"{i}.st").write_bytes(safetensors_of({name: golden[name] for name in hub}))
        assert attempt(tmp_path / f"{i}.st", expected, num_heads=3, norm_eps=1e-12) == ""


@pytest.mark.slow
def test_every_renamed_tensor_is_named_in_one_message(tmp_path):
    rng = random.Random(5)
    for i in range(20):
        names = rng.sample(sorted(TENSORS), 3)
        renamed = {(f"{name}x" if name in names else name): x for name, x in TENSORS.items()}
        message = attempt(save_npz(tmp_path / f"{i}.npz", renamed), TENSORS)
        core = ("embedding/kernel", "/query/kernel", "Dense_0/kernel")  # without these, it is no Transformer at all
        if not any(name.endswith(core) for name in names):
            assert [name for name in names if f"{name}x" not in message] == []


@pytest.mark.slow
def test_a_missing_tensor_is_never_overlooked(tmp_path):
    optional = {"head/kernel", "head/bias", "cls", numpy_vit.POSITIONS}  # of a model without them, if all are gone
    for i, name in enumerate(sorted(TENSORS)):
        path = save_npz(tmp_path / f"{i}.npz", {n: x for n, x in TENSORS.items() if n != name})
        if name == numpy_vit.POSITIONS:
            assert "has no position embeddings" in attempt(path, TENSORS)
            continue
        message = attempt(path, TENSORS)
        assert message
        if name not in optional and not name.endswith(("embedding/kernel", "query/kernel", "Dense_0/kernel")):
            assert f"missing in the checkpoint: {name} " in message
