"""The page of image pairs: names are escaped, and it says how many pairs it leaves out."""

import base64
import io

import numpy as np
import PIL.Image
from parsed_page import Page

from vit_jax.data.dedup.page import Shown, write_page


def test_the_page_says_how_many_it_does_not_show_and_escapes_names(tmp_path):
    image = np.zeros((300, 400, 3), np.uint8)
    pair = Shown("<b>.jpg", 'a"&.jpg', image, image[:20, :20], "hash 3", True)
    write_page(tmp_path / "page.html", "Copies", ["one line"], [pair, pair._replace(copy=False)], 1502)
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert "the 2 most doubtful of 1,502 pairs" in page.text
    assert "train: <b>.jpg" in page.text
    assert page.images[1]["alt"] == 'test: a"&.jpg'
    assert [tag for tag in page.tags if tag == "li"] == ["li", "li"]
    assert page.images[1]["src"].startswith("data:image/png")
    write_page(tmp_path / "page.html", "Copies", [], [], 0)
    assert "No pair was found." in (tmp_path / "page.html").read_text()


def pixels_of(src):
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(src.partition("base64,")[2]))))


def test_large_images_are_shrunk_to_the_page_and_small_ones_are_shown_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (32, 20, 3), np.uint8)
    pair = Shown("a", "b", np.full((300, 1200, 3), 90, np.uint8), small, "pixels 0.94", False)
    write_page(tmp_path / "page.html", "Copies", [], [pair], 1)
    large, other = (pixels_of(image["src"]) for image in Page((tmp_path / "page.html").read_text()).images)
    assert large.shape == (56, 224, 3)  # the longer side
    assert np.abs(large.astype(int) - 90).max() <= 2
    assert np.array_equal(other, small)


def test_the_verdict_the_scores_and_the_paragraphs_are_on_the_page_and_no_script_is(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    pairs = [Shown("a", "b", image, image, "hash 3 of 64 bits, <pixels> 0.94", copy) for copy in (True, False)]
    write_page(tmp_path / "page.html", "A & B", ["x < y", "</p><script>"], pairs, 2)
    page = Page((tmp_path / "page.html").read_text())
    text = " ".join(page.text.split())
    assert "A & B" in text
    assert "x < y </p><script>" in text
    assert text.count("copy") - text.count("no copy") == 1
    assert text.count("hash 3 of 64 bits, <pixels> 0.94") == 2
    assert "most doubtful" not in text  # all pairs are shown
    assert "script" not in page.tags
    assert {tag for tag in page.tags if tag in ("link", "iframe")} == set()
