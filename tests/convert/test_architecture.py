"""Files from strangers: whatever was done to one, it loads exactly or is one UserError; nothing else, and nothing in part."""

import json
import os
import pickle
import random
import struct
import time
import zipfile
import zlib

import numpy as np
import numpy_vit
import pytest
from checkpoints import (
    copy_golden,
    flat,
    golden_tensors,
    same_bits,
    save_npz,
    save_safetensors,
)

from vit_jax.convert.load import load
from vit_jax.types import UserError

TENSORS = numpy_vit.draw_params(depth=1)
SECONDS = 10  # for any one file: more would be a trap


def attempt(path, expected, **overrides):
    """Loads a file that someone touched; the message if it was refused, "" if every tensor is what it should be."""
    began = time.perf_counter()
    try:
        same_bits(flat(load(str(path), **overrides)), expected)
        return ""
    except UserError as error:
        return str(error) or "refused without a word"
    finally:
        assert time.perf_counter() - began < SECONDS


class Bomb:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# npz


def npy(array, *, header=None, version=(1, 0)):
    """A .npy file's bytes, its header replaced."""
    text = header or f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {array.shape}, }}"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes(version) + size + text.encode("latin1") + b"\n" + array.tobytes()


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    """A zip of {name or (name, number): bytes}."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name if isinstance(name, str) else name[0], content)
    return path


def npz_with(path, **changed):
    """The model's npz with some tensors' .npy bytes replaced; `/` is written `__` in keywords."""
    members = {f"{name}.npy": npy(x) for name, x in TENSORS.items()}
    return zip_of(path, members | {f"{name.replace('__', '/')}.npy": x for name, x in changed.items()})


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_cut_anywhere_is_refused(tmp_path, compressed):
    (np.savez_compressed if compressed else np.savez)(tmp_path / "whole.npz", **TENSORS)
    whole = (tmp_path / "whole.npz").read_bytes()
    assert attempt(tmp_path / "whole.npz", TENSORS) == ""
    rng = random.Random(1)
    for size in [*range(12), len(whole) - 1, len(whole) - 22, *(rng.randrange(len(whole)) for _ in range(40))]:
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        assert attempt(tmp_path / "cut.npz", TENSORS), f"cut to {size} bytes"


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


def test_every_renamed_tensor_is_named_in_one_message(tmp_path):
    rng = random.Random(5)
    for i in range(20):
        names = rng.sample(sorted(TENSORS), 3)
        renamed = {(f"{name}x" if name in names else name): x for name, x in TENSORS.items()}
        message = attempt(save_npz(tmp_path / f"{i}.npz", renamed), TENSORS)
        core = ("embedding/kernel", "/query/kernel", "Dense_0/kernel")  # without these, it is no Transformer at all
        if not any(name.endswith(core) for name in names):
            assert [name for name in names if f"{name}x" not in message] == []


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


def wrong_shapes(x):
    """An axis more before or behind, one in all, none, one split in two."""
    split = [x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)] if x.ndim and x.shape[-1] % 2 == 0 else []
    wrong = [x[None], x[..., None], x.reshape(-1), x.reshape(-1)[0].reshape(()), *split]
    return [np.ascontiguousarray(y).reshape(y.shape) for y in wrong if y.shape != x.shape]


def test_ranks_are_never_guessed(tmp_path):
    rng = random.Random(8)
    for i, (name, x) in enumerate(sorted(TENSORS.items())):
        for wrong in rng.sample(wrong_shapes(x), 2):
            path = save_npz(tmp_path / f"{i}.npz", TENSORS | {name: wrong})
            assert attempt(path, TENSORS), (name, wrong.shape)


@pytest.mark.parametrize("golden", ["hf_classifier", "timm_token"])
def test_ranks_of_pytorchs_tensors_are_never_guessed(tmp_path, golden):
    tensors, rng = golden_tensors(golden), random.Random(9)
    for i, (name, x) in enumerate(sorted(tensors.items())):
        if ".1." in name:
            continue  # as .0.
        for wrong in rng.sample(wrong_shapes(x), 1):
            path = save_safetensors(tmp_path / f"{i}", tensors | {name: wrong})
            assert attempt(path, {}, num_heads=3), (name, wrong.shape)


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


def test_absurd_layer_numbers_cost_nothing_and_are_named(tmp_path):
    for i, number in enumerate(("99999999", "1000000", "00001", "-1", "9" * 5000, "٣")):
        extra = f"Transformer/encoderblock_{number}/LayerNorm_0/scale"
        message = attempt(save_npz(tmp_path / f"{i}.npz", TENSORS | {extra: np.ones(8, np.float32)}), TENSORS)
        assert extra[:400] in message  # names of 5,000 characters are cut
    stacked = {"Transformer/encoderblock/LayerNorm_0/scale": np.ones((50_000,), np.float32)}
    rest = {name: x for name, x in TENSORS.items() if "encoderblock" not in name}
    assert attempt(save_npz(tmp_path / "stacked.npz", rest | stacked), TENSORS)
    for golden, name in (
        ("hf_classifier", "vit.encoder.layer.99999999.layernorm_before.bias"),
        ("timm_token", "blocks.99999999.norm1.bias"),
    ):
        extra = golden_tensors(golden) | {name: np.ones(24, np.float32)}
        message = attempt(save_safetensors(tmp_path / golden, extra), {}, num_heads=3)
        assert "not in the model" in message
        assert "99999999" in message


def test_a_model_of_ten_thousand_layers_is_refused_at_once(tmp_path):
    tensors = {name: x for name, x in TENSORS.items() if "encoderblock" not in name}
    for name, x in TENSORS.items():
        if "encoderblock_0" in name:
            stacked = np.zeros((10_000, *([1] * x.ndim)), np.float32)
            tensors[name.replace("encoderblock_0", "encoderblock")] = stacked
    assert "model.depth is 10,000; expected at most 1,000" in attempt(save_npz(tmp_path / "deep.npz", tensors), TENSORS)


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


# Pickles


def test_pickles_are_refused_under_any_name_and_never_executed(tmp_path):
    bomb = Bomb(tmp_path / "exploded")
    for protocol in (2, 3, 4, 5):
        for name in ("pytorch_model.bin", "model.npz", "model.safetensors", "model.pt"):
            (tmp_path / name).write_bytes(pickle.dumps(bomb, protocol))
            assert "is a Python pickle" in attempt(tmp_path / name, TENSORS)
    for protocol in (0, 1):
        (tmp_path / "old.pt").write_bytes(pickle.dumps(bomb, protocol))
        assert "neither npz (PK) nor safetensors" in attempt(tmp_path / "old.pt", TENSORS)
    for member in ("archive/data.pkl", "data.pkl", "model/data.pkl"):
        zip_of(tmp_path / "model.pt", {member: pickle.dumps(bomb), "archive/data/0": b"1234"})
        assert "is a PyTorch file (a pickle in a zip)" in attempt(tmp_path / "model.pt", TENSORS)
    np.savez(tmp_path / "objects.npz", **TENSORS | {"cls": np.array([bomb], object)})
    assert "\n  cls: Object arrays cannot be loaded: they are pickles" in attempt(tmp_path / "objects.npz", TENSORS)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "pytorch_model.bin").write_bytes(pickle.dumps(bomb))
    (tmp_path / "hub" / "config.json").write_text("{}")
    assert "pytorch_model.bin is a pickle, which is not read here" in attempt(tmp_path / "hub", TENSORS)
    assert not (tmp_path / "exploded").exists()


def test_an_error_page_is_called_what_it_is(tmp_path):
    for name in ("vit.npz", "model.safetensors"):
        (tmp_path / name).write_text("<!DOCTYPE html><html><body>404. Not Found</body></html>")
        assert "it may be an error page" in attempt(tmp_path / name, TENSORS)


# safetensors


def safetensors_of(tensors, **changed):
    """A safetensors file's bytes, entries of its header replaced."""
    header, data = {}, b""
    for name, x in tensors.items():
        offsets = [len(data), len(data) + x.nbytes]
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": offsets}
        data += x.tobytes()
    return with_header(json.dumps(header | changed).encode(), data)


def with_header(header, data=b"", size=None):
    return struct.pack("<Q", len(header) if size is None else size) + header + data


TWO = {"a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)}


def entry(start, stop, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


LIES = {
    "overlapping": safetensors_of(TWO, b=entry(4, 12)),
    "the same place twice": safetensors_of(TWO, b=entry(0, 8)),
    "out of range": safetensors_of(TWO, b=entry(8, 10**15, (10**15 // 4,))),
    "negative": safetensors_of(TWO, b=entry(-8, 0)),
    "backwards": safetensors_of(TWO, b=entry(16, 8)),
    "a hole": safetensors_of({**TWO, "c": TWO["a"]}, b=entry(8, 8, (0,))),
    "another shape": safetensors_of(TWO, b=entry(8, 16, (3,))),
    "a shape beyond counting": safetensors_of(TWO, b=entry(8, 16, (2**62, 2**62))),
    "an unknown type": safetensors_of(TWO, b=entry(8, 16, dtype="Q7")),
    "a text for a shape": safetensors_of(TWO, b={"dtype": "F32", "shape": "2", "data_offsets": [8, 16]}),
    "no offsets": safetensors_of(TWO, b={"dtype": "F32", "shape": [2]}),
    "a number for an entry": safetensors_of(TWO, b=7),
    "metadata that is no text": safetensors_of(TWO, __metadata__={"a": [1]}),
    "data left over": safetensors_of(TWO) + b"more",
    "a header beyond the file": with_header(b"{}", size=1000),
    "a header of exabytes": with_header(b"{}", size=2**63),
    "a header of minus one": with_header(b"{}", size=2**64 - 1),
    "a header that is no text": with_header(b"{\xff\xfe\xfd}"),
    "a header that is no JSON": with_header(b"{'a': 1}"),
    "a list": with_header(b"{]"),
    "nested without end": with_header(b'{"a":' + b"[" * 100_000),
    "nothing": with_header(b"{}"),
    "only a length": struct.pack("<Q", 2) + b"{",
}


@pytest.mark.parametrize("what", LIES)
def test_a_lying_safetensors_header_is_refused(tmp_path, what):
    (tmp_path / "model.safetensors").write_bytes(LIES[what])
    message = attempt(tmp_path / "model.safetensors", {})
    assert message
    if what not in ("nothing", "the same place twice"):
        assert "cannot be read as safetensors" in message or "not read here" in message


def test_a_safetensors_file_cut_anywhere_is_refused(tmp_path):
    whole = safetensors_of(golden_tensors("timm_token"))
    rng = random.Random(6)
    for size in [*range(12), len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(40))]:
        (tmp_path / "cut").write_bytes(whole[:size])
        assert attempt(tmp_path / "cut", {}, num_heads=3), f"cut to {size} bytes"


def test_a_flipped_bit_in_a_safetensors_header_is_refused_or_unharmed(tmp_path):
    tensors = golden_tensors("timm_token")
    whole = safetensors_of(tensors)
    (tmp_path / "whole").write_bytes(whole)
    expected = flat(load(str(tmp_path / "whole"), num_heads=3))
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = random.Random(7)
    for place in [*range(9), *(rng.randrange(8, end) for _ in range(100))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        (tmp_path / "flipped").write_bytes(flipped)
        attempt(tmp_path / "flipped", expected, num_heads=3)


def sharded(folder, index, **shards):
    copy_golden("hf_classifier", folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    for name, tensors in shards.items():
        save_safetensors(folder / f"{name}.safetensors", tensors)
    return folder


def test_an_index_of_shards_is_not_trusted(tmp_path):
    tensors = golden_tensors("hf_classifier")
    names = sorted(tensors)
    one, two = ({name: tensors[name] for name in part} for part in (names[:20], names[20:]))
    both = {name: f"{'one' if name in one else 'two'}.safetensors" for name in names}
    whole = sharded(tmp_path / "whole", {"weight_map": both}, one=one, two=two)
    expected = flat(load(copy_golden("hf_classifier", tmp_path / "hf")))
    assert attempt(whole, expected) == ""
    save_safetensors(tmp_path / "outside.safetensors", two)
    wrong = {
        "points outside": {"weight_map": both | {names[-1]: "../outside.safetensors"}},
        "points outside its folder, at '..'": {"weight_map": both | {names[-1]: ".."}},
        "points outside its folder, at ''": {"weight_map": both | {names[-1]: ""}},
        "points outside its": {"weight_map": both | {names[-1]: str(tmp_path / "outside.safetensors")}},
        "points outside it": {"weight_map": both | {names[-1]: "a\0b"}},
        "does not exist": {"weight_map": both | {names[-1]: "three.safetensors"}},
        "it has no weight_map": {"weight_map": [1]},
        "it has no weight_map;": {"weight_map": both | {names[-1]: 3}},
        "no weight_map; download": {},
        "holds list": [],
        "cannot be read as JSON": "{",
        "cannot be read as JSON (": "[" * 100_000,
        "extra.weight is in none of the shards": {"weight_map": both | {"extra.weight": "one.safetensors"}},
    }
    for i, (message, index) in enumerate(wrong.items()):
        assert message in attempt(sharded(tmp_path / f"{i}", index, one=one, two=two), expected)
    twice = sharded(tmp_path / "twice", {"weight_map": both}, one=one, two=two | {names[0]: tensors[names[0]]})
    assert "stands in two shards" in attempt(twice, expected)
    (sharded(tmp_path / "folder", {"weight_map": both}, one=one) / "two.safetensors").mkdir()
    assert "cannot be read as safetensors" in attempt(tmp_path / "folder", expected)


# Configs

ABSURD = [None, 0, -1, 10**30, 10**400, 0.5, "x", "", [], [3], {}, True, float("nan"), float("inf"), "3"]


def test_absurd_values_of_a_hugging_face_config_are_refused_or_change_nothing(tmp_path):
    expected = flat(load(copy_golden("hf_classifier", tmp_path / "hf")))
    said = ("num_attention_heads", "image_size", "layer_norm_eps", "hidden_act", "model_type", "id2label", "vit_jax")
    count = 0
    for key in said:
        for value in ABSURD:
            count += 1
            folder = tmp_path / f"{count}"
            copy_golden("hf_classifier", folder)
            config = json.loads((folder / "config.json").read_text()) | {key: value}
            (folder / "config.json").write_text(json.dumps(config))
            message = attempt(folder, expected)
            harmless = {
                "image_size": value in (None, 0, "", [], {}),  # not said: the positions tell
                "layer_norm_eps": value in (0, 0.5),
                "id2label": value in (None, 0, "", [], {}),
                "vit_jax": value == {},
            }
            assert bool(message) != harmless.get(key, False), (key, value, message)


def test_absurd_values_of_a_timm_config_are_refused_or_change_nothing(tmp_path):
    expected = flat(load(copy_golden("timm_token", tmp_path / "timm")))
    args = {"num_heads": 3}
    cases = [{"model_args": args | {key: value}} for key in ("num_heads", "act_layer", "img_size") for value in ABSURD]
    cases += [{"model_args": args | {"global_pool": value}} for value in ABSURD if value not in (None, "")]
    cases += [{"model_args": value} for value in ABSURD]
    cases += [{"label_names": value} for value in (3, "abc", [1], {})]
    refused = 0
    for i, config in enumerate(cases):
        folder = tmp_path / f"{i}"
        copy_golden("timm_token", folder)
        whole = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(whole))
        refused += bool(attempt(folder, expected))
    assert refused >= len(cases) - 10


@pytest.mark.parametrize("text", ["{", "", "[]", "3", "null", '"vit"', "[" * 100_000, "1" * 5000, b"\xff\xfe{}"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, text):
    path = copy_golden("hf_classifier", tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = attempt(path, {})
    assert "config.json cannot be read as JSON" in message or "expected a JSON object" in message


OWN = {
    "a list": [],
    "no model": {"model": 3},
    "a model without a name": {"model": {"depth": 1}},
    "another name": {"model": {"name": "cnn", "num_classes": 5}},
    "another family": {"model": {"name": "mixer", "num_classes": 5}},
    "an unknown key": {"model": {"name": "vit", "num_classes": 5, "future_option": True}},
    "a text for a number": {"model": {"name": "vit", "num_classes": 5, "depth": "1"}},
    "a float for a number": {"model": {"name": "vit", "num_classes": 5, "depth": 1.0}},
    "a bool for a number": {"model": {"name": "vit", "num_classes": 5, "registers": True}},
    "a depth beyond reason": {"model": {"name": "vit", "num_classes": 5, "depth": 10**9}},
    "another depth": {"model": {"name": "vit", "num_classes": 5, "depth": 2}},
    "another width": {"model": {"name": "vit", "num_classes": 5, "width": 16}},
    "no patch": {"model": {"name": "vit", "num_classes": 5, "patch_size": [0, 0]}},
    "a patch of three sides": {"model": {"name": "vit", "num_classes": 5, "patch_size": [4, 6, 3]}},
    "an unknown activation": {"model": {"name": "vit", "num_classes": 5, "gelu": "relu"}},
    "no epsilon": {"model": {"name": "vit", "num_classes": 5, "norm_eps": None}},
    "a negative epsilon": {"model": {"name": "vit", "num_classes": 5, "norm_eps": -1}},
    "no number for an epsilon": {"model": {"name": "vit", "num_classes": 5, "norm_eps": float("nan")}},
    "registers that are not there": {"model": {"name": "vit", "num_classes": 5, "registers": 2}},
    "a grid of one side": {"grid": [2]},
    "a grid of text": {"grid": "2x2"},
    "an empty grid": {"grid": [0, 2]},
    "another grid": {"grid": [3, 3]},
    "names that are none": {"class_names": [1, 2]},
}


@pytest.mark.parametrize("what", OWN)
def test_a_section_of_ours_that_makes_no_sense_is_refused(tmp_path, what):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    (tmp_path / "vit.json").write_text(json.dumps({"vit_jax": OWN[what]}))
    assert attempt(path, TENSORS)
    if (
        "depth" not in what
        and "width" not in what
        and "grid" not in what
        and "patch" not in what
        and "family" not in what
    ):
        folder = copy_golden("timm_token", tmp_path / "timm", config={"vit_jax": OWN[what]})
        assert attempt(folder, {})


def test_a_section_of_ours_that_says_little_or_nothing_is_fine(tmp_path):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    whole = {"vit_jax": {"model": {"name": "vit", "num_classes": 5, "norm_eps": 0, "dropout": 0}}}
    for own in ({}, {"vit_jax": {}}, {"vit_jax": {"grid": [2, 2]}}, {"accuracy": 0.5}, whole):
        (tmp_path / "vit.json").write_text(json.dumps(own))
        assert attempt(path, TENSORS) == ""
    (tmp_path / "vit.json").write_text("{ someone else's notes")
    assert attempt(path, TENSORS) == ""
    (tmp_path / "vit.json").write_text('{"vit_jax": {')
    assert "vit.json cannot be read as JSON" in attempt(path, TENSORS)


def test_sums_are_checked_although_every_byte_was_read(tmp_path):
    # The array ends where the member ends: reading exactly its bytes must not skip the check.
    whole = npz_with(tmp_path / "whole.npz").read_bytes()
    at = whole.index(npy(TENSORS["head/kernel"]))
    wrong = bytearray(whole)
    wrong[at + len(npy(TENSORS["head/kernel"])) - 1] ^= 1
    (tmp_path / "wrong.npz").write_bytes(wrong)
    assert zlib.crc32(bytes(wrong)) != zlib.crc32(whole)
    assert "Bad CRC-32" in attempt(tmp_path / "wrong.npz", TENSORS)
