"""The facts of a card: of a finished run, from its record; of a checkpoint of any format, from what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from vit_jax.cards.card import CARD, NO_LICENCE, Facts, Score, render
from vit_jax.cards.loading import Form, usage_of
from vit_jax.convert import released
from vit_jax.convert.save import refusal
from vit_jax.files import read_json
from vit_jax.metrics.jsonl import read_jsonl
from vit_jax.models.build import MODELS, count_params
from vit_jax.models.variants import describe_sizes
from vit_jax.types import KINDS, Metric, printable

if TYPE_CHECKING:
    from vit_jax.convert.load import Loaded

# Parts of metrics' names that make them no headline: counts, bounds of intervals, single seeds and classes.
ASIDE = ("num_examples", "num_unlabelled", "loss", "_low", "_high", "_seed", "_of_")
RELEASES_LICENCE = "apache-2.0"
LIBRARIES = {"hf": "transformers", "timm": "timm"}


def write_card(folder: epath.Path, facts: Facts) -> str:
    """Writes README.md into a folder; returns its path."""
    (folder / CARD).write_text(render(facts))
    return str(folder / CARD)


def of_run(name: str, record: Mapping[str, Any]) -> Facts:
    """The facts of a finished run.

    Args:
      name: the workdir's name.
      record: its run.json.
    """
    config, data = record["config"], record["data"]
    git = record.get("git") or {}
    resolution, model = tuple(config["data"]["resolution"]), config["model"]
    training = {
        "steps": f"{record['steps']:,} of {config['data']['batch_size']:,} examples",
        "devices": f"{len(record['devices'])} x {record['devices'][0] if record['devices'] else 'unknown'}",
        "time": f"{record['seconds']:,.0f} s",
        "training FLOPs per image": f"{record['train_flops_per_image']:.4g}",
        "versions": ", ".join(f"{key} {version}" for key, version in record["versions"].items()),
    }
    return Facts(
        title=printable(name),
        task=task_of(model),
        model=describe_sizes(model),
        resolution=resolution,
        parameters=record["num_params"],
        classes=data[0].get("class_names", ()) if data else (),
        preprocessing=record.get("preprocessing") or {},
        base=config["init"].get("path") or "",
        datasets=[spec["name"] for spec in data[:1]],
        scores=scores_of(config, record["scores"]),
        training=training,
        commit=str(git.get("commit", "")),
        modified=bool(git.get("modified")),
        config=config,
        usage=usage_for(name, "run", model, resolution),
    )


def of_loaded(loaded: Loaded, name: str, form: Form, weights: str = "raw") -> Facts:
    """The facts of a loaded checkpoint that is written as a folder: those of its run, if it is one's and finished.

    Args:
      loaded: from `convert.load.load`.
      name: the new folder's name.
      form: what it is written as.
      weights: which of a run's weights were loaded; a card holds the results of these.
    """
    from vit_jax.convert.load import resolution_of

    meta, settings = loaded.source.meta, loaded.settings
    plain = {key: list(x) if isinstance(x, tuple) else x for key, x in settings.items()}
    resolution = resolution_of(loaded)
    common: dict[str, Any] = {
        "title": printable(name),
        "task": task_of(settings),
        "library": LIBRARIES.get(form, "vit_jax"),
        "model": describe_sizes(settings),
        "resolution": resolution,
        "parameters": count_params(loaded.params),
        "classes": meta.get("class_names") or (),
        "preprocessing": meta.get("preprocessing") or {},
        "usage": usage_for(name, form, settings, resolution),
    }
    config = meta.get("config") if loaded.source.format == "run" else None
    if config and "data" in config:  # a checkpoint of a run, and not one that `convert` wrote
        place = _workdir(loaded.source.path)
        lines = read_jsonl(place / "metrics.jsonl") if place and (place / "metrics.jsonl").exists() else []
        scores = {key: x for line in lines if line["step"] == meta.get("step") for key, x in line.items()}
        kind = "averaged" if weights == "average" else "raw"
        common |= {
            "datasets": [config["data"]["dataset"]],
            "base": config.get("init", {}).get("path") or "",
            "scores": [score for score in scores_of(config, scores) if score.weights == kind],
            "training": {"run": place.name if place else "", "step": f"{meta.get('step', 0):,}"},
            "config": config,
        }
        if place and (place / "run.json").exists():
            git = read_json(place / "run.json", advice="remove it").get("git") or {}
            common |= {"commit": str(git.get("commit", "")), "modified": bool(git.get("modified"))}
    else:
        licence = RELEASES_LICENCE if released.is_name(loaded.source.path) else NO_LICENCE
        common |= {"licence": licence, "base": loaded.source.path, "config": {"model": plain}}
    return Facts(**common)


def usage_for(name: str, form: Form, settings: Mapping[str, Any], resolution: tuple[int, ...]) -> list[Any]:
    """How to load a model of these settings from a folder of this name."""
    refused = {other: why for other in LIBRARIES if (why := refusal(other, settings))}
    pair = (resolution[0], resolution[1])
    return usage_of(printable(name), form, task=task_of(settings), refused=refused, resolution=pair)


def task_of(settings: Mapping[str, Any]) -> str:
    """Hugging Face's name of a model's task."""
    if settings["name"] == "yolos":
        return "object-detection"
    known = MODELS.get(settings["name"])
    classifies = known is None or known.classifies
    return "image-classification" if classifies and settings.get("num_classes") else "image-feature-extraction"


def scores_of(config: Mapping[str, Any], scores: Mapping[str, float]) -> list[Score]:
    """The results of a run's evaluators, without counts, losses, bounds and single seeds or classes."""
    return list(_scores(config, scores))


def _scores(config: Mapping[str, Any], scores: Mapping[str, float]) -> Iterator[Score]:
    for key, value in scores.items():
        metric = Metric.parse(key)
        if metric is None or any(part in metric.name for part in ASIDE):
            continue
        section = config["evals"].get(metric.evaluator.partition("/")[0], {})
        dataset = section.get("dataset") or config["data"]["dataset"]
        split = section.get("split") or section.get("test_split") or metric.evaluator
        weights = "averaged" if metric.kind == KINDS[1] else "raw"
        name = metric.name if section.get("name") in (None, "classification") else f"{metric.name} ({section['name']})"
        yield Score(str(dataset), str(split), name, value, weights)


def _workdir(path: str) -> epath.Path | None:
    """The local workdir that a checkpoint's path names."""
    if "://" in path:
        return None
    place = epath.Path(path).expanduser().absolute()
    for here in (place, place.parent / place.name.rpartition("@")[0], place.parent.parent):
        if (here / "config.json").exists():
            return here
    return None
