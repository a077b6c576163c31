"""The page of one or more runs side by side: how far they are, their scores, curves, configs, and where their time went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.files import read_json, read_json_value
from vit_jax.report.charts import SOFT, Chart, color_of, draw
from vit_jax.report.detections import precision_charts
from vit_jax.report.render import PAGE, Progress, fill, write_files
from vit_jax.report.tasks import href
from vit_jax.report.training import read_records, record_charts
from vit_jax.run.record import read_run
from vit_jax.train.clock import KINDS, read_shares
from vit_jax.types import Metric, UserError

# What a run's time is spent on, in the words of the page; the colour of each is its place.
SPENT = {
    "step": "training steps",
    "data": "waiting for data",
    "evaluation": "evaluation",
    "saving": "saving",
    "compile": "compiling",
    "start": "starting",
    "lost": "lost to restarts",
}
assert set(SPENT) == {*KINDS, "lost"}
FILES = ("config.json", "run.json", "settled.json", "metrics.jsonl", "parameters.txt", "curves.png")
EVERY_SEED = "_seed"  # in the names of few-shot's figures; the page shows their means
ADVICE = "start the run's command again, which writes what is missing"


class Run(NamedTuple):
    """What a workdir says of its run.

    Args:
      folder: the workdir.
      label: distinct on the page.
      config: settled, {`a.b`: value}.
      result: run.json; empty while the run is unfinished.
      records: of metrics.jsonl.
      settled: (key, value, reason).
      shares: of its time, by kind; empty if unknown.
    """

    folder: Path
    label: str
    config: dict[str, Any]
    result: dict[str, Any]
    records: list[dict[str, Any]]
    settled: list[tuple[str, Any, str]]
    shares: dict[str, float]

    @property
    def status(self) -> str:
        """How far the run is, by its files."""
        step = max((record.get("step", 0) for record in self.records), default=0)
        if self.result:
            return f"finished: {self.result['steps']:,} steps"
        left = next((r["time/eta_s"] for r in reversed(self.records) if "time/eta_s" in r), None)
        return f"at step {step:,}" + (f", {left / 3600:.1f} hours from the end" if left else "")

    @property
    def scores(self) -> dict[str, float]:
        """The last value of each figure of its evaluations."""
        last = {key: value for record in self.records for key, value in record.items()}
        return {key: last[key] for key in last if (m := Metric.parse(key)) and EVERY_SEED not in m.name}


class Line(NamedTuple):
    """A row of a table: its name, and a text for each run."""

    name: str
    values: tuple[str, ...]


def is_run(folder: Path) -> bool:
    """Whether a folder is the workdir of a run."""
    return (folder / "config.json").is_file()


def write_runs(folders: Sequence[Path], to: Path, *, refresh_s: int = 0) -> Progress:
    """Writes the page; it is replaced as a whole, and only if it changes.

    Args:
      folders: workdirs, in the order of the columns.
      to: the page's folder; created if missing.
      refresh_s: an unfinished page reloads itself this often; 0 for never.

    Raises:
      UserError: a file of a run is damaged, or `to` cannot be written to.
    """
    runs = [_read(folder, folders) for folder in folders]
    progress = Progress(sum(bool(run.result) for run in runs), len(runs))
    records = [(place, run.label, run.records) for place, run in enumerate(runs)]
    which = "the run" if len(runs) == 1 else "each run"
    view: dict[str, Any] = {
        "title": runs[0].label if len(runs) == 1 else f"{len(runs)} runs side by side",
        "runs": runs,
        "links": [
            [(name, href(run.folder / name, to)) for name in FILES if (run.folder / name).exists()] for run in runs
        ],
        "progress": progress,
        "refresh_s": 0 if progress.finished else refresh_s,
        "facts": _facts(runs),
        "scores": _scores(runs),
        "charts": record_charts("training", records, which),
        "precision": precision_charts([(place, run.label, run.folder) for place, run in enumerate(runs)]),
        "pictures": [_pictures(run.folder, to) for run in runs],
        "time": _time_chart(runs),
        "times": _times(runs),
        "differences": _differences(runs),
    }
    write_files(to, {PAGE: fill("runs.html", view)})
    return progress


def _read(folder: Path, folders: Sequence[Path]) -> Run:
    config = _flat(read_json(folder / "config.json", advice=ADVICE))
    result = read_run(folder) if (folder / "run.json").exists() else {}
    settled = read_json_value(folder / "settled.json") if (folder / "settled.json").exists() else []
    names = [other.resolve().name for other in folders]
    label = folder.resolve().name
    label = label if names.count(label) == 1 else str(folder)
    if not isinstance(settled, list) or not all(isinstance(line, list) and len(line) == 3 for line in settled):
        raise UserError(f"{folder / 'settled.json'} is damaged: it should be a list of [key, value, reason]; {ADVICE}")
    return Run(folder, label, config, result, read_records(folder), [tuple(s) for s in settled], read_shares(folder))


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{`a.b`: value}."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _facts(runs: Sequence[Run]) -> list[Line]:
    def of_result(run: Run, key: str, form: str) -> str:
        return format(run.result[key], form) if key in run.result else ""

    def git(run: Run) -> str:
        state = run.result.get("git", {})
        return str(state.get("commit", ""))[:12] + (", with changed files" if state.get("modified") else "")

    rows = {
        "status": [run.status for run in runs],
        "data": [f"{run.config.get('data.dataset')} {run.config.get('data.split')}" for run in runs],
        "model": [str(run.config.get("model.name")) for run in runs],
        "parameters": [of_result(run, "num_params", ",") for run in runs],
        "FLOPs of training, per image": [of_result(run, "train_flops_per_image", ".3g") for run in runs],
        "devices": [", ".join(map(str, run.result.get("devices", ()))) for run in runs],
        "seconds of the last start": [of_result(run, "seconds", ",.0f") for run in runs],
        "commit": [git(run) for run in runs],
        "versions": [", ".join(f"{k} {v}" for k, v in run.result.get("versions", {}).items()) for run in runs],
        "started": [str(run.result.get("started", "")) for run in runs],
        "command": [" ".join(map(str, run.result.get("command", ()))) for run in runs],
    }
    return [Line(name, tuple(values)) for name, values in rows.items() if any(values)]


def _scores(runs: Sequence[Run]) -> list[Line]:
    """A row for each figure; the averaged weights' follows the raw weights' in the same cell."""
    figures = [{m: value for key, value in run.scores.items() if (m := Metric.parse(key))} for run in runs]
    names = dict.fromkeys((m.evaluator, m.name) for found in figures for m in found)

    def cell(found: Mapping[Metric, float], evaluator: str, name: str) -> str:
        raw, average = (found.get(Metric(kind, evaluator, name)) for kind in ("eval", "eval_average"))
        if average is None or name == "num_examples":
            return _figure(name, raw)
        return f"{_figure(name, raw)}, averaged weights {_figure(name, average)}"

    return [Line(f"{e}: {name}", tuple(cell(found, e, name) for found in figures)) for e, name in names]


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name.startswith("top") or name.endswith("shot"):
        return f"{100 * value:.2f}%"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _times(runs: Sequence[Run]) -> list[Line]:
    if not any(run.shares for run in runs):
        return []
    return [
        Line(text, tuple(f"{run.shares.get(kind, 0):.1%}" if run.shares else "" for run in runs))
        for kind, text in SPENT.items()
    ]


def _time_chart(runs: Sequence[Run]) -> Chart | None:
    timed = [run for run in runs if run.shares]
    if not timed:
        return None

    def paint(ax: Any) -> None:
        left = [0.0] * len(timed)
        for place, (kind, text) in enumerate(SPENT.items()):
            widths = [100 * run.shares.get(kind, 0) for run in timed]
            color = SOFT if kind == "lost" else color_of(place)
            ax.barh(range(len(timed)), widths, left=left, height=0.6, color=color, label=text)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        ax.set_yticks(range(len(timed)), [run.label[:44] for run in timed])
        ax.set(xlabel="% of wall-clock time, over all starts", xlim=(0, 100))
        ax.invert_yaxis()
        ax.grid(visible=False)
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4)

    text = "; ".join(
        f"{run.label}: " + ", ".join(f"{SPENT[kind]} {share:.0%}" for kind, share in run.shares.items())
        for run in timed
    )
    caption = "The share of training steps is the run's goodput; everything else is what it costs to train."
    return Chart(draw("time", text, (7.2, 1.1 + 0.32 * len(timed)), paint), caption)


def _pictures(folder: Path, to: Path) -> list[tuple[str, str]]:
    """(evaluator and step, link) of the last picture of each evaluator that draws some."""
    last: dict[str, tuple[int, Path]] = {}
    for file in (folder / "pictures").glob("*.png"):
        name, _, step = file.stem.rpartition("-")
        if name and step.isascii() and step.isdigit() and int(step) >= last.get(name, (0, file))[0]:
            last[name] = int(step), file
    return [(f"{name}, step {step:,}", href(file, to)) for name, (step, file) in sorted(last.items())]


def _differences(runs: Sequence[Run]) -> list[Line]:
    """The keys whose values differ between runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [Line(key, tuple(json.dumps(run.config.get(key)) for run in runs)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]
