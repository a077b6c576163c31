"""Compares the outputs of a head with the classes of a data set by name, not only by number.

Runs of vit_jax keep the names of their classes, Hugging Face's configs have `id2label`, timm's have `label_names`; released files
have no names. If a data set has the same classes in another order, every prediction gets a wrong name, and an accuracy near
zero is the only sign of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vit_jax.types import UserError, shown

WORDNET = re.compile(r"n\d{8}")
# Several spellings of ImageNet's readable class names exist; any two lists of them agree almost everywhere.
MANY, FEW = 500, 0.1


class Match(NamedTuple):
    """The mapping from a head's outputs to the data's classes.

    Args:
      order: output `order[j]` of the head scores class j of the data; None if the orders are equal.
      note: a sentence for the user; empty where the classes agree.
    """

    order: np.ndarray | None
    note: str


def match_classes(head: Sequence[str] | None, data: Sequence[str], *, path: str, dataset: str, advice: str) -> Match:
    """Compares the classes of a checkpoint's head with those of a data set that has as many.

    Names that differ only in case, spaces and punctuation are equal. Numbers, `LABEL_3` and WordNet ids cannot be compared with
    readable names: then the order is trusted, with a note. A head of 1,000 outputs without names needs no note on data with
    ImageNet's 1,000 WordNet ids, because every released head is in their order.

    Args:
      head: names of the head's outputs, in order, if the checkpoint has any.
      data: names of the data's classes, in order.
      path: the checkpoint's path, for messages.
      dataset: the data's name, for messages.
      advice: what to do if the classes differ.

    Raises:
      UserError: the classes differ; the message names up to five of each side.
    """
    theirs = list(head or ()) if len(head or ()) == len(data) else []
    for spelling in (list, _plain):
        names, wanted = spelling(theirs), spelling(data)
        if names == wanted:
            return Match(None, "")
        if sorted(names) == sorted(wanted) and len(set(names)) == len(names):
            place = {name: i for i, name in enumerate(names)}
            note = f"{path} has the classes of {dataset} in another order; its head's outputs are put in the data's"
            return Match(np.array([place[name] for name in wanted]), note)
    if _are_numbers(names) and (_are_numbers(wanted) or (len(wanted) == 1000 and _are_wordnet(wanted))):
        return Match(None, "")
    if _are_numbers(names) or _are_numbers(wanted) or _are_wordnet(names) != _are_wordnet(wanted):
        has = f"names its classes {_some(theirs)}" if theirs else "has no names of its classes"
        return Match(None, f"{path} {has}, and {dataset} {_some(data)}; they are taken to be in the same order")
    differing = sum(a != b for a, b in zip(names, wanted, strict=False))
    if len(wanted) >= MANY and differing <= FEW * len(wanted):
        return Match(None, f"{differing} of {len(wanted)} classes have another name in {path} than in {dataset}")
    only_head = [name for name, plain in zip(theirs, names, strict=True) if plain not in set(wanted)]
    only_data = [name for name, plain in zip(data, wanted, strict=True) if plain not in set(names)]
    if not only_head and not only_data:
        raise UserError(f"{path} and {dataset} have several classes of one name, so their order is unknown; {advice}")
    raise UserError(
        f"{path} and {dataset} have other classes: only the checkpoint has {_some(only_head) or 'none'}; only the data has "
        f"{_some(only_data) or 'none'}; {advice}"
    )


def reorder_head(tensors: Mapping[str, np.ndarray], order: np.ndarray) -> dict[str, np.ndarray]:
    """Reorders the outputs of a head's tensors, `head/kernel` and `head/bias`."""
    return {name: np.asarray(tensors[name])[..., order] for name in ("head/kernel", "head/bias")}


def _plain(names: Sequence[str]) -> list[str]:
    """Names in lower case and without punctuation: `Golden_Retriever` becomes `golden retriever`."""
    return [" ".join(re.findall(r"\w+", name.casefold().replace("_", " "))) or name for name in names]


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether names are missing or only number the outputs."""
    return all(name.removeprefix("label ").removeprefix("class ") == str(i) for i, name in enumerate(names))


def _are_wordnet(names: Sequence[str]) -> bool:
    return all(map(WORDNET.fullmatch, names))


def _some(names: Sequence[str]) -> str:
    """Up to five names, for a message."""
    return ", ".join(map(shown, names[:5])) + (", ..." if len(names) > 5 else "")
