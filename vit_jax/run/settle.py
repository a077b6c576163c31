"""Decides the keys that a config leaves open, from devices, data and checkpoint: `settle` is pure and gives its reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vit_jax import config as configs
from vit_jax.config import Config
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.convert.claims import SIZES, model_of
from vit_jax.convert.open import without_positions
from vit_jax.models.base import HEAD, IDENTITY, TRAINING, keys_of_role
from vit_jax.models.variants import describe_sizes
from vit_jax.run.initial import Init
from vit_jax.run.schema import SCHEMA
from vit_jax.types import UserError

# Keys that an evaluator takes from the data section if its own section leaves them open.
INHERITED = ("dataset", "data_dir", "exif", "resolution")
# Model keys that the device decides. If the device decided one, a run that moves to another device decides it again.
OF_DEVICES = ("dtype", "scan")


Decide = Callable[[str, str, Any, str], None]  # section, key, value, why


class Settled(NamedTuple):
    """A decision: its key (`model.dtype`), the value, and the reason."""

    key: str
    value: Any
    why: str


class Facts(NamedTuple):
    """The facts that decide the keys which a config leaves open.

    Args:
      backend: `cpu`, `gpu` or `tpu`.
      num_classes: number of classes of the training data; 0 if the data cannot be opened.
      data: the training data's name, for reasons.
      checkpoint: the opened checkpoint of `init`; None without `init`, and when a run resumes.
      resumed: the model section of the run being resumed, which already follows that run's checkpoint.
    """

    backend: str
    num_classes: int = 0
    data: str = "the data"
    checkpoint: Checkpoint | None = None
    resumed: Mapping[str, Any] | None = None


def settle(config: Config, facts: Facts, by_hand: frozenset[str] = frozenset()) -> tuple[Config, list[Settled]]:
    """Decides everything that a resolved config leaves open.

    Args:
      config: resolved.
      facts: facts about devices, data and checkpoint.
      by_hand: keys that the user set on the command line, `model.num_heads`; they stay.

    Returns:
      The config, with None left only where `facts` decide nothing; and the decisions about the model and data, in order.

    Raises:
      UserError: the checkpoint's model contradicts the config.
    """
    draft = config.to_dict()
    model, decisions = draft["model"], list[Settled]()

    def decide(section: str, key: str, value: Any, why: str) -> None:
        if draft[section].get(key) != value:
            draft[section][key] = value
            decisions.append(Settled(f"{section}.{key}", value, why))

    for key, choice in (
        ("dtype", "float32" if facts.backend == "cpu" else "bfloat16"),  # a CPU has no fast bfloat16
        ("scan", facts.backend == "cpu"),  # scanned layers compile in half the time, which slow devices notice
    ):
        if key in model and model[key] is None:
            decide("model", key, choice, f"suits the device, a {facts.backend.upper()}")
    if config.init.path:
        _follow_checkpoint(draft, facts, by_hand, decide)
    if draft["model"]["num_classes"] is None and facts.num_classes:
        decide("model", "num_classes", facts.num_classes, f"{facts.data} has as many")
    for section in draft["evals"].values():
        for key in INHERITED:
            if key in section and section[key] is None:
                section[key] = draft["data"][key]
        if "likelihood" in section and section["likelihood"] is None:
            section["likelihood"] = "sigmoid" if config.objective.name == "sigmoid" else "softmax"
    return Config(draft), decisions


def _follow_checkpoint(draft: dict[str, Any], facts: Facts, by_hand: frozenset[str], decide: Decide) -> None:
    """Writes the model settings of the `init` checkpoint into the model section.

    Raises:
      UserError: the checkpoint contradicts the config, or its patches do not divide a resolution set by hand.
    """
    init = configs.build(Init, draft["init"])
    whole = init.architecture == "source"
    if facts.checkpoint is not None:
        fields = facts.checkpoint.settings
        _check_model(draft["model"], init, facts.checkpoint, by_hand)
    elif facts.resumed is not None:
        fields = {key: tuple(x) if isinstance(x, list) else x for key, x in facts.resumed.items()}
    else:
        return
    kind = model_of(fields["name"])
    training, head, identity = (keys_of_role(kind, role) for role in (TRAINING, HEAD, IDENTITY))
    skip = training | (head if init.head == "zeros" else set())
    # Fields of role IDENTITY come from the checkpoint even if the config gives all sizes.
    adopted = {
        key: x
        for key, x in fields.items()
        if key not in skip and f"model.{key}" not in by_hand and (whole or key in identity)
    }
    why = f"as {init.path} was trained"
    if whole:
        known = {"name", *configs.hints(kind)}
        draft["model"] = {key: value for key, value in draft["model"].items() if key in known}
    for key, value in adopted.items():
        if whole or key in draft["model"]:
            decide("model", key, value, why)
    if whole:
        _suit_resolution(draft, init, facts.checkpoint, by_hand, decide)
    filled = configs.Draft(draft["model"])
    if errors := SCHEMA["model"].fill(filled, "model"):
        raise UserError("\n".join(errors))
    draft["model"] = filled.to_dict()


def _check_model(model: Mapping[str, Any], init: Init, checkpoint: Checkpoint, by_hand: frozenset[str]) -> None:
    """Refuses a checkpoint whose model differs from the config's, or whose position embeddings need a key that is not set.

    Raises:
      UserError: names both models and the key to leave out, or the key to set.
    """
    whole = init.architecture == "source"
    fields = ({"stem": "none"} if checkpoint.settings["name"] == "vit" else {}) | checkpoint.settings
    spelt = {key: x for key, x in model.items() if not whole or f"model.{key}" in by_hand}
    other = [key for key in SIZES if key in spelt and key in fields and spelt[key] != fields[key]]
    head = keys_of_role(model_of(fields["name"]), HEAD)
    if differing := [key for key in other if key not in head]:
        leave = "`variant` out of --config"
        if whole:
            leave = " and ".join(f"--config.model.{key}" for key in differing) + " out"
        raise UserError(
            f"config.model is {describe_sizes(fields | spelt)}, and the model of {init.path} is "
            f"{describe_sizes(fields)}; leave {leave}, and the model is the checkpoint's"
        )
    decided = "model.positions" in by_hand or (not whole and model.get("positions") in ("none", "sincos_2d"))
    if "positions" in checkpoint.undecided and not decided:
        raise UserError(f"{without_positions(init.path)}; set --config.model.positions to one of them")


def _suit_resolution(
    draft: dict[str, Any], init: Init, checkpoint: Checkpoint | None, by_hand: frozenset[str], decide: Decide
) -> None:
    """Changes the image size to one that the adopted model accepts; a Mixer accepts only one."""
    old, section = tuple(draft["data"]["resolution"]), draft["model"]
    model = configs.build(model_of(section["name"]), section | {"num_classes": section["num_classes"] or 0})
    only = checkpoint.grid if section["name"] == "mixer" and checkpoint is not None else None
    new = model.pixels(only) if only else model.suit(old)
    if new != old and "data.resolution" in by_hand:
        raise UserError(
            f"config.data.resolution is {old[0]}x{old[1]}, and the model of {init.path} takes {new[0]}x{new[1]}; set that, or "
            "leave it out"
        )
    decide("data", "resolution", new, f"the model of {init.path} takes it")
    for section in draft["evals"].values():
        if tuple(section.get("resolution") or ()) == old:
            section["resolution"] = new
