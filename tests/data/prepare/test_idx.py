"""Damaged idx files."""

import pytest
from idx_files import IMAGES, LABELS, idx_bytes, write_idx

from vit_jax.data.prepare import idx
from vit_jax.types import UserError


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t10k-images-idx3-ubyte", lambda d: d[:-1], "truncated: its header says 6 x 28 x 28 = 4704 .* found 4703"),
        ("t10k-images-idx3-ubyte", lambda d: d + b"x", "too long: .* found 4705"),
        (
            "t10k-images-idx3-ubyte",
            lambda d: b"\0\0\x0d\x03" + d[4:],
            "expected magic number 00000803 .* found 00000d03",
        ),
        (
            "t10k-labels-idx1-ubyte",
            lambda d: idx_bytes(IMAGES["t10k"]),
            "expected magic number 00000801 .* found 00000803",
        ),
        ("t10k-labels-idx1-ubyte", lambda d: idx_bytes(LABELS["t10k"][:5]), "6 images and 5 labels"),
        ("t10k-labels-idx1-ubyte", lambda d: idx_bytes(LABELS["t10k"] + 5), "label 10, expected 0 to 9"),
        ("t10k-images-idx3-ubyte", lambda d: idx_bytes(IMAGES["t10k"][:, :9]), r"\(9, 28\), expected \(28, 28\)"),
        ("train-labels-idx1-ubyte.gz", lambda d: d[:-9], "expected a whole gzip file"),
        ("train-labels-idx1-ubyte.gz", lambda d: b"<html>", "expected a whole gzip file"),
        ("t10k-labels-idx1-ubyte", lambda d: b"", "found an empty file"),
    ],
)
def test_bad_idx_files_say_what_was_expected_and_found(tmp_path, name, change, message):
    idx_folder = write_idx(tmp_path / "idx")
    path = idx_folder / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        idx.read_splits(str(idx_folder))
