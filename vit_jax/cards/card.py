"""The text of a model card: a README.md with the header that Hugging Face's Hub reads, made of plain facts.

Names of classes, data sets and folders come from strangers: each is escaped for Markdown, the header is JSON (a subset of YAML)
line by line, and code quotes them as its language does.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from vit_jax.types import printable

CARD = "README.md"
MOST_CLASSES = 100  # named in a card
# The Hub's names of metrics; others keep their own.
METRICS = {"top1": "accuracy", "accuracy": "accuracy", "map": "mean_average_precision", "ap": "mean_average_precision"}
NO_LICENCE = "unknown"


class Score(NamedTuple):
    """One result: the data set and split that were scored, the metric's name, its value, and which weights."""

    dataset: str
    split: str
    metric: str
    value: float
    weights: str = "raw"


class Usage(NamedTuple):
    """How one library loads the model: its name, a shell command that comes first (or ""), and Python (or why it cannot)."""

    library: str
    shell: str = ""
    python: str = ""
    why_not: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that a card says. Only a title is needed; facts that are not known are left out of the text.

    Args:
      title: the heading.
      task: Hugging Face's name of the task.
      library: the library that loads the folder as it is.
      model: sizes on one line, from `models.variants.describe_sizes`.
      resolution: (h, w) in pixels.
      parameters: their number.
      classes: names of classes, in the order of the outputs.
      preprocessing: how images are prepared, from a run's record.
      licence: Hugging Face's name of the licence.
      base: the checkpoint that training started from.
      datasets: what it was trained on.
      scores: the results.
      training: {row: text} of a run: steps, devices, seconds.
      commit: the code's git commit; `modified` whether files differed from it.
      config: the config of the run, or the model section alone.
      usage: see `cards.loading.usage_of`.
      place: where the commands of `usage` run, in a sentence.
      tags: the Hub's tags besides those that follow from the facts.
    """

    title: str
    task: str = "image-classification"
    library: str = "vit_jax"
    model: str = ""
    resolution: tuple[int, int] | None = None
    parameters: int = 0
    classes: Sequence[str] = ()
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    licence: str = NO_LICENCE
    base: str = ""
    datasets: Sequence[str] = ()
    scores: Sequence[Score] = ()
    training: Mapping[str, str] = dataclasses.field(default_factory=dict)
    commit: str = ""
    modified: bool = False
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    usage: Sequence[Usage] = ()
    place: str = "The commands run beside the folder."
    tags: Sequence[str] = ()


def render(facts: Facts) -> str:
    """The card, as text of README.md."""
    parts = [_header(facts), f"# {escape(facts.title)}", _about(facts)]
    if facts.scores:
        rows = [(s.dataset, s.split, s.metric, _number(s.value), s.weights) for s in facts.scores]
        parts += ["## Results", _table(("data", "split", "metric", "value", "weights"), rows)]
    if facts.usage:
        parts += ["## How to load it", facts.place, *map(_usage, facts.usage)]
    if facts.training or facts.commit:
        commit = f"{facts.commit}{', with uncommitted changes' if facts.modified else ''}"
        made = {**facts.training, **({"git commit": commit} if facts.commit else {})}
        parts += ["## How it was made", _table(("", ""), list(made.items()))]
    if facts.config:
        text = json.dumps(facts.config, indent=2, sort_keys=True)  # no line of it can end the fence
        parts.append(f"<details><summary>config</summary>\n\n```json\n{text}\n```\n\n</details>")
    if facts.classes:
        named = ", ".join(map(escape, facts.classes[:MOST_CLASSES]))
        rest = len(facts.classes) - MOST_CLASSES
        parts += ["## Classes", named + (f", and {rest:,} more" if rest > 0 else "")]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is: every character that could be markup has a backslash or is an entity."""
    text = " ".join(printable(str(text)).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$:@\"'-])", r"\\\1", text)


def short_name(name: str) -> str:
    """A data set's name without the folders of somebody's machine: `/home/me/photos` is `photos`; `vtab/dtd` stays."""
    path = PurePath(name)
    return path.name if path.is_absolute() or name.startswith(("~", ".")) or "://" in name else name


def _header(facts: Facts) -> str:
    """The metadata, a key a line."""
    tags = dict.fromkeys(["vision", "vit_jax", *facts.tags])
    header: dict[str, Any] = {"license": facts.licence, "library_name": facts.library, "pipeline_tag": facts.task}
    header["tags"] = list(tags)
    if facts.datasets:
        header["datasets"] = list(dict.fromkeys(map(short_name, facts.datasets)))
    if kinds := list(dict.fromkeys(METRICS.get(s.metric, s.metric) for s in facts.scores)):
        header["metrics"] = kinds
    if facts.scores:
        header["model-index"] = [{"name": facts.title, "results": [_result(facts.task, s) for s in facts.scores]}]
    lines = [f"{key}: {json.dumps(_clean(value), ensure_ascii=False)}" for key, value in header.items()]
    return "\n".join(["---", *lines, "---"])


def _result(task: str, score: Score) -> dict[str, Any]:
    dataset = short_name(score.dataset)
    metric = {"type": METRICS.get(score.metric, score.metric), "value": score.value}
    return {
        "task": {"type": task},
        "dataset": {"name": dataset, "type": dataset, "split": score.split},
        "metrics": [metric | {"name": f"{score.metric}, {score.weights} weights"}],
    }


def _clean(value: Any) -> Any:
    """A value whose texts hold no character that YAML forbids."""
    if isinstance(value, str):
        return printable(value).replace("\ufeff", "\\ufeff").replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return {key: _clean(item) for key, item in value.items()} if isinstance(value, dict) else value


def _about(facts: Facts) -> str:
    unknown = "not stated; put the licence of these weights into the header before you publish them"
    rows = {
        "model": facts.model,
        "parameters": f"{facts.parameters:,}" if facts.parameters else "",
        "resolution": f"{facts.resolution[0]} x {facts.resolution[1]} pixels" if facts.resolution else "",
        "trained on": ", ".join(map(short_name, facts.datasets)),
        "started from": short_name(facts.base),
        "images": ", ".join(f"{key} {_short(value)}" for key, value in facts.preprocessing.items()),
        "licence": unknown if facts.licence == NO_LICENCE else facts.licence,
    }
    return _table(("", ""), [(name, text) for name, text in rows.items() if text])


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _usage(usage: Usage) -> str:
    shell = f"\n\n```\n{usage.shell}\n```" if usage.shell else ""
    python = f"\n\n```python\n{usage.python.strip()}\n```" if usage.python else f"\n\n{escape(usage.why_not)}"
    return f"**{usage.library}**{shell}{python}"
