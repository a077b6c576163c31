"""What goes out comes in again to the bit, with all that the tensors do not say; what a format cannot hold is refused whole."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import numpy_resnet
import numpy_vit
import pytest
import test_mixer
from checkpoints import agree, copy_golden, flat, golden_answer, images, run, same_bits, save_npz
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from vit_jax.convert.load import load
from vit_jax.convert.save import save_model
from vit_jax.models import build
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = {"npz": ".npz", "hf": "", "timm": "", "orbax": ""}


def through(tmp_path, loaded, *formats):
    """Saved and loaded again in each format in turn; the last, as loaded."""
    for step, form in enumerate(formats):
        path = tmp_path / f"{step}_{form}{SUFFIX[form]}"
        written = save_model(loaded, str(path), form)
        assert all(Path(file).exists() for file in written)
        loaded = load(str(path))
    return loaded


def stored(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def test_a_model_travels_through_every_format_unchanged_to_the_bit(tmp_path):
    tensors = numpy_vit.draw_params(seed=50)
    # Values whose bits a sum or a product on the way would change.
    tensors["head/bias"] = np.array([-0.0, 1e-45, 3.4e38, -1e-38, -3.4e38], np.float32)
    start = load(save_npz(tmp_path / "start.npz", tensors))
    end = through(tmp_path, start, "hf", "timm", "orbax", "npz")
    same_bits(stored(tmp_path / "3_npz.npz"), tensors)
    same_bits(flat(end), tensors)
    assert (end.settings, end.grid) == (start.settings, start.grid)
    assert end.settings["gelu"] == "tanh"


MASKED = {"patch_size": (4, 4), "width": 8, "depth": 2, "mlp_dim": 12, "num_heads": 2}
DECODER = {"decoder_width": 12, "decoder_depth": 2, "decoder_heads": 3, "decoder_mlp_dim": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "formats"),
    [
        ("masked", {}, ("hf", "npz", "orbax")),
        ("masked", {"decoder": "patch_4x4", "final_norm": False}, ("npz", "orbax")),
        ("masked", {"positions": "relative_bias", "positions_at": "shared", "layer_scale": 0.1}, ("npz", "orbax")),
        ("mae", DECODER | {"mask_ratio": 0.6}, ("hf", "npz", "orbax")),
    ],
)
def test_a_masked_model_travels_with_its_decoder(tmp_path, name, options, formats):
    module = build.MODELS[name](**MASKED, **options)
    params = flatten_dict(build.init_params(module, jax.random.key(0), (16, 16)), sep="/")
    rng = np.random.default_rng(0)
    tensors = {key: rng.standard_normal(x.shape).astype(np.float32) for key, x in params.items()}
    path = save_npz(tmp_path / "start.npz", tensors)
    own = {"name": name, "num_classes": 0, **MASKED, **options}
    Path(path).with_suffix(".json").write_text(json.dumps({"vit_jax": {"model": own, "grid": [4, 4]}}))
    start = load(path)
    same_bits(flat(start), tensors)
    end = through(tmp_path, start, *formats)
    same_bits(flat(end), tensors)
    assert (end.settings, end.grid) == (start.settings, (4, 4))
    # Without the description beside it, tensors tell all but the ratio and the initial value of LayerScale.
    Path(path).with_suffix(".json").unlink()
    told = load(path).settings
    assert {key: told[key] for key in {*MASKED, *options} - {"mask_ratio", "layer_scale"}} == {
        key: x for key, x in own.items() if key in {*MASKED, *options} - {"mask_ratio", "layer_scale"}
    }
    assert told["name"] == name


def test_transformers_has_no_masked_model_of_wide_images(tmp_path):
    loaded = load(copy_golden("hf_masked", tmp_path / "hf"), resolution=(16, 24))
    with pytest.raises(UserError, match=r"square patches of square images, and these are of 4x4 and 4x6 patches"):
        save_model(loaded, str(tmp_path / "out"), "hf")
    with pytest.raises(UserError, match=r"model.name is 'masked'; timm knows 'vit'"):
        save_model(loaded, str(tmp_path / "out"), "timm")


def test_what_tensors_do_not_say_travels_with_them(tmp_path):
    names = {str(i): name for i, name in enumerate(("ant", "bee", "cow", "dog", "elk", "fox", "gnu"))}
    config = {"id2label": names, "layer_norm_eps": 1e-7, "hidden_act": "gelu_fast"}
    start = load(copy_golden("hf_classifier", tmp_path / "hf", config=config))
    end = through(tmp_path, start, "npz", "timm", "hf", "orbax", "timm", "orbax", "npz", "hf")
    assert (end.settings["gelu"], end.settings["norm_eps"], end.settings["num_heads"]) == ("tanh", 1e-7, 3)
    assert end.source.meta["class_names"] == list(names.values())
    same_bits(flat(end), flat(start))


def test_an_epsilon_that_timm_does_not_have_is_refused_there(tmp_path):
    loaded = load(copy_golden("hf_classifier", tmp_path / "hf", config={"layer_norm_eps": 1e-3}))
    with pytest.raises(UserError, match=r"timm's LayerNorm epsilon is 1e-6, this model's 0\.001"):
        save_model(loaded, str(tmp_path / "timm"), "timm")
    assert not (tmp_path / "timm").exists()


def test_a_grid_that_is_not_square_travels_with_the_positions(tmp_path):
    tensors = numpy_vit.draw_params(seed=51, grid=(2, 3))
    start = load(save_npz(tmp_path / "start.npz", tensors), grid=(2, 3), gelu="erf")
    for form in ("npz", "hf", "timm", "orbax"):
        end = through(tmp_path, start, form)
        assert (end.grid, end.settings["gelu"]) == ((2, 3), "erf")
        same_bits(flat(end), tensors)


def test_the_other_librarys_weights_leave_as_they_came(tmp_path):
    for name, form in (("hf_classifier", "hf"), ("timm_token", "timm"), ("timm_average", "timm")):
        loaded = load(copy_golden(name, tmp_path / name))
        save_model(loaded, str(tmp_path / f"{name}_again"), form)
        same_bits(
            load_file(tmp_path / f"{name}_again" / "model.safetensors"),
            load_file(tmp_path / name / "model.safetensors"),
        )


@pytest.mark.slow
def test_registers_get_the_places_that_timm_gives_them(tmp_path):
    loaded = load(copy_golden("timm_no_embed_class", tmp_path / "timm"))
    save_model(loaded, str(tmp_path / "again"), "timm")
    written = load_file(tmp_path / "again" / "model.safetensors")
    came = load_file(tmp_path / "timm" / "model.safetensors")
    # They came without, 16 positions; they leave with those of a class token and two registers, zeros, before them.
    assert not written["pos_embed"][:, :3].any()
    assert np.array_equal(written["pos_embed"][:, 3:], came["pos_embed"])
    loaded.params["Transformer"]["registers"][0, 0, :2] = [-0.0, 1e-45]
    same_bits(flat(through(tmp_path, loaded, "timm", "npz", "timm")), flat(loaded))
    x, answer = golden_answer("timm_no_embed_class")
    agree(run(load(str(tmp_path / "again")), x).logits, answer)


def test_a_scanned_model_is_written_with_its_layers_apart(tmp_path):
    tensors = numpy_vit.draw_params(seed=52)
    scanned = load(save_npz(tmp_path / "start.npz", tensors), scan=True)
    for form in ("npz", "hf", "timm", "orbax"):
        same_bits(flat(load(save_and_name(scanned, tmp_path / form, form), scan=False)), tensors)


def save_and_name(loaded, path, form):
    path = path.with_suffix(SUFFIX[form])
    save_model(loaded, str(path), form)
    return str(path)


@pytest.mark.slow
def test_families_of_ours_come_back_from_npz_and_orbax(tmp_path):
    hybrid = numpy_vit.draw_params(seed=53, patch=(1, 1))
    hybrid |= numpy_vit.draw(numpy_resnet.stem_shapes((1, 1), 16) | {"embedding/kernel": (1, 1, 128, 8)}, seed=9)
    families = {
        "hybrid": hybrid,
        "resnet": numpy_vit.draw(numpy_resnet.bit_shapes((1, 1), 64) | {"head/kernel": (512, 3), "head/bias": (3,)}, 1),
        "mixer": numpy_vit.draw(test_mixer.mixer_shapes(**test_mixer.TINY | {"tokens": 4}), seed=2),
        "map": numpy_vit.draw_params(seed=3, pool="map", representation=6),
    }
    for name, tensors in families.items():
        start = load(save_npz(tmp_path / f"{name}.npz", tensors))
        (tmp_path / name).mkdir()
        end = through(tmp_path / name, start, "npz", "orbax", "npz")
        same_bits(flat(end), tensors)
        assert end.settings == start.settings
    assert "resnet/block1/unit01/a/proj/standardized_conv2d/kernel" in stored(tmp_path / "resnet" / "2_npz.npz")
    assert stored(tmp_path / "resnet" / "2_npz.npz")["resnet/head/conv2d/kernel"].shape == (1, 1, 512, 3)


def test_a_hugging_face_config_says_what_the_model_is(tmp_path):
    start = load(save_npz(tmp_path / "start.npz", numpy_vit.draw_params(seed=54, grid=(2, 3))), grid=(2, 3))
    save_model(start, str(tmp_path / "hf"), "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    expected = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    expected |= {"intermediate_size": 12, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_channels": 3}
    expected |= {"image_size": [8, 18], "patch_size": [4, 6], "architectures": ["ViTForImageClassification"]}
    assert {key: config[key] for key in expected} == expected
    assert config["id2label"] == {str(i): f"LABEL_{i}" for i in range(5)}
    processor = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 8, "width": 18}
    # (x / 255 - 0.5) / 0.5 is x in [-1, 1].
    assert (processor["image_mean"], processor["image_std"], processor["rescale_factor"]) == (
        [0.5] * 3,
        [0.5] * 3,
        1 / 255,
    )
    bare = load(str(tmp_path / "start.npz"), grid=(2, 3), num_classes=0)
    save_model(bare, str(tmp_path / "bare"), "hf")
    assert json.loads((tmp_path / "bare" / "config.json").read_text())["architectures"] == ["ViTModel"]
    assert "embeddings.cls_token" in load_file(tmp_path / "bare" / "model.safetensors")


# Refusals


REGISTERS = numpy_vit.draw({"Transformer/registers": (1, 2, 8)}, 60)
TABLES_2D = numpy_vit.draw({f"Transformer/posembed_input/pos_embedding_{axis}": (1, 2, 4) for axis in "xy"}, 61)


def without_positions(tensors):
    return {name: x for name, x in tensors.items() if name != numpy_vit.POSITIONS}


CANNOT = {
    "registers": (numpy_vit.draw_params() | REGISTERS, "hf", ["model.registers is 2; hf knows 0"]),
    "average": (
        numpy_vit.draw_params(pool="gap"),
        "hf",
        ["model.pool is 'gap'; hf knows 'token'", "model.class_token is 'no'; hf knows 'auto' or 'yes'"],
    ),
    "representation": (
        numpy_vit.draw_params(representation=6),
        "hf",
        ["both a representation layer (its pooler) and a head"],
    ),
    "representation, timm": (
        numpy_vit.draw_params(representation=6),
        "timm",
        ["model.representation_size is 6; timm knows 0"],
    ),
    "map": (numpy_vit.draw_params(pool="map"), "timm", ["model.pool is 'map'; timm knows 'token' or 'gap'"]),
    "2-D": (
        without_positions(numpy_vit.draw_params()) | TABLES_2D | REGISTERS,
        "hf",
        ["model.positions is 'learned_2d'; hf knows 'learned_1d'", "model.registers is 2; hf knows 0"],
    ),
    "2-D, timm": (
        without_positions(numpy_vit.draw_params()) | TABLES_2D,
        "timm",
        ["model.positions is 'learned_2d'; timm knows 'learned_1d'"],
    ),
    "none": (without_positions(numpy_vit.draw_params()), "hf", ["model.positions is 'none'; hf knows 'learned_1d'"]),
    "hybrid": (
        numpy_vit.draw_params(patch=(1, 1))
        | numpy_vit.draw(numpy_resnet.stem_shapes((), 16) | {"embedding/kernel": (1, 1, 16, 8)}),
        "timm",
        ["model.stem is 'resnet'; timm knows 'none'"],
    ),
    "mixer": (
        numpy_vit.draw(test_mixer.mixer_shapes(**test_mixer.TINY | {"tokens": 4})),
        "hf",
        ["model.name is 'mixer'; hf knows 'vit'"],
    ),
}


@pytest.mark.parametrize("what", CANNOT)
def test_a_format_that_cannot_hold_a_model_says_every_reason_and_writes_nothing(tmp_path, what):
    tensors, form, reasons = CANNOT[what]
    loaded = load(save_npz(tmp_path / "start.npz", tensors), **({"positions": "none"} if what == "none" else {}))
    with pytest.raises(UserError) as caught:
        save_model(loaded, str(tmp_path / "out"), form)
    assert [reason for reason in reasons if reason not in str(caught.value)] == []
    assert [path.name for path in tmp_path.iterdir()] == ["start.npz"]


def test_a_representation_layer_without_head_is_hugging_faces_pooler(tmp_path):
    tensors = numpy_vit.draw_params(seed=55, representation=8)
    loaded = load(save_npz(tmp_path / "start.npz", tensors), num_classes=0)
    save_model(loaded, str(tmp_path / "hf"), "hf")
    again = load(str(tmp_path / "hf"))
    assert np.array_equal(
        load_file(tmp_path / "hf" / "model.safetensors")["pooler.dense.weight"], tensors["pre_logits/kernel"].T
    )
    agree(run(again, images()).pre_logits, numpy_vit.forward(tensors, images())["pre_logits"])


@pytest.mark.parametrize("form", ["npz", "hf", "timm", "orbax"])
def test_what_exists_is_refused_and_stays_as_it_is(tmp_path, form):
    loaded = load(save_npz(tmp_path / "start.npz", numpy_vit.draw_params()))
    for kind in ("file", "folder"):
        place = tmp_path / f"{kind}{SUFFIX[form]}"
        place.mkdir() if kind == "folder" else place.write_text("mine")
        with pytest.raises(UserError, match=rf"{kind}{SUFFIX[form]} exists; give another --to, or remove it first"):
            save_model(loaded, str(place), form)
        assert not list(place.iterdir()) if kind == "folder" else place.read_text() == "mine"
    with pytest.raises(UserError, match=r"--format=onnx; expected one of npz, hf, timm, orbax"):
        save_model(loaded, str(tmp_path / "model.onnx"), "onnx")


def test_the_json_beside_an_npz_is_not_overwritten(tmp_path):
    loaded = load(save_npz(tmp_path / "start.npz", numpy_vit.draw_params()))
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(UserError, match=r"out.json exists, and the npz's settings would go there"):
        save_model(loaded, str(tmp_path / "out.npz"), "npz")
    assert not (tmp_path / "out.npz").exists()
    assert (tmp_path / "out.json").read_text() == "mine"
    with pytest.raises(UserError, match=r"give another --to, ending in .npz"):
        save_model(loaded, str(tmp_path / "model.json"), "npz")


# The command


def convert(*arguments):
    command = [sys.executable, "-m", "vit_jax", "convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_command_takes_a_model_around_and_back_with_identical_bytes(tmp_path):
    tensors = numpy_vit.draw_params(seed=56, grid=(2, 3))
    save_npz(tmp_path / "a.npz", tensors)
    steps = [("a.npz", "b", "hf", ["--set", "grid=2,3", "--report"]), ("b", "c", "timm", []), ("c", "d.npz", "npz", [])]
    for source, target, form, more in steps:
        done = convert(f"--from={tmp_path / source}", f"--to={tmp_path / target}", f"--format={form}", *more)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"wrote {tmp_path / target}" in done.stdout
        if more:
            assert f"(npz), {sum(x.size for x in tensors.values()):,} parameters" in done.stdout
            assert "  loaded   cls 1x1x8" in done.stdout
    same_bits(stored(tmp_path / "d.npz"), tensors)


@pytest.mark.slow
def test_the_command_fails_with_a_sentence_and_no_traceback(tmp_path):
    save_npz(tmp_path / "a.npz", numpy_vit.draw_params(grid=(2, 3)))
    done = convert(f"--from={tmp_path / 'a.npz'}", f"--to={tmp_path / 'b'}", "--format=hf")
    assert done.returncode not in (0, 1)
    assert done.stderr.startswith("error: ")
    assert "give grid=(gh, gw)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "b").exists()
