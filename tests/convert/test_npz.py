"""Files from strangers: released npz files load under any of their layouts, and nothing in them is executed."""

import functools
import os
import pickle
import random
import struct
import time
import zipfile
import zlib

import jax
import jax.numpy as jnp
import ml_collections
import ml_dtypes
import numpy as np
import numpy_vit
import pytest
import scipy.ndimage
from checkpoints import (
    flat,
    golden_tensors,
    same_bits,
    save_npz,
    save_safetensors,
)
from damaged import TENSORS, Bomb, attempt, npy, npz_with, zip_of

from vit_jax.convert import load as door
from vit_jax.convert.names import native_names
from vit_jax.convert.npz import read_npz
from vit_jax.models import build
from vit_jax.resolve import resolve
from vit_jax.run.assemble import build_model
from vit_jax.run.initial import initial_params
from vit_jax.run.schema import SCHEMA
from vit_jax.run.settle import Facts, settle
from vit_jax.types import UserError


def linen_name(name):
    """The name that later code gives a tensor of an encoder block."""
    if "encoderblock_" in name:
        name = name.replace("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")
        name = name.replace("LayerNorm_2", "LayerNorm_1").replace("MlpBlock_3", "MlpBlock_0")
    return name


def config_for(path, *, resolution=(8, 12), head="keep", classes=5, **model):
    """A resolved config of the tiny model of `numpy_vit`, on a data set that is never opened."""
    sizes = {"patch_size": (4, 6), "width": 8, "depth": 2, "mlp_dim": 12, "num_heads": 2}
    config = ml_collections.ConfigDict(
        {
            "model": {"name": "vit", "num_classes": classes, **sizes, **model},
            "data": {
                "dataset": "digits",
                "split": "train",
                "resolution": resolution,
                "batch_size": 8,
                "recipe": "finetune",
            },
            "objective": {"name": "softmax"},
            "optim": {"name": "sgd", "lr": 0.1, "decay": "cosine"},
            "train": {"duration": 10},
            "evals": {},
            "checkpoint": {},
            "init": {"path": str(path), "head": head},
            "seed": 0,
        }
    )
    return settle(resolve(config, SCHEMA), Facts("cpu", 10))[0]


def load(path, **options):
    config = config_for(path, **options)
    params, fates = initial_params(config, build_model(config))
    return config, params, fates


@functools.cache
def compiled(model):
    return jax.jit(build.make_forward(model))


def logits(config, params, images):
    outputs = compiled(build_model(config))(jax.tree.map(jnp.asarray, params), jnp.asarray(images))
    return np.asarray(outputs.logits)


def images(h=8, w=12):
    return np.random.default_rng(2).integers(0, 256, (3, h, w, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["token", "gap", "map"])
def test_a_released_file_gives_the_logits_it_was_written_with(tmp_path, pool):
    tensors = numpy_vit.draw_params(pool=pool, representation=6)
    np.savez(tmp_path / "released.npz", **tensors)
    config, params, fates = load(tmp_path / "released.npz", pool=pool, representation_size=6)
    expected = numpy_vit.forward(tensors, images(), pool=pool)["logits"]
    np.testing.assert_allclose(logits(config, params, images()), expected, rtol=1e-5, atol=1e-5)
    assert sorted((fate.name, fate.action) for fate in fates) == sorted((name, "loaded") for name in tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rename",
    [linen_name, lambda name: f"opt/target/{name}", lambda name: f"params/{name}"],
    ids=["linen", "opt/target", "params"],
)
def test_later_layouts_load_the_same(tmp_path, rename):
    tensors = numpy_vit.draw_params()
    stored = {rename(name): value for name, value in tensors.items()}
    assert set(stored) != set(tensors)
    np.savez(tmp_path / "later.npz", **stored)
    found, aside = native_names(read_npz(str(tmp_path / "later.npz")))
    assert aside == {}
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert np.array_equal(found[name], value), name
    _, _, fates = load(tmp_path / "later.npz")
    assert {fate.action for fate in fates} == {"loaded"}


def test_names_no_rule_knows_are_kept():
    one = np.ones(1)
    assert native_names({"MAPHead_0/MlpBlock_0/Dense_0/bias": one}) == ({"MAPHead_0/MlpBlock_0/Dense_0/bias": one}, {})
    # Beside the model in a training state: set aside by name, and not taken for parameters.
    stored = {"opt/target/a/LayerNorm_1/scale": one, "opt/state/step": one}
    assert native_names(stored) == ({"a/LayerNorm_1/scale": one}, {"opt/state/step": "outside opt/target"})


@pytest.mark.slow
def test_bfloat16_is_read_from_two_byte_void(tmp_path):
    tensors = numpy_vit.draw_params()
    rounded = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}
    np.savez(tmp_path / "bf16.npz", **{name: value.view("V2") for name, value in rounded.items()})
    config, params, _ = load(tmp_path / "bf16.npz")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    expected = numpy_vit.forward({n: v.astype(np.float64) for n, v in rounded.items()}, images())["logits"]
    np.testing.assert_allclose(logits(config, params, images()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_new_head_replaces_the_old_one_and_its_representation_layer(tmp_path):
    tensors = numpy_vit.draw_params(classes=1000, representation=6)
    np.savez(tmp_path / "i21k.npz", **tensors)
    config, params, fates = load(tmp_path / "i21k.npz", head="zeros", classes=7, head_bias=-1.5)
    assert logits(config, params, images()).tolist() == [[-1.5] * 7] * 3
    found = {(fate.name, fate.action, fate.detail.split()[0]) for fate in fates}
    encoder = {name for name in tensors if not name.startswith(("head/", "pre_logits/"))}
    assert {name for name, action, _ in found if action == "loaded"} == encoder
    assert {fate for fate in found if fate[1] != "loaded"} == {
        ("pre_logits/kernel", "dropped", "8x6"),
        ("pre_logits/bias", "dropped", "6"),
        ("head/kernel", "dropped", "6x1000"),
        ("head/bias", "dropped", "1000"),
        ("head/kernel", "fresh", "8x7"),
        ("head/bias", "fresh", "7"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("resolution", "grid"), [((12, 12), (3, 2)), ((8, 24), (2, 4)), ((16, 18), (4, 3))])
def test_positions_are_resized_to_another_grid(tmp_path, resolution, grid):
    tensors = numpy_vit.draw_params()
    np.savez(tmp_path / "released.npz", **tensors)
    config, params, fates = load(tmp_path / "released.npz", resolution=resolution)
    old = tensors[numpy_vit.POSITIONS].astype(np.float64)
    square = old[0, 1:].reshape(2, 2, 8)
    zoomed = scipy.ndimage.zoom(square, (grid[0] / 2, grid[1] / 2, 1), order=1, mode="nearest")
    positions = np.concatenate([old[:, :1], zoomed.reshape(1, -1, 8)], axis=1)
    expected = numpy_vit.forward(tensors, images(*resolution), positions=positions)["logits"]
    found = logits(config, params, images(*resolution))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    (fate,) = (fate for fate in fates if fate.action != "loaded")
    assert fate[:2] == (numpy_vit.POSITIONS, "resized")
    assert fate.detail.startswith(f"2x2 -> {grid[0]}x{grid[1]}")


# Errors


def write(path, tensors):
    np.savez(path, **tensors)
    return path


@pytest.mark.slow
def test_every_tensor_that_does_not_fit_is_listed_in_one_message(tmp_path):
    tensors = numpy_vit.draw_params()
    del tensors["cls"], tensors["Transformer/encoderblock_1/LayerNorm_0/scale"]
    tensors["head/kernel"] = np.zeros((8, 6), np.float32)
    tensors["embedding/bias"] = np.zeros(8, np.int64)
    tensors["Transformer/encoderblock_2/LayerNorm_0/scale"] = np.zeros(8, np.float32)
    with pytest.raises(UserError) as caught:
        load(write(tmp_path / "wrong.npz", tensors))
    message = str(caught.value)
    assert "(6 tensors, nothing was loaded)" in message
    for line in (
        "missing in the checkpoint: cls 1x1x8",
        "missing in the checkpoint: Transformer/encoderblock_1/LayerNorm_0/scale 8",
        "shape: head/kernel is 8x6 in the checkpoint, 8x5 in the model",
        "not floating point: embedding/bias is int64",
        "not in the model: Transformer/encoderblock_2/LayerNorm_0/scale 8",
        "Transformer/posembed_input/pos_embedding has 5 positions, not a square grid",
    ):
        assert line in message


@pytest.mark.slow
def test_a_pre_logits_layer_the_model_lacks_is_an_error_when_the_head_is_kept(tmp_path):
    path = write(tmp_path / "layer.npz", numpy_vit.draw_params(representation=8))
    with pytest.raises(UserError, match=r"\(2 tensors(.|\n)*not in the model: pre_logits/kernel 8x8"):
        load(path)


def test_a_pickle_in_an_npz_is_refused_and_never_executed(tmp_path):
    tensors = numpy_vit.draw_params() | {"head/bias": np.array([Bomb(tmp_path / "exploded")], object)}
    np.savez(tmp_path / "bomb.npz", **tensors)
    with np.load(tmp_path / "bomb.npz", allow_pickle=True) as archive:
        archive["head/bias"]  # it is armed
    assert (tmp_path / "exploded").exists()
    (tmp_path / "exploded").rmdir()
    with pytest.raises(UserError, match=r"Python objects(.|\n)*  head/bias: "):
        load(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_named_npz_is_refused_and_never_executed(tmp_path):
    (tmp_path / "bomb.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(UserError, match=r"bomb.npz is a Python pickle .* is not read here"):
        load(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_one_clear_error(tmp_path, share):
    whole = write(tmp_path / "whole.npz", numpy_vit.draw_params()).read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=rf"cut.npz cannot be read as npz .* has {int(len(whole) * share)} bytes"):
        load(cut)


def test_damaged_bytes_inside_are_an_error(tmp_path):
    path = write(tmp_path / "flipped.npz", {"cls": np.arange(100, dtype=np.float32)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"flipped.npz cannot be read as npz"):
        read_npz(str(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"), [("notes.txt", b"not parameters\n"), ("empty.npz", b""), ("lone.npy", None)]
)
def test_a_file_that_is_no_npz_is_an_error(tmp_path, name, content):
    path = tmp_path / name
    np.save(path, np.zeros(3)) if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} begins with .* neither npz \(PK\) nor safetensors"):
        load(path)


def test_a_zip_of_other_files_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"  readme.txt: not an array"):
        load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [("", r"holds nothing; expected checkpoints/"), ("missing.npz", "is neither a file nor a folder")],
)
def test_a_folder_that_is_no_run_and_a_missing_file_are_errors(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_cut_anywhere_is_refused(tmp_path, compressed):
    (np.savez_compressed if compressed else np.savez)(tmp_path / "whole.npz", **TENSORS)
    whole = (tmp_path / "whole.npz").read_bytes()
    assert attempt(tmp_path / "whole.npz", TENSORS) == ""
    rng = random.Random(1)
    for size in [*range(12), len(whole) - 1, len(whole) - 22, *(rng.randrange(len(whole)) for _ in range(40))]:
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        assert attempt(tmp_path / "cut.npz", TENSORS), f"cut to {size} bytes"


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_with_a_flipped_bit_is_refused_or_unharmed(tmp_path, compressed):
    (np.savez_compressed if compressed else np.savez)(tmp_path / "whole.npz", **TENSORS)
    whole = (tmp_path / "whole.npz").read_bytes()
    # Values are guarded by their sums; what is not guarded are the tables of the zip, most of all the one at the end.
    table = whole.index(b"PK\x01\x02")
    rng = random.Random(2)
    places = [rng.randrange(len(whole)) for _ in range(30)] + [rng.randrange(table, len(whole)) for _ in range(80)]
    refused = 0
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        (tmp_path / "flipped.npz").write_bytes(flipped)
        refused += bool(attempt(tmp_path / "flipped.npz", TENSORS))
    assert refused > len(places) / 3


def test_a_noisy_npz_is_refused_or_unharmed(tmp_path):
    np.savez(tmp_path / "whole.npz", **TENSORS)
    whole = (tmp_path / "whole.npz").read_bytes()
    rng = random.Random(3)
    for _ in range(60):
        noisy = bytearray(whole)
        start = rng.randrange(len(whole) - 64)
        noisy[start : start + 64] = rng.randbytes(64)
        (tmp_path / "noisy.npz").write_bytes(noisy)
        attempt(tmp_path / "noisy.npz", TENSORS)


@pytest.mark.slow
def test_numbers_that_are_no_floats_are_refused_and_wider_floats_are_rounded(tmp_path):
    name = "head/bias"
    for i, dtype in enumerate(("i4", "i8", "u1", "?", "c8", "S4", "U2", "M8[s]", "V3", [("a", "f4"), ("b", "f4")])):
        path = save_npz(tmp_path / f"{i}.npz", TENSORS | {name: np.zeros(5, dtype)})
        assert "not floating point: head/bias" in attempt(path, TENSORS), dtype
    wide = {n: x.astype(np.float64) + 1e-12 for n, x in TENSORS.items()}
    expected = {n: x.astype(np.float32) for n, x in wide.items()}
    assert attempt(save_npz(tmp_path / "wide.npz", wide), expected) == ""
    big_endian = {n: x.astype(">f4") for n, x in TENSORS.items()}
    assert attempt(save_npz(tmp_path / "big.npz", big_endian), TENSORS) == ""
    columns_first = {n: np.asfortranarray(x) for n, x in TENSORS.items()}
    assert attempt(save_npz(tmp_path / "fortran.npz", columns_first), TENSORS) == ""
    huge = TENSORS | {name: np.full(5, 1e300)}
    assert "too large for float32: head/bias holds 1e+300" in attempt(save_npz(tmp_path / "huge.npz", huge), TENSORS)


def test_a_tensor_that_stands_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        for name, x in TENSORS.items():
            archive.writestr(f"{name}.npy", npy(x))
        archive.writestr("cls", npy(TENSORS["cls"] + 1))
    assert "  cls: stands twice in the file" in attempt(tmp_path / "twice.npz", TENSORS)


CLS = TENSORS["cls"]
TERA = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
HEADERS = {
    "terabytes": npy(CLS, header=TERA),
    "more digits than an int has": npy(CLS, header=TERA.replace("1099511627776", "9" * 5000)),
    "an axis beyond any index": npy(CLS, header=TERA.replace("1099511627776", f"0, {2**80}")),
    "terabytes of nothing": npy(CLS, header=TERA.replace("1099511627776", "0, 1099511627776")),
    "negative": npy(CLS, header=TERA.replace("1099511627776", "-8")),
    "twice negative": npy(CLS, header=TERA.replace("1099511627776,", "1, -1, -8")),
    "a hundred axes": npy(CLS, header=TERA.replace("1099511627776,", "1, " * 100 + "8")),
    "text for a shape": npy(CLS, header=TERA.replace("(1099511627776,)", "'1, 1, 8'")),
    "no shape": npy(CLS, header="{'descr': '<f4'}"),
    "no Python": npy(CLS, header="{'descr': "),
    "a program": npy(CLS, header="__import__('os').mkdir('exploded')"),
    "brackets without end": npy(CLS, header="(" * 9000),
    "an unknown type": npy(CLS, header=TERA.replace("<f4", "<q9")),
    "a type without size": npy(CLS, header=TERA.replace("<f4", "|V0").replace("1099511627776", "8")),
    "version 9": npy(CLS, version=(9, 0)),
    "version 2, cut": npy(CLS, version=(2, 0))[:9],
    "bytes too many": npy(CLS) + b"\0" * 4,
    "bytes too few": npy(CLS)[:-4],
    "nothing": b"",
    "text": b"<html>404</html>",
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_lying_array_is_refused_by_name_and_allocates_nothing(tmp_path, what):
    message = attempt(npz_with(tmp_path / "lie.npz", cls=HEADERS[what]), TENSORS)
    assert "\n  cls: " in message
    assert not os.path.exists("exploded")


def test_headers_that_numpy_reads_load_the_same(tmp_path):
    assert attempt(npz_with(tmp_path / "two.npz", cls=npy(CLS, version=(2, 0))), TENSORS) == ""
    by_python_2 = npy(CLS, header="{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 1L, 8L), }")
    assert attempt(npz_with(tmp_path / "old.npz", cls=by_python_2), TENSORS) == ""


def test_lists_of_damaged_tensors_are_complete(tmp_path):
    path = npz_with(tmp_path / "many.npz", cls=b"", head__bias=HEADERS["version 9"], head__kernel=HEADERS["negative"])
    message = attempt(path, TENSORS)
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == ["  cls", "  head/kernel", "  head/bias"]


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("cls.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy(np.zeros(0, np.float32), header=TERA.replace("1099511627776", str(300 * 2**18))))
        for _ in range(300):
            member.write(bytes(2**20))
    packed = (tmp_path / "bomb.npz").stat().st_size
    assert packed < 2**21 < 300 * 2**20
    began = time.perf_counter()
    message = attempt(tmp_path / "bomb.npz", TENSORS)
    assert f"has {packed:,} bytes and would unpack to 314," in message
    assert time.perf_counter() - began < 1


def test_a_zip_that_lies_about_what_it_unpacks_to_is_refused(tmp_path):
    zip_of(tmp_path / "bomb.npz", {"cls.npy": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    lying = (tmp_path / "bomb.npz").read_bytes().replace(struct.pack("<I", 2**24), struct.pack("<I", 160))
    (tmp_path / "bomb.npz").write_bytes(lying)
    assert attempt(tmp_path / "bomb.npz", TENSORS)


def test_an_npz_of_an_unknown_compression_or_with_a_password_is_refused(tmp_path):
    for i, (offset, value) in enumerate(((8, 99), (8, 12), (8, 14), (6, 1))):
        whole = bytearray(npz_with(tmp_path / f"{i}.npz").read_bytes())
        for mark, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
            place = whole.find(mark)
            while place >= 0:
                whole[place + offset + shift] = value
                place = whole.find(mark, place + 4)
        (tmp_path / f"{i}.npz").write_bytes(whole)
        assert "cannot be read as npz" in attempt(tmp_path / f"{i}.npz", TENSORS)


def test_sums_are_checked_although_every_byte_was_read(tmp_path):
    # The array ends where the member ends: reading exactly its bytes must not skip the check.
    whole = npz_with(tmp_path / "whole.npz").read_bytes()
    at = whole.index(npy(TENSORS["head/kernel"]))
    wrong = bytearray(whole)
    wrong[at + len(npy(TENSORS["head/kernel"])) - 1] ^= 1
    (tmp_path / "wrong.npz").write_bytes(wrong)
    assert zlib.crc32(bytes(wrong)) != zlib.crc32(whole)
    assert "Bad CRC-32" in attempt(tmp_path / "wrong.npz", TENSORS)


def test_bfloat16_stored_as_two_bytes_of_void_is_read_exactly(tmp_path):
    tensors = {name: x.astype(ml_dtypes.bfloat16) for name, x in numpy_vit.draw_params(seed=7).items()}
    loaded = door.load(save_npz(tmp_path / "vit.npz", {name: x.view("V2") for name, x in tensors.items()}))
    same_bits(flat(loaded), {name: x.astype(np.float32) for name, x in tensors.items()})


def test_tensors_without_values_are_refused_by_name(tmp_path):
    for i, (name, x) in enumerate(TENSORS.items()):
        for axis in range(x.ndim):
            shape = [0 if a == axis else size for a, size in enumerate(x.shape)]
            message = attempt(save_npz(tmp_path / f"{i}.npz", TENSORS | {name: np.zeros(shape, np.float32)}), TENSORS)
            assert f"\n  {name}: " in message
    tensors = golden_tensors("timm_token") | {"norm.bias": np.zeros((0, 24), np.float32)}
    assert "\n  norm.bias: shape [0, 24]" in attempt(save_safetensors(tmp_path / "st", tensors), {}, num_heads=3)
    layers = {"Transformer/encoderblock/LayerNorm_0/scale": np.zeros((10**9, 0), np.float32)}
    assert attempt(save_npz(tmp_path / "layers.npz", TENSORS | layers), TENSORS)
