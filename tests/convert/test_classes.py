"""Classes by name: a head's outputs become scores of the data's classes, or it is said why they cannot."""

import numpy as np
import pytest

from vit_jax.convert.classes import match_classes, reorder_head
from vit_jax.types import UserError

IDS = [f"n{i:08}" for i in range(1000)]


def match(head, data):
    return match_classes(head, data, path="CKPT", dataset="DATA", advice="do this")


@pytest.mark.parametrize(
    ("head", "data"),
    [
        (["cat", "dog"], ("cat", "dog")),
        (["Golden_Retriever", "t-shirt"], ["golden retriever", "T shirt"]),
        (["crane", "crane"], ["crane", "crane"]),  # ImageNet has two, and two kinds of maillot
        (["0", "1", "2"], ["0", "1", "2"]),
        (["LABEL_0", "LABEL_1"], ["0", "1"]),
        (None, ["0", "1", "2"]),
        (None, IDS),
        (IDS, IDS),
    ],
)
def test_the_same_classes_in_the_same_order_need_no_word(head, data):
    assert match(head, data) == (None, "")


@pytest.mark.parametrize(
    ("head", "data", "order"),
    [
        (["dog", "eel", "cat"], ["cat", "dog", "eel"], [2, 0, 1]),
        (["Dog", "EEL", "the_cat"], ["the cat", "dog", "eel"], [2, 0, 1]),
        (["c++", "c"], ["c", "c++"], [1, 0]),  # one word but for the punctuation
        ([str(i) for i in range(11)], sorted(str(i) for i in range(11)), [0, 1, 10, *range(2, 10)]),
    ],
)
def test_the_same_classes_in_another_order_are_put_in_the_datas(head, data, order):
    found, note = match(head, data)
    assert found.tolist() == order
    assert note == "CKPT has the classes of DATA in another order; its head's outputs are put in the data's"
    assert [head[i].casefold().replace("_", " ") for i in found] == [name.casefold() for name in data]


@pytest.mark.parametrize(
    ("head", "data", "why"),
    [
        (
            None,
            ["cat", "dog"],
            "CKPT has no names of its classes, and DATA 'cat', 'dog'; they are taken to be in the same",
        ),
        (["LABEL_0", "LABEL_1"], ["cat", "dog"], "CKPT names its classes 'LABEL_0', 'LABEL_1', and DATA 'cat', 'dog'"),
        (["cat", "dog"], ["0", "1"], "CKPT names its classes 'cat', 'dog', and DATA '0', '1'; they"),
        (
            ["tench", "goldfish"],
            ["n01440764", "n01443537"],
            "CKPT names its classes 'tench', 'goldfish', and DATA 'n01440764'",
        ),
        (["cat"], ["cat", "dog"], "CKPT has no names of its classes, and"),  # one name for two outputs says nothing
        (None, IDS[:999], "CKPT has no names of its classes, and DATA 'n00000000', "),
    ],
)
def test_names_that_cannot_be_compared_are_told_in_one_line(head, data, why):
    order, note = match(head, data)
    assert order is None
    assert note.startswith(why)
    assert "\n" not in note


def test_long_lists_that_differ_in_spelling_here_and_there_are_taken_with_a_word():
    head = [f"bird {i}" for i in range(1000)]
    data = [f"bird {i}" if i % 20 else f"crane {i}" for i in range(1000)]
    assert match(head, data) == (None, "50 of 1000 classes have another name in CKPT than in DATA")
    with pytest.raises(UserError, match="have other classes"):
        match(head, [f"bird {i}" if i % 9 else f"crane {i}" for i in range(1000)])
    with pytest.raises(UserError, match="have other classes"):
        match(head[:20], data[:20])


def test_other_classes_are_refused_with_up_to_five_of_each_side():
    head, data = [f"a{i}" for i in range(7)] + ["both"], ["both"] + [f"B{i}" for i in range(7)]
    with pytest.raises(UserError) as told:
        match(head, data)
    assert str(told.value) == (
        "CKPT and DATA have other classes: only the checkpoint has 'a0', 'a1', 'a2', 'a3', 'a4', ...; only the data has "
        "'B0', 'B1', 'B2', 'B3', 'B4', ...; do this"
    )
    with pytest.raises(UserError, match="several classes of one name, so their order is unknown; do this"):
        match(["crane", "crane", "emu"], ["crane", "emu", "crane"])


def test_a_head_in_another_order_gives_the_same_scores_in_that_order():
    rng = np.random.default_rng(0)
    head = {"head/kernel": rng.normal(size=(4, 3)), "head/bias": rng.normal(size=3), "cls": np.ones(2)}
    x, order = rng.normal(size=(5, 4)), np.array([2, 0, 1])
    moved = reorder_head(head, order)
    expected = (x @ head["head/kernel"] + head["head/bias"])[:, order]
    np.testing.assert_allclose(x @ moved["head/kernel"] + moved["head/bias"], expected)
    assert set(moved) == {"head/kernel", "head/bias"}
