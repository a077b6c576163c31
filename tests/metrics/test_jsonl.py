"""The lines of metrics.jsonl, read: by its readers and by the writer that resumes."""

import os

import pytest

from vit_jax.metrics.jsonl import read_jsonl
from vit_jax.metrics.writers import JsonlWriter
from vit_jax.types import UserError


def test_jsonl_damaged_before_its_end_is_an_error_that_names_the_line(tmp_path):
    for damage in (b"\0\0", b"[1]", b'{"train/loss": 1}', b""):
        (tmp_path / "m.jsonl").write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
        with pytest.raises(UserError, match=r"line 2 of .*m\.jsonl"):
            JsonlWriter(tmp_path / "m.jsonl", 5)


@pytest.mark.parametrize(
    "line",
    [
        b"3",
        b"[]",
        b"null",
        b'{"loss": 1}',
        b'{"step": "5"}',
        b'{"step": 1.5}',
        b'{"step": true}',
        b'{"step": 1e999}',
        b'{"step": 1, "a": []}',
        b'{"step": 1, "a": "x"}',
        b'{"step": 1, "a": null}',
        b'{"step": 1, "a": 1' + b"0" * 400 + b"}",
        b"\xff",
        b'{"step": 1, "\xff": 2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=range(16),
)
def test_jsonl_line_that_is_no_record_of_numbers_is_one_message(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1, "loss": "nan"}\n' + line + b'\n{"step": 2}\n')
    for read in (read_jsonl, lambda path: JsonlWriter(path, 5)):
        with pytest.raises(UserError, match=r"expected a record with a step in line 2 of .*metrics\.jsonl, found b"):
            read(file)
    file.write_bytes(b'{"step": 1, "loss": "nan"}\n' + line)  # a last line may be torn
    assert [record["step"] for record in read_jsonl(file)] == [1]


def test_jsonl_that_is_no_regular_file_is_one_message(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")  # would block for ever
    for read in (read_jsonl, lambda path: JsonlWriter(path, 5)):
        with pytest.raises(
            UserError, match=r"metrics\.jsonl is a named pipe; expected a regular file; .* move it away"
        ):
            read(tmp_path / "metrics.jsonl")
