"""The lines of metrics.jsonl, a run's authoritative record: one JSON object per step."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from vit_jax.files import UnreadableFile, read_regular
from vit_jax.types import UserError

NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # JSON has no such numbers: written as strings
NON_FINITE_NAMES = tuple(NON_FINITE)


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the records of a metrics.jsonl in written order, without a last line torn by a kill.

    Raises:
      UserError: a line before the last one is not a record; or there is no readable file.
    """
    records = [record for _, _, record in parse_jsonl(read_bytes(path), Path(path))]
    return [{k: NON_FINITE.get(v, v) if isinstance(v, str) else v for k, v in r.items()} for r in records]


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_regular(path)
    except UnreadableFile as error:
        raise UserError(f"{error}; it should hold the metrics of a run: move it away") from error


def parse_jsonl(data: bytes, path: Path) -> list[tuple[int, bytes, dict[str, Any]]]:
    """Splits a file into (step, line, record); the last line may be torn or lack its newline."""
    records = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is not None:
            records.append((record["step"], line, record))
        elif number < len(lines):  # the last piece may be empty, or torn by a kill
            what = f"expected a record with a step in line {number} of {path}, found {line[:60]!r}"
            raise UserError(f"{what}; remove the line, or move the file away")
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    """The record (a step, and numbers) that a line holds; None if it holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    numbers = all(
        type(v) is float or (type(v) is int and abs(v) < 2**63) or v in NON_FINITE_NAMES for v in record.values()
    )
    return record if numbers else None
