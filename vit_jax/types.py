"""The values that flow between rooms. Every room may import this file; it imports neither jax nor any room.

NamedTuples are JAX pytrees as they are, so the data room (which must not import jax: its worker processes would each
start a backend) and the training room share the same types.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

from vit_jax.targets import BoxLabel, ClassSet, Target

# A length of training: an int counts optimizer steps; text gives a unit, "90 epochs", "500 steps" or "5%" of the run.
# `config.build` turns it into steps before a function sees it.
Duration = Annotated[int | str, "duration"]

# The label of one example, in the form of its data set's kind of target; see `targets`.
Label = int | tuple[int, ...] | tuple[float, ...] | BoxLabel

# The weights that an evaluation scored: the raw weights, and their Polyak average.
KINDS = ("eval", "eval_average")

# A message must stay readable: 300,000 names of a hostile file, or one of a million characters, would bury it.
MAX_MESSAGE = 20_000  # characters
MAX_ITEMS = 10  # lines of a list
MAX_ITEM = 500  # characters of such a line
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
# Control characters, line and text direction marks, and bytes that are not UTF-8, which Python keeps as lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Batch(NamedTuple):
    """One batch of examples; global on the device, this process's share on the host.

    Args:
      image: uint8 (b, h, w, 3). Stays uint8 on the wire; `models.build.make_forward` maps it to [-1, 1] on the device.
      target: array or NamedTuple of arrays, with leading axis b, as `DatasetSpec.target` allocates it: int32 (b,) for single
        classes; uint8 (b, num_classes) for sets of classes, all 0 for an example that is not scored; float32 (b, num_classes) for
        numbers.
      mask: float32 (b,), 1 for an example that counts, 0 for padding (or an image that could not be decoded).
    """

    image: Any
    target: Any
    mask: Any


class Outputs(NamedTuple):
    """The outputs of a model for a batch of images.

    Args:
      tokens: (b, n, d), the encoder's output after its final LayerNorm, class token first where there is one.
      pooled: (b, d), the class token, the mean over tokens, or the attention-pooled vector; (b, n, d) if unpooled.
      pre_logits: (b, r), the pooled vector after the optional tanh representation layer; few-shot probes read it.
      logits: float32 (b, c), or None for a model without a head.
      layers: (b, n, d) after each block, if `capture` requested them; else None.
      attention: (b, heads, n, n) weights of each block, query before key, if `capture` requested them; else None. In both, n
        includes registers; for an axial block, attention is the row attention, (b gh, heads, gw, gw).
      extra: {name: array or tree of arrays} specific to a task, such as the mask and patch logits of masked patch prediction;
        an objective names those it reads. Of a MAP head, captured attention is `probe`, (b, heads, n without registers). Pass a
        new dict; never write into the shared default.
    """

    tokens: Any
    pooled: Any
    pre_logits: Any
    logits: Any
    layers: tuple[Any, ...] | None = None
    attention: tuple[Any, ...] | None = None
    extra: Mapping[str, Any] = {}  # an empty dict is a pytree without leaves; a read-only proxy would be a leaf


class TrainState(NamedTuple):
    """Everything that training changes. A checkpoint is this plus the resolved config (DESIGN, idea 2).

    Args:
      step: int32 (), optimizer steps taken so far.
      params: the parameter tree, named as in the released npz files.
      opt_state: the optimizer's state, sharded like the parameters.
      average: the Polyak average of the parameters (arXiv 2010.11929, section 4.1), or None when it is off.
      rng: the run's PRNG key; a step uses `fold_in(rng, step)` and never changes it.
    """

    step: Any
    params: Any
    opt_state: Any
    average: Any
    rng: Any


class DatasetSpec(NamedTuple):
    """The facts about one split of a data set that a run needs before it reads it.

    Args:
      name: the data set as the user named it.
      split: the split, in TFDS's syntax (`train[:98%]`).
      num_examples: examples in the split.
      target: the kind of target (ClassId, ClassSet, Values or Boxes), with its number of classes.
      class_names: one name per class, in label order.
      image_shape: (h, w, c) as stored; None where it varies.
      competing: the classes that a prediction is chosen from, sorted; empty for all of them.
      class_counts: examples of each class, in label order; empty if counting them would mean reading them all.
      short_side: pixels that the shorter side of larger images was reduced to when they were packed; 0 for images as distributed.
      num_excluded: examples that an exclusion list removed, which num_examples does not count.
      notes: what the user should know about how the split was read: files that are not images, held-out examples.
    """

    name: str
    split: str
    num_examples: int
    target: Target
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int | None]
    competing: tuple[int, ...] = ()
    class_counts: tuple[int, ...] = ()
    num_excluded: int = 0
    short_side: int = 0
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.target.num_classes

    def to_json(self) -> dict[str, Any]:
        """The entry of run.json. `num_classes` and `multi_label` are older than `target`; readers still use them."""
        target = self.target
        return {
            **self._asdict(),
            "num_classes": target.num_classes,
            "multi_label": isinstance(target, ClassSet),
            "target": {"kind": type(target).__name__, **dataclasses.asdict(target)},  # type: ignore[call-overload]
        }


class Metric(NamedTuple):
    """The name of an evaluation result, written `KIND/EVALUATOR/NAME` in every record: `eval/test/top1`.

    Args:
      kind: `eval` for the raw weights, `eval_average` for their Polyak average.
      evaluator: the key of its section under `evals`.
      name: the name of the figure, as the evaluator returns it.
    """

    kind: str
    evaluator: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Metric | None:
        """Parses a record's key as a metric; returns None for any other key, such as `train/loss`."""
        kind, _, rest = text.partition("/")
        evaluator, _, name = rest.rpartition("/")
        return cls(kind, evaluator, name) if kind in KINDS and evaluator and name else None

    def __str__(self) -> str:
        return "/".join(self)


class UserError(ValueError):
    """A problem that only the user can solve. The message says what was expected, what was found, and what to do next.

    `main` prints it without a traceback; as a ValueError it reads naturally in notebooks and tests. Messages may quote names from
    untrusted files, so control characters are escaped, and a text longer than MAX_MESSAGE is cut.
    """

    def __init__(self, message: str = ""):
        text = printable(message[:MAX_MESSAGE], keep="\n")
        super().__init__(text if len(message) <= MAX_MESSAGE else f"{text} ... ({len(message):,} characters)")


def printable(text: str, *, keep: str = "") -> str:
    """Makes text safe for terminals, JSON files and messages: `caf\\xe9.jpg`, `a\\nb.jpg`. Escapes control characters, line and
    direction marks, and bytes that are not UTF-8 (which Python keeps in names as lone surrogates); not characters in `keep`."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def itemize(lines: Iterable[str], most: int = MAX_ITEMS) -> str:
    """Formats a list for a message: each line indented, printable and at most MAX_ITEM long; after `most` lines, a count of the
    rest."""
    lines = list(lines)
    short = (line if len(line) <= MAX_ITEM else f"{line[:MAX_ITEM]} ..." for line in lines[:most])
    shown = [f"  {printable(line)}" for line in short]
    return "\n".join(shown + ([f"  and {len(lines) - most:,} more"] if len(lines) > most else []))


def counted(number: int, noun: str) -> str:
    """`1 image`, `2,000 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def shown(value: object) -> str:
    """The repr of a value for a message, shortened if the value is large."""
    return _SHORT.repr(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """Says which of `known` the user may have meant: `did you mean 'x'? (known: ...)`."""
    close = difflib.get_close_matches(word, known := sorted(known), n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + f"(known: {', '.join(known)})"
