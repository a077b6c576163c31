"""A model of the memory that a training step takes on an accelerator, and the keys that memory decides.

The forward pass is traced on shapes, which gives the bytes that it keeps for the backward pass under each policy. Compilers
then lay arrays out in tiles, merge some and compute others again: the factors below are fitted to compiled programs.
docs/scale.md compares this model with compiled programs; it is within a fifth of them, mostly above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vit_jax.config import Config
from vit_jax.run.settle import BEGAN, SCAN_LAYERS, Facts, Settled, suits

# Shares of a device's memory: of state and gradients, which train.fsdp splits, and of all that a step takes.
STATE_SHARE, STEP_SHARE = 0.25, 0.6
# Bytes in a compiled program for each byte that the trace keeps. A TPU pads scanned arrays to tiles; of unrolled layers its
# compiler computes a part again, and a GPU's does not.
KEPT_SCANNED, KEPT_UNROLLED = 1.25, {"tpu": 0.9, "gpu": 1.25}
# While a layer runs backward, its arrays and their gradients are alive: bytes for each byte that the layer keeps.
WORK = 1.25
# float32 bytes of a logit, its loss and its gradient.
LOGIT = 12


class Demand(NamedTuple):
    """The sizes that the memory of a step follows from.

    Args:
      state: bytes of parameters, optimizer state and average.
      params: bytes of the parameters, which are float32.
      kept: (model.scan, model.remat) -> bytes that the forward pass keeps of an image for the backward pass.
      layers: number of layers.
      classes: number of classes.
      half: whether layers compute in 16 bits.
      backend: `tpu` or `gpu`.
    """

    state: int
    params: int
    kept: Callable[[bool, str], int]
    layers: int = 12
    classes: int = 0
    half: bool = True
    backend: str = "tpu"


class Choice(NamedTuple):
    """The keys that memory decides."""

    fsdp: int = 1
    scan: bool = False
    remat: str = "none"
    accumulation: int = 1


class Memory(NamedTuple):
    """Bytes of a device's memory, by kind."""

    state: float
    gradients: float
    activations: float
    temporaries: float

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self)


def estimate(demand: Demand, choice: Choice, images: int) -> Memory:
    """The memory that a step takes on a device; `images` of a batch are the device's."""
    fsdp, scan, remat, accumulation = choice
    micro = images / accumulation
    layer = demand.params / demand.layers
    padding = KEPT_SCANNED if scan else KEPT_UNROLLED.get(demand.backend, 1.25)
    temporaries = micro * (WORK * demand.kept(scan, "none") / demand.layers + LOGIT * demand.classes)
    if scan and demand.half:
        temporaries += demand.params / 2 / fsdp  # XLA converts the kernels of all layers to 16 bits before the loop
    if fsdp > 1:
        temporaries += 2 * layer  # a layer's whole parameters and their whole gradients
    return Memory(
        state=demand.state / fsdp,
        gradients=demand.params / fsdp * (1 if accumulation == 1 else 2),
        activations=padding * micro * demand.kept(scan, remat),
        temporaries=temporaries,
    )


def settle_memory(config: Config, facts: Facts, demand: Demand) -> tuple[Config, list[Settled]]:
    """Decides what is open of `train.fsdp`, and on an accelerator of `model.scan`, `model.remat` and `train.accumulation`.

    The choices are tried in the order of their cost: unrolled layers are the fastest; scanned ones, computed again in the
    backward pass, give the same numbers with the least memory; more micro-batches draw other dropout masks, so they come last.

    Args:
      config: settled by `settle`.
      facts: the same.
      demand: sizes of the model and its state.
    """
    draft = config.to_dict()
    model, train = draft["model"], draft["train"]
    decisions = list[Settled]()

    def decide(section: str, key: str, value: Any, why: str) -> None:
        if key in draft[section] and draft[section][key] is None:
            draft[section][key] = value
            decisions.append(Settled(f"{section}.{key}", value, why))

    fsdp, memory = train["fsdp"] or _split(facts, demand), facts.memory
    if memory is None:
        train["fsdp"] = fsdp
        return Config(draft), []
    state = (demand.state + demand.params) / 1e9
    decide("train", "fsdp", fsdp, f"state and gradients take {state:.1f} GB, and a device has {memory / 1e9:.1f} GB")
    if not facts.by_memory:
        return Config(draft), decisions
    images = draft["data"]["batch_size"] // facts.devices
    choices = [Choice(fsdp, *rest) for rest in _choices(draft, facts, images)]
    needs = [estimate(demand, choice, images).total for choice in choices]
    enough = max(STEP_SHARE * memory, 1.1 * min(needs))  # if nothing suffices, nearly the least
    chosen, need = next((choice, need) for choice, need in zip(choices, needs, strict=True) if need <= enough)
    why = f"{suits(facts.backend)}: a step takes about {need / 1e9:.1f} of {memory / 1e9:.1f} GB"
    if chosen != choices[0]:
        why += f"; the fastest would take {needs[0] / 1e9:.1f} GB"
    scan = BEGAN if facts.begun.get("scan") is not None else why
    decide("model", "scan", chosen.scan, scan)
    if chosen.remat == "none" and "remat" in model:
        model["remat"] = model["remat"] or "none"
    decide("model", "remat", chosen.remat, why)
    if chosen.accumulation == (facts.begun.get("accumulation") or 1):
        train["accumulation"] = chosen.accumulation
    decide("train", "accumulation", chosen.accumulation, why)
    return Config(draft), decisions


def _split(facts: Facts, demand: Demand) -> int:
    """The smallest split whose share of state and gradients leaves memory for activations, which no split changes.

    A smaller split needs less communication, and its shards stay long enough for a TPU's tiles of 8 x 128.
    """
    if facts.memory is None:
        return 1
    budget = STATE_SHARE * facts.memory
    return next((n for n in facts.splits if (demand.state + demand.params) / n <= budget), facts.splits[-1])


def _choices(draft: dict[str, Any], facts: Facts, images: int) -> Iterator[tuple[bool, str, int]]:
    """(scan, remat, accumulation) that the config and the run in the workdir leave, the cheapest first."""
    model, train = draft["model"], draft["train"]
    scan, remat = model.get("scan", False), model.get("remat", "none")
    if scan is None:
        scan = facts.begun.get("scan")
    deep = (model.get("depth") or 0) > SCAN_LAYERS  # its layers would compile for minutes
    accumulation = train["accumulation"] or facts.begun.get("accumulation")
    steps = [accumulation] if accumulation else [n for n in range(1, images + 1) if images % n == 0 and not n & (n - 1)]
    for n in steps or [1]:
        for policy in [remat] if remat else ["none", "block"]:
            # To compute a scanned layer again costs fewer cycles than to copy what it keeps (B/16 on v5e: 28 and 36 million).
            scanned = (deep or policy not in ("none", "dots")) if scan is None else scan
            if remat or policy == "block" or not scanned:
                yield scanned, policy, n
