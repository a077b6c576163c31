"""Drawings of a page: colours and ids that suit it, and labels that stay text."""

import re

from vit_jax.report.charts import INK, color_of, draw, short


def test_colours_are_the_style_sheets_and_ids_are_the_drawings_own():
    svg = draw("mine", "a <line>", (2, 2), lambda ax: ax.plot([0, 1], [0, 1], color=color_of(1), marker="o"))
    assert "var(--series-1)" in svg
    assert not re.search(rf"{INK}|#0404|#0202", svg)
    assert "<title>a &lt;line&gt;</title>" in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids)) > 3
    assert all(name.startswith("mine-") for name in ids)


def test_the_seventh_sweep_has_the_first_ones_colour():
    assert color_of(6) == color_of(0) != color_of(5)


def test_a_long_label_is_cut_and_a_leading_underscore_is_kept_visible():
    assert short("a" * 50) == "a" * 43 + "…"
    assert short("_hidden\n name") == " _hidden name"
