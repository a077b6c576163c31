"""What all pages share: templates filled to text, files replaced as a whole, how far the runs are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.types import UserError

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "index.html"


class Progress(NamedTuple):
    """Number of finished and of requested runs, and messages about files that were left out."""

    done: int
    expected: int
    damaged: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return self.done >= self.expected


def fill(template: str, view: Mapping[str, Any]) -> str:
    """The text of a template with its variables, and the style sheet as `css`; text from files is escaped."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    css = markupsafe.Markup((TEMPLATES / "page.css").read_text())
    return environment.get_template(template).render({**view, "css": css})


def write_files(to: Path, files: Mapping[str, str | bytes]) -> None:
    """Writes {file name: content} into a folder, each file as a whole.

    Raises:
      UserError: the folder cannot be written to.
    """
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace(to / name, content)
    except OSError as error:
        raise UserError(f"the report cannot be written to {to}: {error}; give another folder with --to") from error


def replace(file: Path, content: str | bytes) -> None:
    """Replaces a file atomically: a reader finds the old one or the new one. An unchanged file is left alone."""
    data = content.encode() if isinstance(content, str) else content
    if file.is_file() and file.read_bytes() == data:
        return
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, file)
