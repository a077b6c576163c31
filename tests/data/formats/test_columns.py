"""Lists of images with sets of labels, or with numbers."""

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.open import open_source
from vit_jax.targets import ClassSet, Values
from vit_jax.types import UserError


@pytest.fixture
def write(tmp_path):
    """Writes a list beside twelve images, 0.png and so on."""
    for i in range(12):
        PIL.Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"{i}.png")

    def write(*lines):
        (tmp_path / "list.csv").write_text("\n".join(lines))
        return str(tmp_path / "list.csv")

    return write


def labels_of(source):
    return {name: label for _, label, name in (source.read(i) for i in range(len(source)))}


def test_labels_with_semicolons_between_are_a_set_which_may_be_empty(write):
    place = write(
        "path,labels,split", "0.png,dog;cat,train", "1.png, cat ; cat,train", "2.png,,train", "3.png,eel,test"
    )
    train, test = open_source(place, "train", multi_label=True), open_source(place, "test", multi_label=True)
    assert train.spec.target == test.spec.target == ClassSet(3)
    assert train.spec.class_names == ("cat", "dog", "eel")
    assert labels_of(train) == {"0.png": (0, 1), "1.png": (0,), "2.png": ()}
    assert labels_of(test) == {"3.png": (2,)}
    image = train.read(0)
    assert train.decode(image[0])[0, 0, 0] == int(image[2][0])


def test_columns_of_numbers_are_a_tuple_and_name_the_outputs(write):
    place = write("path,value:age,value:size", "0.png,1.5,-2", "1.png,3,1e-3")
    source = open_source(place, "train", values=True)
    assert (source.spec.target, source.spec.class_names) == (Values(2), ("age", "size"))
    assert labels_of(source) == {"0.png": (1.5, -2.0), "1.png": (3.0, 0.001)}


def test_parts_and_held_out_images_keep_their_labels(write):
    lines = [f"{i}.png,{i}" for i in range(12)]
    place = write("path,value:x", *lines)
    half, rest = (open_source(place, split, values=True) for split in ("train[:50%]", "train[50%:]"))
    found = labels_of(half) | labels_of(rest)
    assert found == {f"{i}.png": (float(i),) for i in range(12)}
    assert (len(half), len(rest)) == (6, 6)
    kept, held = (open_source(place, split, values=True) for split in ("train_kept", "train_held_out"))
    assert (len(kept), len(held), held.spec.class_counts) == (10, 2, ())
    assert labels_of(kept) | labels_of(held) == found
    assert half.fingerprint() != rest.fingerprint()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,value:x", "0.png,old"], r"expected 1 finite numbers a line; found\n  'old'"),
        (["path,value:x", "0.png,nan"], r"expected 1 finite numbers a line"),
        (["path,value:x,value:y", "0.png,1"], r"expected 2 finite numbers a line; found\n  '1'"),
        (
            ["path,labels", "0.png,", "1.png,"],
            "no image has a label; expected labels with ; between, as in cat;dog",
        ),
    ],
)
def test_what_is_no_label_is_refused(write, lines, message):
    with pytest.raises(UserError, match=message):
        open_source(write(*lines), "train", multi_label=True, values=True)


def test_they_are_opened_only_for_a_caller_that_understands_them(write):
    with pytest.raises(UserError, match=r"sets of labels: expected one label .* config.objective.name=sigmoid"):
        open_source(write("path,labels", "0.png,a"), "train")
    with pytest.raises(UserError, match=r"numbers: expected one label .* config.objective.name=regression"):
        open_source(write("path,value:x", "0.png,1"), "train", multi_label=True)
