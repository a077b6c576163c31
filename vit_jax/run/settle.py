"""Decides the keys that a config leaves open, from devices, data and checkpoint: `settle` is pure and gives its reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vit_jax import config as configs
from vit_jax.config import Config
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.convert.claims import SIZES, model_of
from vit_jax.convert.open import without_positions
from vit_jax.models.attention import Case, choose, refusal
from vit_jax.models.base import DEVICE, HEAD, IDENTITY, TRAINING, ImageModel, keys_of_role
from vit_jax.models.variants import describe_sizes
from vit_jax.run.initial import Init
from vit_jax.run.schema import SCHEMA
from vit_jax.types import UserError

# Keys that an evaluator takes from the data section if its own section leaves them open.
INHERITED = ("dataset", "data_dir", "exif", "resolution")
# Model keys that the device decides. If the device decided one, a run that moves to another device decides it again.
OF_DEVICES = ("dtype", "scan", "attention")
# What runs did before a config had these keys.
BEFORE = {"attention": "xla"}
# Of S/16 at batch 8 on 2 CPU cores (docs/benchmark.md): a scanned step is about a twentieth slower, an unrolled layer takes
# 0.25 s (warm cache) to 0.7 s longer to compile, and a step computes 1e11 floating-point operations a second.
SCAN_SLOWER, SCAN_COMPILES, CPU_FLOPS = 0.05, 0.4, 1e11
SCAN_LAYERS = 32  # on an accelerator: B/16's 12 layers compiled for 180 s (v5e), 50 s scanned
BEGAN = "as the run in the workdir began"

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
      begun: values of OF_DEVICES with which the run being resumed began on this kind of device, see `begun_with`.
      capability: compute capability of a CUDA GPU, 8.0 for Ampere; 0 if there is none.
      steps: optimizer steps of the run; 0 if the data cannot be opened.
      devices: number of devices.
      splits: the values of `train.fsdp` that they can be arranged for, from `partition.splits`.
      memory: bytes that a program may use on a device; None if unknown, as on a CPU.
    """

    backend: str
    num_classes: int = 0
    data: str = "the data"
    checkpoint: Checkpoint | None = None
    resumed: Mapping[str, Any] | None = None
    begun: Mapping[str, Any] = {}
    capability: float = 0.0
    steps: int = 0
    devices: int = 1
    splits: Sequence[int] = (1,)
    memory: int | None = None

    @property
    def by_memory(self) -> bool:
        """Whether `memory.settle_memory` decides `model.scan`, `model.remat` and `train.accumulation`."""
        return self.memory is not None and self.backend != "cpu"


def suits(backend: str) -> str:
    """The beginning of each reason that names the device; `begun_with` reads it back from settled.json."""
    return f"suits the device, a {backend.upper()}"


def begun_with(saved: Mapping[str, Any], reasons: Mapping[str, str], backend: str) -> dict[str, Any]:
    """The values that a resumed run keeps: those of OF_DEVICES that this kind of device decided, those of older versions, and
    `train.accumulation`, which dropout masks follow.

    Args:
      saved: the config with which the run began.
      reasons: {key: reason} of the decisions that the run saved; empty for a run of an older version.
      backend: today's device.
    """
    here, older = suits(backend), ("attention",) if reasons else ("attention", "scan")
    model = saved["model"]
    decided = {key: reasons.get(f"model.{key}", here if key in older else "") for key in OF_DEVICES}
    kept = {key: model[key] for key, why in decided.items() if key in model and why.startswith(here)}
    return kept | {"accumulation": saved["train"]["accumulation"]}


def settle(config: Config, facts: Facts, by_hand: frozenset[str] = frozenset()) -> tuple[Config, list[Settled]]:
    """Decides everything that a resolved config leaves open.

    Args:
      config: resolved.
      facts: facts about devices, data and checkpoint.
      by_hand: keys that the user set on the command line, `model.num_heads`; they stay.

    Returns:
      The config, with None left only where `facts` decide nothing, and for `memory.settle_memory`; and the decisions about the
      model and data, in order.

    Raises:
      UserError: the checkpoint's model contradicts the config.
    """
    draft = config.to_dict()
    decisions = list[Settled]()

    def decide(section: str, key: str, value: Any, why: str) -> None:
        if draft[section].get(key) != value:
            draft[section][key] = value
            decisions.append(Settled(f"{section}.{key}", value, why))

    def decide_by_device(key: str, choice: Any, detail: str = "") -> None:
        if key in draft["model"] and draft["model"][key] is None:
            begun = key in facts.begun
            decide(
                "model", key, facts.begun[key] if begun else choice, BEGAN if begun else suits(facts.backend) + detail
            )

    decide_by_device("dtype", "float32" if facts.backend == "cpu" else "bfloat16")  # a CPU has no fast bfloat16
    if config.init.path:
        _follow_checkpoint(draft, facts, by_hand, decide)
    module = _build(draft["model"])
    if not facts.by_memory:
        decide_by_device("scan", *_scan(module, draft, facts))
        if draft["model"].get("remat", "") is None:
            draft["model"]["remat"] = "none"
        if draft["train"]["accumulation"] is None:
            draft["train"]["accumulation"] = facts.begun.get("accumulation", 1)
    if (case := _attends(module, draft, facts)) is not None and draft["model"].get("attention", "") is None:
        begun = facts.begun.get("attention")
        core, why = choose(case) if begun is None or refusal(begun, case) else (begun, BEGAN)
        decide("model", "attention", core, why if why == BEGAN else f"{suits(facts.backend)}: {why}")
    if draft["model"]["num_classes"] is None and not module.classifies:
        draft["model"]["num_classes"] = 0
    elif draft["model"]["num_classes"] is None and facts.num_classes:
        decide("model", "num_classes", facts.num_classes, f"{facts.data} has as many")
    for section in draft["evals"].values():
        for key in INHERITED:
            if key in section and section[key] is None:
                section[key] = draft["data"][key]
        if "likelihood" in section and section["likelihood"] is None:
            section["likelihood"] = "sigmoid" if config.objective.name == "sigmoid" else "softmax"
    return Config(draft), decisions


def _build(model: Mapping[str, Any]) -> ImageModel:
    """The model of a section that may leave keys open."""
    known = {key: value for key, value in model.items() if value is not None}
    return configs.build(model_of(model["name"]), {"num_classes": 0, **known})


def _scan(module: ImageModel, draft: Mapping[str, Any], facts: Facts) -> tuple[bool, str]:
    """Whether a model's layers are scanned, and the reason: a scanned step is slower, and compiles faster."""
    model, data = draft["model"], draft["data"]
    layers = model.get("depth") or 0
    if facts.backend != "cpu":
        if layers > SCAN_LAYERS:
            return True, f": {layers} unrolled layers would compile for minutes"
        if model.get("remat") in ("block", "offload"):
            return True, f": with model.remat={model['remat']}, memory counts more than speed"
        return False, ": unrolled steps are faster"
    cost = SCAN_COMPILES * layers * max(len(set(data["sizes"])), 1)  # a program for each size
    flops = 0.0
    with contextlib.suppress(ZeroDivisionError):  # a size of 0 is refused when the model is built
        flops = module.layers_flops(data["resolution"]) * data["batch_size"]
    if SCAN_SLOWER * facts.steps * flops / CPU_FLOPS > cost:
        return (
            False,
            f": over {facts.steps} steps, faster steps save more than the {cost:.0f} s of compilation that they cost",
        )
    return True, f": scanned layers compile {cost:.0f} s faster" + (
        f", and {facts.steps} steps are few" if facts.steps else ""
    )


def _attends(module: ImageModel, draft: Mapping[str, Any], facts: Facts) -> Case | None:
    """The attention of a model on today's device; None if the model has no choice of cores."""
    with contextlib.suppress(ZeroDivisionError):  # see `_scan`
        case = module.attends(draft["data"]["resolution"])
        return case and case._replace(backend=facts.backend, capability=facts.capability)
    return None


def check_attention(config: Config, facts: Facts) -> None:
    """Refuses a core of attention that the model and the device cannot have.

    Raises:
      UserError: the reason.
    """
    case = _attends(_build(config.model), config.to_dict(), facts)
    if case is not None and (reason := refusal(config.model.attention, case)):
        raise UserError(
            f"config.model.attention is {config.model.attention!r}, which this run cannot have: {reason}; leave it out, and the "
            f"run takes {choose(case)[0]!r}"
        )


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
    own = draft["model"]["name"]
    if _are_related(own, fields["name"]):  # a classifier starts a detector, or the reverse
        fields = {key: x for key, x in fields.items() if key in configs.hints(model_of(own))} | {"name": own}
    kind = model_of(fields["name"])
    training, head, identity = (keys_of_role(kind, role) for role in (TRAINING, HEAD, IDENTITY))
    skip = training | keys_of_role(kind, DEVICE) | (head if init.head == "zeros" else set())
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


def _are_related(name: str, other: str) -> bool:
    """Whether two models are different and share their encoder's parameters."""
    return name != other and model_of(name).family == model_of(other).family != ""


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
    related = _are_related(model["name"], fields["name"])
    if differing := [key for key in other if key not in head and not (related and key == "name")]:
        leave = "`variant` out of --config"
        if whole:
            leave = " and ".join(f"--config.model.{key}" for key in differing) + " out"
        raise UserError(
            f"config.model is {describe_sizes(fields | spelt)}, and the model of {init.path} is "
            f"{describe_sizes(fields)}; leave {leave}, and the model is the checkpoint's"
        )
    decided = "model.positions" in by_hand or (
        not whole and model.get("positions") in ("none", "sincos_2d", "sincos_centred")
    )
    if "positions" in checkpoint.undecided and not decided:
        raise UserError(f"{without_positions(init.path)}; set --config.model.positions to one of them")


def _suit_resolution(
    draft: dict[str, Any], init: Init, checkpoint: Checkpoint | None, by_hand: frozenset[str], decide: Decide
) -> None:
    """Changes the image size to one that the adopted model accepts; a Mixer accepts only one."""
    old, section = tuple(draft["data"]["resolution"]), draft["model"]
    model = _build(section)
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
