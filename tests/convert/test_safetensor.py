"""safetensors files: what a header or an index of shards says is checked, and a damaged file is refused in one message."""

import json
import random
import struct

import numpy as np
import pytest
import safetensors
from checkpoints import (
    copy_golden,
    flat,
    golden_tensors,
    same_bits,
    save_safetensors,
)
from damaged import attempt, safetensors_of, sharded, with_header
from etils import epath

from vit_jax.convert.load import load
from vit_jax.convert.safetensor import DTYPES, read_safetensors, write_safetensors
from vit_jax.types import UserError

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


@pytest.mark.slow
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


def test_every_type_is_read_to_the_bit_by_value_and_shape(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 100, (2, 3))
    tensors = {str(dtype): numbers.astype(dtype) for dtype in DTYPES.values()} | {"scalar": np.float32(2.5).reshape(())}
    write_safetensors(epath.Path(tmp_path / "a.safetensors"), tensors)
    same_bits(read_safetensors(str(tmp_path / "a.safetensors")), tensors)


def test_a_tensor_that_is_a_view_is_written_as_what_it_shows(tmp_path):
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    views = {"turned": whole.T, "every other": whole[:, ::2], "columns first": np.asfortranarray(whole)}
    write_safetensors(epath.Path(tmp_path / "a"), views)
    found = read_safetensors(str(tmp_path / "a"))
    assert {name: x.tolist() for name, x in found.items()} == {name: x.tolist() for name, x in views.items()}
    with safetensors.safe_open(tmp_path / "a", framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}  # without it transformers refuses the file


def test_types_that_are_not_read_are_all_listed_with_those_that_are(tmp_path):
    header = {"a": entry(0, 1, (1,), "F8_E4M3"), "b": entry(1, 3, (2,), "I8"), "c": entry(3, 5, (1,), "F16")}
    (tmp_path / "model.safetensors").write_bytes(with_header(json.dumps(header).encode(), bytes(5)))
    with pytest.raises(
        UserError, match=r"\(known types: F64, F32, F16, BF16, I64, I32, U8, BOOL\):\n  a: .*\n  b: I8$"
    ):
        read_safetensors(str(tmp_path))


def test_a_folder_without_the_file_names_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"/model.safetensors does not exist; expected a safetensors file or a folder"):
        read_safetensors(str(tmp_path))
