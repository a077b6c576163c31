"""The forms in which `vit_jax predict` prints the classes of images."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING

from vit_jax.types import printable

if TYPE_CHECKING:
    from vit_jax.predict import Prediction, Predictor


class Lines:
    """`cat.jpg: cat 97.1%, dog 1.2%`, a line as soon as it is known.

    Args:
      predictor: the model.
      top: classes per image.
    """

    def __init__(self, predictor: Predictor, top: int):
        self.are_numbers = predictor.target == "Values"
        self.form = ".4g" if self.are_numbers else ".1%"
        self.classes, self.top = predictor.classes, min(top, len(predictor.classes))

    def row(self, one: Prediction) -> None:
        """Prints the classes of an image."""
        print(printable(f"{one.file}: " + ", ".join(f"{name} {share:{self.form}}" for name, share in one.classes)))

    def end(self) -> None:
        """Prints what follows the last image."""


class Json(Lines):
    """A line of JSON for each image."""

    def row(self, one: Prediction) -> None:
        """See `Lines`."""
        print(json.dumps({"file": one.file, "classes": [(name, round(share, 4)) for name, share in one.classes]}))


class Csv(Lines):
    """A row for each image: its name, then each class and its probability; of a model of numbers, a column for each number."""

    def __init__(self, predictor: Predictor, top: int):
        super().__init__(predictor, top)
        pairs = ((f"class_{i + 1}", f"probability_{i + 1}") for i in range(self.top))
        self.writer = csv.writer(sys.stdout, lineterminator="\n")
        self.writer.writerow(
            ["file", *(self.classes if self.are_numbers else (name for pair in pairs for name in pair))]
        )

    def row(self, one: Prediction) -> None:
        """See `Lines`."""
        if self.are_numbers:
            self.writer.writerow([printable(one.file), *(f"{share:.6g}" for _, share in one.classes)])
        else:
            cells = ((printable(name), f"{share:.4f}") for name, share in one.classes)
            self.writer.writerow([printable(one.file), *(cell for pair in cells for cell in pair)])


class Table(Lines):
    """A table of all images, at the end."""

    def __init__(self, predictor: Predictor, top: int):
        from rich.table import Table as RichTable

        super().__init__(predictor, top)
        names = self.classes if self.are_numbers else tuple(f"#{i + 1}" for i in range(self.top))
        self.table = RichTable("image", *map(_plain, names))

    def row(self, one: Prediction) -> None:
        """See `Lines`."""
        texts = (
            f"{share:{self.form}}" if self.are_numbers else f"{name} {share:{self.form}}" for name, share in one.classes
        )
        self.table.add_row(*map(_plain, (one.file, *texts)))

    def end(self) -> None:
        """See `Lines`."""
        from rich.console import Console

        if self.table.row_count:
            Console().print(self.table)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))  # a name is no markup


WRITERS: dict[str, type[Lines]] = {"lines": Lines, "json": Json, "csv": Csv, "table": Table}
