"""The page about what a model learned, from the files that `vit_jax explain` wrote: same files, same bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vit_jax.detect import THRESHOLD, Found
from vit_jax.detect import draw as draw_objects
from vit_jax.files import read_json, read_regular
from vit_jax.metrics.curves import MARKERS
from vit_jax.report.charts import SOFT, Chart, color_of, draw, legend
from vit_jax.report.maps import (
    SMALL,
    colored,
    contact_sheet,
    encode_png,
    enlarged,
    filter_sheet,
    overlay,
    paint_sheet,
    position_sheet,
)
from vit_jax.report.render import PAGE, fill, write_files
from vit_jax.types import UserError, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

ARRAYS, FACTS, FOLDER = "explain.npz", "explain.json", "pictures"
SHEET = "rollout.png"
ADVICE = "run vit_jax explain again"
MEANINGS = {
    "vectors": "Cosine similarity of the position embeddings of every two patches",
    "offsets": "Cosine similarity of the embedding of each offset between patches with that of a patch to itself",
    "bias": "Bias of the attention logits for every (query, key), a mean over heads",
}
Arrays = Mapping[str, np.ndarray]


class Picture(NamedTuple):
    """One picture of an image; a large one has text in it."""

    href: str
    caption: str
    large: bool


class Shown(NamedTuple):
    """An image and its pictures."""

    name: str
    classified: str
    pictures: tuple[Picture, ...]


def write_explained(to: Path) -> None:
    """Writes the page and its pictures beside the files that it is made from.

    Raises:
      UserError: the files are damaged, or the folder cannot be written to.
    """
    facts, arrays = read_json(to / FACTS, advice=ADVICE), _read(to / ARRAYS)
    try:
        files, shown = _pictures(arrays, facts)
        view: dict[str, Any] = {
            "title": f"What {Path(facts['checkpoint']).name} learned",
            "refresh_s": 0,
            "facts": facts,
            "lines": _lines(facts),
            "filters": _filters(arrays),
            "positions": _positions(arrays, facts),
            "charts": _charts(arrays, facts),
            "cka": _cka(arrays, facts),
            "shown": shown,
            "sheet": SHEET if SHEET in files else "",
            "tables": facts["tables"],
        }
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UserError(f"{to / FACTS} and {to / ARRAYS} do not belong together ({error!r}); {ADVICE}") from error
    write_files(to, {name: data for name, data in files.items() if "/" not in name})
    write_files(to / FOLDER, {Path(name).name: data for name, data in files.items() if "/" in name})
    write_files(to, {PAGE: fill("explained.html", view)})


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(read_regular(file)), allow_pickle=False) as opened:
            return dict(opened)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read as the arrays of an explanation ({error}); {ADVICE}") from error


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    def size(pair: Sequence[int]) -> str:
        return "x".join(map(str, pair))

    left_out = f"; {len(facts['corrupt'])} left out, which cannot be read" if facts["corrupt"] else ""
    lines = [
        ("checkpoint", facts["checkpoint"]),
        ("compared with", facts["other"]),
        ("model", facts["model"]),
        ("images", f"{facts['measured']:,} of {facts['images']}, at {size(facts['resolution'])} pixels{left_out}"),
        ("patches", f"{size(facts['grid'])} of {size(facts['patch'])} pixels" if facts["grid"] else ""),
    ]
    return [(name, text) for name, text in lines if text]


def _filters(arrays: Arrays) -> Chart:
    sheet, shares = filter_sheet(arrays["filters"]), arrays["filters_variance"]
    caption = (
        f"The first {len(shares)} principal components of the first layer's filters, row by row; they hold "
        f"{100 * shares.sum():.0f}% of the filters' variance, the first {100 * shares[0]:.1f}%. Mid-gray is zero."
    )
    size = (4.2, max(0.8, 4.2 * sheet.shape[0] / sheet.shape[1]))
    return Chart(draw("filters", caption, size, lambda ax: paint_sheet(ax, sheet)), caption)


def _positions(arrays: Arrays, facts: Mapping[str, Any]) -> Chart | None:
    if "positions" not in arrays:
        return None
    tables = arrays["positions"]
    sheet = position_sheet(tables.mean(axis=0))
    caption = (
        f"{MEANINGS[facts['positions']]}{f', a mean over {len(tables)} layers' if len(tables) > 1 else ''}. A tile for each "
        "patch, where it stands in the image; in the tile, its value with every other."
    )
    size = (5.0, max(1.5, 4.2 * sheet.shape[0] / sheet.shape[1]))
    return Chart(draw("positions", caption, size, lambda ax: paint_sheet(ax, sheet)), caption)


def _charts(arrays: Arrays, facts: Mapping[str, Any]) -> list[Chart]:
    charts = []
    if "distance" in arrays:
        grid, patch = facts["grid"], facts["patch"]
        y, x = np.indices(grid).reshape(2, -1) * np.reshape(patch, (2, 1))
        even = float(np.hypot(y[:, None] - y, x[:, None] - x).mean())
        caption = "Each dot a head: pixels between a patch and those that it attends to. Dashed: attention to all patches alike."
        charts.append(_heads("distance", arrays["distance"], even, "Mean attention distance", "pixels", caption))
        most = float(np.log(facts["tokens"]))
        caption = "Each dot a head: 0 for attention to a single token. Dashed: to all tokens alike."
        charts.append(_heads("entropy", arrays["entropy"], most, "Entropy of attention", "nats", caption))
    if "norms" in arrays:

        def paint(ax: Axes) -> None:
            for i, name in enumerate(facts["norms"]):
                layers = range(1, len(arrays["norms"]) + 1)
                ax.plot(layers, arrays["norms"][:, i], color=color_of(i), marker=MARKERS[i], label=name)
            ax.set(title="Norms of tokens", xlabel="layer", ylabel="length", ylim=(0, None))
            _whole_layers(ax.xaxis)
            legend(ax, len(facts["norms"]))

        caption = (
            "Length of tokens after each layer, a mean over images. A largest patch far above the median is an artefact, which "
            "registers remove."
        )
        # The legend is below the axes, which are as high as those beside them.
        size = 4.2, 2.9 + 0.2 * len(facts["norms"])
        charts.append(Chart(draw("norms", caption, size, paint), caption))
    return charts


def _heads(name: str, values: np.ndarray, even: float, title: str, unit: str, caption: str) -> Chart:
    def paint(ax: Axes) -> None:
        layers = np.repeat(np.arange(1, len(values) + 1), values.shape[1])
        ax.axhline(even, color=SOFT, linestyle="--", linewidth=1)
        ax.plot(layers, values.ravel(), "o", color=color_of(0), alpha=0.75)
        ax.set(title=title, xlabel="layer", ylabel=unit, ylim=(0, 1.08 * max(even, np.nanmax(values, initial=0))))
        _whole_layers(ax.xaxis)

    return Chart(draw(name, caption, (4.2, 2.9), paint), caption)


def _whole_layers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))


def _cka(arrays: Arrays, facts: Mapping[str, Any]) -> Chart | None:
    if "cka" not in arrays:
        return None
    values = arrays["cka"]

    def paint(ax: Axes) -> None:
        rows, columns = values.shape
        extent = (0.5, columns + 0.5, 0.5, rows + 0.5)
        drawn = ax.imshow(values, origin="lower", extent=extent, vmin=0, vmax=1, interpolation="none")
        ax.set(xlabel=f"layer of {Path(facts['other'] or facts['checkpoint']).name}"[:44])
        ax.set(ylabel=f"layer of {Path(facts['checkpoint']).name}"[:44])
        ax.grid(visible=False)
        _whole_layers(ax.xaxis)
        _whole_layers(ax.yaxis)
        ax.figure.colorbar(drawn, ax=ax, shrink=0.8)

    caption = (
        f"Linear CKA of the mean patch after each layer, over {facts['measured']:,} images: 1 where layers agree up to rotation "
        "and scale. Few images make all layers look alike: compare figures of the same number."
    )
    return Chart(draw("cka", caption, (4.2, 3.4), paint), caption)


def _pictures(arrays: Arrays, facts: Mapping[str, Any]) -> tuple[dict[str, bytes], list[Shown]]:
    """{file: PNG} and what the page shows of each image."""
    files: dict[str, bytes] = {}
    shown, pairs = [], []
    for i, name in enumerate(facts["pictures"]):
        image = enlarged(arrays["images"][i])
        made = {"image": (image, "image")}
        if "rollout" in arrays:
            made["rollout"] = (overlay(image, arrays["rollout"][i]), "attention rollout")
            small = enlarged(arrays["images"][i], SMALL)
            pairs.append((small, overlay(small, arrays["rollout"][i])))
        if "boxes" in arrays:
            made |= _with_objects(arrays, facts, i, made)
        if "probe" in arrays:
            made["probe"] = (overlay(image, arrays["probe"][i]), "attention of the head's probe")
        if "gradient_rollout" in arrays:
            words = f"what speaks for {facts['classes'][i]}"
            made["class"] = (overlay(image, arrays["gradient_rollout"][i]), words)
        if "heads" in arrays:
            for head, values in zip(facts["heads"], arrays["heads"][i], strict=True):
                made[f"head-{head}"] = (colored(values), f"layer {facts['layer']}, head {head}")
        if "norm_maps" in arrays:
            made["norms"] = (colored(arrays["norm_maps"][i]), "norms of the last layer's tokens")
        if len(made) == 1 and "boxes" not in arrays:
            continue  # nothing to see beside the image
        large = {"image", "rollout"} if "boxes" in arrays else set()
        pictures = []
        for kind, (pixels, caption) in made.items():
            files[f"{FOLDER}/{i + 1}-{kind}.png"] = encode_png(pixels)
            pictures.append(Picture(f"{FOLDER}/{i + 1}-{kind}.png", caption, kind in large))
        share = f"{facts['classes'][i]} {arrays['probabilities'][i]:.1%}" if facts["classes"] else ""
        shown.append(Shown(name, share, tuple(pictures)))
    if pairs:
        files[SHEET] = encode_png(contact_sheet(list(zip(*pairs, strict=True))))
    return files, shown


def _with_objects(
    arrays: Arrays, facts: Mapping[str, Any], i: int, made: Mapping[str, tuple[np.ndarray, str]]
) -> dict[str, tuple[np.ndarray, str]]:
    """The image and its rollout with a frame, a class and a score for each object that a detector finds in it."""
    boxes, scores = arrays["boxes"][i], arrays["box_scores"][i]
    count = int((scores >= THRESHOLD).sum())
    what = counted(count, "object") if count else "no object"
    captions = {
        "image": f"image: {what} found with a score of {THRESHOLD:.0%} or more",
        "rollout": f"attention rollout{', with the objects found' if count else ''}",
    }
    framed = {}
    for kind in [kind for kind in captions if kind in made]:
        pixels = made[kind][0]
        scaled = boxes * (len(pixels) / len(arrays["images"][i]))
        found = Found(facts["pictures"][i], pixels, scaled, arrays["box_classes"][i], scores)
        framed[kind] = (draw_objects(found, facts["object_classes"]), captions[kind])
    return framed
