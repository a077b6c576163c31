"""Fuzz of lists of images and of exclusion lists: a damaged one is a data set or one error."""

import mutations
import numpy as np
import PIL.Image
import pytest

from vit_jax.data.dedup.exclusion import exclude, write_exclusion
from vit_jax.data.formats.held_out import HELD_OUT
from vit_jax.data.open import open_source
from vit_jax.types import UserError

CONTROL = {chr(code) for code in (*range(32), *range(127, 160))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty images in two classes."""
    root = tmp_path_factory.mktemp("images")
    for i in range(40):
        place = root / "train" / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(place / f"{i:02}.png")
    return root


def test_a_damaged_list_is_a_data_set_or_one_error(folder):
    names = [f"train/class{i % 2}/{i:02}.png" for i in range(40)]
    goods = {
        "csv": [
            "path,label,split",
            *(f'"{name}",class {i % 2},{"train" if i < 30 else "test"}' for i, name in enumerate(names)),
        ],
        "tsv": [f"{name}\t{i % 11}" for i, name in enumerate(names)],
        "txt": [f"{folder}/{name} {i % 2}" for i, name in enumerate(names)],
    }
    for number, rng in mutations.cases():
        suffix = sorted(goods)[number % 3]
        place = folder / f"list{number}.{suffix}"
        place.write_bytes(mutations.mutate("\n".join(goods[suffix]).encode(), rng))
        for split in ("train", HELD_OUT):
            with mutations.judged(number, UserError):
                source = open_source(str(place), split)
                assert all(0 <= source.read(i)[1] < source.spec.num_classes for i in range(len(source)))
                assert not set("".join(source.spec.class_names)) & CONTROL
        place.unlink()


def test_a_damaged_list_of_sets_or_of_numbers_is_a_data_set_or_one_error(folder):
    names = [f"train/class{i % 2}/{i:02}.png" for i in range(40)]
    goods = [
        ["path,labels,split", *(f"{name},{'ab;cd' if i % 3 else ''};e{i % 4},train" for i, name in enumerate(names))],
        ["path,value:age,value:size", *(f"{name},{i},-1.5e{i % 3}" for i, name in enumerate(names))],
    ]
    for number, rng in mutations.cases():
        place = folder / f"columns{number}.csv"
        place.write_bytes(mutations.mutate("\n".join(goods[number % 2]).encode(), rng))
        for split in ("train", HELD_OUT):
            with mutations.judged(number, UserError):
                source = open_source(str(place), split, multi_label=True, values=True)
                target = source.spec.target
                assert all(target.put(target.empty(1), 0, source.read(i)[1]) == "" for i in range(len(source)))
                assert not set("".join(source.spec.class_names)) & CONTROL
        place.unlink()


def test_a_damaged_exclusion_list_leaves_some_out_or_is_one_error(folder, tmp_path):
    source = open_source(str(folder), "train")
    write_exclusion(tmp_path / "good.txt", source, [1, 5, 9, 20], ["digits@test"], "")
    good = (tmp_path / "good.txt").read_bytes()
    for number, rng in mutations.cases():
        (tmp_path / "bad.txt").write_bytes(mutations.mutate(good, rng))
        with mutations.judged(number, UserError):
            assert 36 <= len(exclude(source, str(tmp_path / "bad.txt"))) <= 40
