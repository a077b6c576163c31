"""Images to explain a model on: folders, files, data sets by name, evenly spaced."""

import numpy as np
import PIL.Image
import pytest

from vit_jax.insight.images import name_of, open_images, recipe_of
from vit_jax.types import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("b.png", "a.png", "below/c.jpg", "below/d.jpg", "e.png"):
        PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def names(source):
    return [name_of(source, i) for i in range(len(source))]


def test_all_images_in_and_below_a_folder_are_meant_and_files_by_name(folder):
    expected = [str(folder / name) for name in ("a.png", "b.png", "below/c.jpg", "below/d.jpg", "e.png")]
    assert names(open_images([str(folder)], "", 0)) == expected
    assert names(open_images([f"{folder}/e.png", f"{folder}/below", "no.png"], "", 0)) == [
        expected[4],
        expected[2],
        expected[3],
        "no.png",
    ]
    assert open_images([f"{folder}/e.png"], "", 0).read(0)[0] == (folder / "e.png").read_bytes()


def test_fewer_images_are_spread_evenly(folder):
    assert [name[-5:] for name in names(open_images([str(folder)], "", 3))] == ["a.png", "c.jpg", "e.png"]
    assert len(open_images([str(folder)], "", 9)) == 5


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(UserError, match=r"has no image in it or below: expected \*\.jpg.*give a folder of images"):
        open_images([str(tmp_path)], "", 0)


def test_the_recipe_is_that_of_the_runs_evaluation_unless_it_draws():
    assert recipe_of({"preprocessing": {"recipe": "eval_crop"}}) == "eval_crop"
    assert recipe_of({"preprocessing": {"recipe": "pretrain"}}) == recipe_of({}) == "eval"
