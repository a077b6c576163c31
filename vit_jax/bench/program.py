"""Reads the text of a compiled program: the compiler's estimates of time by part of the model, collectives, and memory traffic.

Facts about libtpu 0.0.42's text: each operation that is scheduled has `"estimated_cycles"` in its `backend_config`, collectives
and Pallas kernels excepted; the length of a loop is the constant of its condition. XLA for GPUs estimates no time.
"""

from __future__ import annotations

import collections
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# The part of a model that an operation belongs to, by the first pattern found in its `op_name`.
PARTS = (
    ("attention", re.compile(r"MultiHeadDotProductAttention")),
    ("MLP", re.compile(r"MlpBlock|_mixing")),
    ("norms", re.compile(r"Norm_\d|_norm|norm_")),
    (
        "embedding, head and loss",
        re.compile(r"/(embedding|posembed\w*|pre_logits|head|MAPHead\w*|conv_root)/|jvp\((jit|\))"),
    ),
    ("residuals and dropout", re.compile(r"encoderblock|Dropout|DropPath")),
    ("other layers", re.compile(r"jvp\(\w")),
    ("optimizer", re.compile(r"^jit\(train_step\)/[\w.<>]+$")),
)
LOOP, OTHER = "copies of the loop over layers", "other"
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Operations that move no bytes.
FREE = {"parameter", "get-tuple-element", "bitcast", "tuple", "constant", "while", "conditional", "call", "after-all"}

HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
OPERATION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
BITS = re.compile(r"\d+")


class Operation(NamedTuple):
    """A line of a program: `%name = result kind(rest`."""

    name: str
    result: str
    kind: str
    rest: str

    def find(self, pattern: str) -> str:
        """The first group of a pattern in the line's end; "" if it is not there."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(map(_bytes, SHAPE.findall(self.result)))


class Collective(NamedTuple):
    """Collectives of one kind, dtype and place.

    Args:
      kind: `all-gather`.
      dtype: `bf16`.
      runs: how often they run in a step, loops counted.
      bytes: of their results on a device, in a step; of a reduce-scatter's operands.
      hidden: whether they are asynchronous: the device computes while they run.
    """

    kind: str
    dtype: str
    runs: int
    bytes: int
    hidden: bool


class Program:
    """A program's computations; see the module."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Operation]] = {}
        self.entry, lines = "", None
        for line in text.splitlines():
            if head := HEAD.match(line):
                lines = self.computations[head[2]] = []
                self.entry = head[2] if head[1] else self.entry
            elif line.startswith("}"):
                lines = None
            elif lines is not None and (found := OPERATION.match(line)):
                lines.append(Operation(*found.groups()))
        assert self.entry

    def scheduled(self) -> Iterator[tuple[Operation, int]]:
        """The operations that the device is given, each with the number of its runs in a step."""
        yield from self._scheduled(self.entry, 1)

    def _scheduled(self, name: str, times: int) -> Iterator[tuple[Operation, int]]:
        for operation in self.computations[name]:
            if operation.kind == "while":
                yield from self._scheduled(operation.find(r"body=%?([\w.\-]+)"), times * self._length(operation))
            elif operation.kind == "call":
                yield from self._scheduled(operation.find(r"to_apply=%?([\w.\-]+)"), times)
            else:
                yield operation, times

    def _length(self, loop: Operation) -> int:
        """The number of turns of a loop; 1 if the program does not say it."""
        if known := loop.find(r'known_trip_count"?:\{"?n"?:"?(\d+)'):
            return int(known)
        condition = self.computations[loop.find(r"condition=%?([\w.\-]+)")]
        found = (
            re.match(r"(\d+)\)", line.rest) for line in condition if line.kind == "constant" and "s32[]" in line.result
        )
        return next((int(length[1]) for length in found if length), 1)

    def cycles(self) -> dict[str, int]:
        """{part of the model: cycles that the compiler estimates for a step}, the largest first."""
        total = collections.Counter[str]()
        for operation, times in self.scheduled():
            if estimate := operation.find(r'"estimated_cycles":"?(\d+)'):
                total[part_of(operation.find(r'op_name="([^"]*)"'))] += times * int(estimate)
        return dict(total.most_common())

    def collectives(self) -> list[Collective]:
        """The collectives of a step, the largest first; scalars are left out."""
        runs, sizes = collections.Counter[tuple](), collections.Counter[tuple]()
        seen = set[str]()
        for operation, times in self.scheduled():
            for inner in self._collectives_in(operation):
                channel = inner.find(r"channel_id=(\d+)")
                scatters = "all-reduce-scatter" in operation.rest  # libtpu's name of a reduce-scatter
                kind = "reduce-scatter" if scatters else inner.kind.removesuffix("-start")
                arrays = [(dtype, _bytes((dtype, shape))) for dtype, shape in SHAPE.findall(inner.result)]
                if channel in seen or not arrays or sum(size for _, size in arrays) <= 256:
                    continue
                seen |= {channel} - {""}
                if inner.kind == "all-gather-start":  # its result names operands too
                    arrays = arrays[len(arrays) // 2 :]
                started = inner.kind.endswith("-start") and '"is_sync":true' not in inner.rest  # GPUs' waits at once
                hidden = started or (operation.kind != inner.kind and not scatters)
                key = kind, max(arrays, key=lambda array: array[1])[0], hidden
                runs[key] += times
                sizes[key] += times * sum(size for _, size in arrays)
        return [
            Collective(kind, dtype, runs[kind, dtype, hidden], size, hidden)
            for (kind, dtype, hidden), size in sizes.most_common()
        ]

    def _collectives_in(self, operation: Operation) -> Iterator[Operation]:
        if operation.kind.removesuffix("-start") in KINDS:
            yield operation
        elif operation.kind in ("fusion", "async-start", "custom-call"):
            called = operation.find(r"(?:calls|called_computation)=%?([\w.\-]+)")
            for inner in self.computations.get(called, ()):
                yield from self._collectives_in(inner)

    def traffic(self) -> dict[str, int]:
        """{part of the model: bytes of the operands and results of a step's kernels}, the largest first: the traffic if no kernel
        found anything in a cache."""
        sizes = {line.name: line.bytes for lines in self.computations.values() for line in lines}
        total = collections.Counter[str]()
        for operation, times in self.scheduled():
            if operation.kind in ("fusion", "custom-call", "copy"):
                operands = re.findall(r"%([\w.\-]+)", operation.rest.split("), ")[0])
                moved = operation.bytes + sum(sizes.get(operand, 0) for operand in operands)
                total[part_of(operation.find(r'op_name="([^"]*)"'))] += times * moved
        return dict(total.most_common())

    def kernels(self) -> int:
        """The number of kernels of a step."""
        return sum(times for operation, times in self.scheduled() if operation.kind not in FREE)


@functools.cache
def part_of(op_name: str) -> str:
    """The part of the model that an operation belongs to, from the path in its metadata."""
    if re.search(r"while/body/(jit\(dynamic|add$|closed_call$)|/while$", op_name):
        return LOOP
    return next((part for part, pattern in PARTS if pattern.search(op_name)), OTHER)


def _bytes(shape: tuple[str, str]) -> int:
    dtype, sizes = shape
    bits = int(found[0]) if (found := BITS.search(dtype)) else 8
    return math.prod(int(size) for size in sizes.split(",") if size) * max(bits // 8, 1)
