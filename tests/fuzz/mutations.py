"""Damage by seed: what the fuzz of each reader does to a good file, and how it judges what the reader makes of it.

Every case is named by its number alone: `FUZZ_FIRST=812 FUZZ_CASES=1` repeats case 812.
"""

import contextlib
import copy
import os
import signal

import numpy as np

FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
CASES = int(os.environ.get("FUZZ_CASES", "40"))  # of each reader; CONTRIBUTING has the command for many more
SECONDS = 30  # more than any small file needs, on a busy machine

HOSTILE_NUMBERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
HOSTILE_VALUES = (
    *(None, True, -1, 0, 2**31, 2**63, 10**400, 1e308, float("nan"), "", "\0", "\x1b[2J", "../../etc/passwd"),
    *("é" * 1000, [], {}, [[]], {"a": {}}, [1] * 1000, "file:///etc/passwd", "a" * 100_000, "-", "nan"),
)


def cases():
    """(number, generator) of each case."""
    for number in range(FIRST, FIRST + CASES):
        yield number, np.random.default_rng(number)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Good bytes with one to four kinds of damage: flipped bits, cuts, lost, doubled or foreign spans, numbers that lie."""
    bad = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(bad) + 1))
        span = int(min(rng.geometric(0.02), len(bad) - at))
        kind = int(rng.integers(7))
        if kind == 0 and bad:
            for place in rng.integers(len(bad), size=int(rng.integers(1, 9))):
                bad[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del bad[at:]
        elif kind == 2:
            del bad[at : at + span]
        elif kind == 3:
            bad[at:at] = bad[at : at + span] * int(rng.integers(1, 20))
        elif kind == 4:
            bad[at:at] = rng.bytes(span)
        elif kind == 5:
            bad[at : at + span] = bytes([int(rng.choice([0, 0x20, 0x7F, 0xFF]))]) * span
        else:
            size = int(rng.choice([1, 2, 4, 8]))
            number = HOSTILE_NUMBERS[int(rng.integers(len(HOSTILE_NUMBERS)))] % 2 ** (8 * size)
            bad[at : at + size] = number.to_bytes(size, str(rng.choice(["little", "big"])))
    return bytes(bad)


def mutate_json(value, rng: np.random.Generator):
    """A good JSON value of which one to three parts are lost, renamed or replaced by something hostile."""
    bad = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(bad))
        if not places:
            return HOSTILE_VALUES[int(rng.integers(len(HOSTILE_VALUES)))]
        holder, key = places[int(rng.integers(len(places)))]
        kind = int(rng.integers(4))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(HOSTILE_VALUES[int(rng.integers(len(HOSTILE_VALUES)))])
    return bad


def _places(value):
    """(dict or list, key) of every part of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@contextlib.contextmanager
def judged(number: int, *refusals: type[Exception]):
    """Inside, a reader reads the damaged file of case `number`: it may succeed or refuse it by one of `refusals`; any other
    exception, and more than SECONDS, fail the test by the number of the case."""

    def too_long(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    except refusals:
        pass
    except Exception as error:
        raise AssertionError(
            f"FUZZ_FIRST={number} FUZZ_CASES=1 repeats this: {type(error).__name__}: {error}"
        ) from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
