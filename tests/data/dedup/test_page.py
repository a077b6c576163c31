"""The page of image pairs: names are escaped, and it says how many pairs it leaves out."""

import numpy as np
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
