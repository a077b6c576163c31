"""One static page of image pairs side by side, to judge by eye: opens from disk, no script, light or dark as the reader's
system is, one column on a phone.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDE = 224  # pixels of the longer side of an image on the page

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #63636a; --page: #f5f5f4; --card: #fff; --line: #dcdcda;
  --out: #a3260c; --in: #0b6b4f; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --dim: #a0a0a8; --page: #161618; --card: #212124;
  --line: #38383d; --out: #ff9b7d; --in: #6fd3ae; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem 1rem 3rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .4rem; }
p { margin: .3rem 0; max-width: 46rem; }
.dim, dt { color: var(--dim); }
ol { list-style: none; margin: 1.5rem 0 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); }
li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; min-width: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--page); }
.small img { image-rendering: pixelated; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; margin-top: .25rem; }
.verdict { font-weight: 600; margin-bottom: .5rem; display: flex; justify-content: space-between; gap: .5rem; }
.verdict span { font-weight: 400; font-size: .85rem; color: var(--dim); text-align: right; }
.out { color: var(--out); }
.in { color: var(--in); }
"""


class Shown(NamedTuple):
    """One pair on the page.

    Args:
      train, test: what each is called.
      train_image, test_image: uint8 (h, w, 3).
      scores: in words, `hash 3 of 64 bits, pixels 0.94`.
      copy: whether the pair is taken for one.
    """

    train: str
    test: str
    train_image: np.ndarray
    test_image: np.ndarray
    scores: str
    copy: bool


def write_page(file: Path, title: str, lines: Sequence[str], pairs: Sequence[Shown], total: int) -> None:
    """Writes the page.

    Args:
      file: to write.
      title: heading.
      lines: paragraphs under it.
      pairs: shown, in this order.
      total: pairs there are, those that are not shown included.
    """
    notes = [*lines]
    if total > len(pairs):
        notes.append(f"Shown are the {len(pairs):,} most doubtful of {total:,} pairs; pairs.csv has all of them.")
    notes = notes if total else [*notes, "No pair was found."]
    items = "\n".join(_item(pair) for pair in pairs)
    paragraphs = "\n".join(f'<p class="dim">{html.escape(line)}</p>' for line in notes)
    file.write_text(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n"
        f"{paragraphs}\n<ol>\n{items}\n</ol>\n</body>\n</html>\n",
        encoding="utf-8",
    )


def _item(pair: Shown) -> str:
    verdict = '<b class="out">copy</b>' if pair.copy else '<b class="in">no copy</b>'
    figures = "".join(
        _figure(role, name, image)
        for role, name, image in (("train", pair.train, pair.train_image), ("test", pair.test, pair.test_image))
    )
    return (
        f'<li><div class="verdict">{verdict}<span>{html.escape(pair.scores)}</span></div>'
        f'<div class="pair">{figures}</div></li>'
    )


def _figure(role: str, name: str, image: np.ndarray) -> str:
    small = ' class="small"' if max(image.shape[:2]) < SIDE // 2 else ""
    text = html.escape(f"{role}: {name}", quote=True)
    return f'<figure{small}><img alt="{text}" src="{_uri(image)}"><figcaption>{text}</figcaption></figure>'


def _uri(image: np.ndarray) -> str:
    """A data URI: JPEG; PNG for an image so small that it is shown pixel by pixel."""
    import PIL.Image

    picture, buffer = PIL.Image.fromarray(image), io.BytesIO()
    kind = "png" if max(picture.size) < SIDE // 2 else "jpeg"
    picture.thumbnail((SIDE, SIDE))
    picture.save(buffer, kind, **({"quality": 82} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
