"""How well altered copies are found: which photographs are measured, what was done to them, and the counts of the report."""

import sys

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_sample_images

from vit_jax.bench import duplicates
from vit_jax.bench.duplicates import ALTERED, main, measure, read_images
from vit_jax.data.image.decode import decode
from vit_jax.types import UserError


@pytest.fixture
def photographs(tmp_path):
    """Two photographs, one of them in a folder of its own, beside a file that is none."""
    for image, name in zip(load_sample_images().images, ("a.jpg", "more/b.PNG"), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(image).resize((240, 181)).save(tmp_path / name, "JPEG" if name == "a.jpg" else "PNG")
    (tmp_path / "notes.txt").write_text("no photograph")
    return tmp_path


def test_each_photograph_is_measured_whole_and_as_nine_tiles(photographs):
    images, owners = read_images(str(photographs))
    assert owners.tolist() == [0] * 10 + [1] * 10
    whole = decode((photographs / "more" / "b.PNG").read_bytes())
    assert np.array_equal(images[10], whole)
    assert {image.shape for image in images[11:]} == {(60, 80, 3)}
    assert np.array_equal(images[11], whole[:60, :80])
    assert np.array_equal(images[15], whole[60:120, 80:160])  # the middle one
    assert np.array_equal(images[19], whole[120:180, 160:])  # a row that is left over belongs to none


def test_too_few_photographs_and_a_damaged_one_are_named(photographs):
    (photographs / "a.jpg").rename(photographs / "a.jpg.old")
    with pytest.raises(UserError, match=r"^--images=.*: expected photographs \(\*.jpg, \*.png\), found 1$"):
        read_images(str(photographs))
    (photographs / "c.jpeg").write_bytes((photographs / "a.jpg.old").read_bytes()[:500])
    with pytest.raises(UserError, match=r"c.jpeg does not decode: .*; take it out of --images="):
        read_images(str(photographs))


def test_the_alterations_are_those_that_their_names_say():
    image = np.full((100, 200, 3), 100, np.uint8)
    image[:, :50] = (200, 0, 30)
    done = {name: alter(image) for name, alter in ALTERED.items()}
    assert np.array_equal(done["mirrored"][:, :150], image[:, 50:])
    assert done["1.4 times as bright"][0, [0, -1]].tolist() == [[255, 0, 42], [140, 140, 140]]  # 280 is cut
    assert done["0.6 times as bright"][0, [0, -1]].tolist() == [[120, 0, 18], [60, 60, 60]]
    assert done["gray"][0, 0].tolist() == [63, 63, 63]  # 0.299 x 200 + 0.587 x 0 + 0.114 x 30
    assert done["resized to 32 x 32"].shape == (32, 32, 3)
    # Both sides by the square root of the share: 0.7071 and 0.9747.
    assert done["50% of the area"].shape == (71, 141, 3)
    assert done["95% of the area"].shape == (97, 195, 3)
    assert 0 < np.abs(done["JPEG of quality 30"].astype(int) - image).max() < 60


def test_copies_are_counted_by_kind_and_pairs_of_different_photographs_once(photographs, monkeypatch):
    images, owners = read_images(str(photographs))
    monkeypatch.setattr(
        duplicates, "ALTERED", {"mirrored": ALTERED["mirrored"], "nothing left": lambda image: image[:2, :2] * 0}
    )
    found, wrong, different = measure(images, owners, 30, 0.75)
    assert found == {"mirrored": 1.0, "nothing left": 0.0}
    assert different == 10 * 10
    assert wrong == 0
    # The same picture under two numbers is a pair of "different" photographs that is taken for a copy.
    assert measure([images[0], images[0]], np.array([0, 1]), 30, 0.75)[1:] == (1, 1)
    assert measure([images[0], images[0]], np.array([0, 0]), 30, 0.75)[1:] == (0, 0)


def test_the_report_has_a_line_for_every_kind_of_copy(photographs, monkeypatch, capsys):
    monkeypatch.setattr(duplicates, "ALTERED", {"mirrored": ALTERED["mirrored"]})
    monkeypatch.setattr(sys, "argv", ["duplicates", f"--images={photographs}", "--radius=12"])
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "20 images, radius 12, correlation 0.75",
        "mirrored             100.0% found",
        "different images     0 of 100 pairs taken for copies",
    ]
    monkeypatch.setattr(sys, "argv", ["duplicates", f"--images={photographs / 'more'}"])
    assert main() == 2
    assert "expected photographs" in capsys.readouterr().err
