"""A hook of MkDocs: the pages of the site that are made from the code when it is built, and README among the pages of docs/.

Every key of a config is read from the signatures that a run is checked against, and every verb from its own parser.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COPIED = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
MODULES = (
    *("vit_jax.convert.load", "vit_jax.predict", "vit_jax.detect", "vit_jax.evaluate", "vit_jax.run.execute"),
    *("vit_jax.insight.attention", "vit_jax.insight.layers", "vit_jax.cards.card", "vit_jax.types"),
)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages."""
    from mkdocs.structure.files import File

    pages = {name: (ROOT / source).read_text() for name, source in COPIED.items()}
    pages |= {"keys.md": "\n".join(_keys()), "verbs.md": "\n".join(_verbs()), "python.md": _python()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.name}", abs_src_path=str(notebook)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points the links of README and its neighbours to their places in the site; those to other files become text."""
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", markdown).replace("](../notebooks/", "](notebooks/")
    for name, source in COPIED.items():
        text = re.sub(rf"\]\((?:\.\./)?{source}", f"]({name}", text)
    return re.sub(r"\[([^\]\n]+)\]\((?:LICENSE|CITATION\.cff|\.\./(?!docs)[^)]*)\)", r"\1", text)


def _keys() -> Iterator[str]:
    from vit_jax import config as configs
    from vit_jax.run.keys import documented
    from vit_jax.run.schema import SCHEMA
    from vit_jax.values import describe_hint

    yield "# Keys of a config\n"
    yield "`--config.SECTION.KEY=VALUE` sets a key. Where a section has a `name`, its keys are those of that name."
    yield "`open` keys are decided by the run, which says why; a key without a default must be given.\n"
    for section, schema in SCHEMA.items():
        yield f"## {section}\n"
        table = schema.reader if isinstance(schema.reader, dict) else {"": schema.reader}
        for name, reader in table.items():
            if name:
                yield f"### {section}: {name}\n"
            notes = documented(reader)
            yield "| key | default | type | meaning |\n|---|---|---|---|"
            for key, (hint, default) in configs.hints(reader, schema.injected).items():
                is_open = key in schema.left_open and (
                    default is inspect.Parameter.empty or default in (None, *schema.left_open[key])
                )
                shown = "open" if is_open else "" if default is inspect.Parameter.empty else f"`{_text(default)}`"
                yield f"| `{key}` | {shown} | {_cell(describe_hint(hint))} | {_cell(notes.get(key, ''))} |"
            yield ""


def _verbs() -> Iterator[str]:
    from vit_jax.cli.main import VERBS

    yield "# Verbs\n"
    for name, verb in VERBS.items():
        help_text = importlib.import_module(f"vit_jax.cli.{name}").make_parser().format_help()
        yield f"## {name}\n\n`vit_jax {name}` {verb.about}.\n\n```text\n{help_text}```\n"


def _python() -> str:
    named = "\n\n".join(f"## {name}\n\n::: {name}\n    options:\n      show_root_heading: false" for name in MODULES)
    return f"# Python\n\nThe functions that notebooks and scripts call.\n\n{named}\n"


def _text(value: Any) -> str:
    """A default in the form in which a user types it; empty texts and lists as Python writes them."""
    return ",".join(map(str, value)) if isinstance(value, tuple) and value else str(value) if value != "" else "''"


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("<", "&lt;")
