"""A description of a run for a person to check before it spends hours."""

from __future__ import annotations

from vit_jax import partition
from vit_jax.models.build import count_params
from vit_jax.run.job import Job
from vit_jax.run.settle import Settled
from vit_jax.targets import Values
from vit_jax.types import DatasetSpec, counted

MOST = 4  # decisions shown per reason


def describe_plan(job: Job, flops: int, start_step: int) -> str:
    """Describes a run for a person to check before it starts; `flops` counts those of one training example."""
    config, parts, specs = job.config, job.parts, job.specs
    accumulation, mesh = parts.settings.accumulation or 1, parts.mesh
    h, w = config.data.resolution
    batch_size = config.data.batch_size
    micro = batch_size // (mesh.size * accumulation)
    num_params = count_params(parts.abstract.params)
    begun = f", from step {start_step}" if start_step else ""
    described: dict[str, list[str]] = {"model": [], "images": []}
    groups = parts.groups.describe(parts.abstract.params) if parts.groups else []
    for row, text in [*parts.model.describe((h, w)), *groups]:
        described.setdefault(row, []).append(text)
    dtype = f", {config.model.dtype}" if "dtype" in config.model else ""
    notes = [*dict.fromkeys(note for spec in specs for note in spec.notes), *described.pop("note", ())]
    mean = ", a mean over data.sizes" if config.data.sizes else ""
    rows = [
        ("devices", partition.describe_devices(mesh)),
        ("model", f"{' '.join([config.model.name, *described.pop('model')])}, {num_params:,} parameters{dtype}"),
        (
            "images",
            f"{': '.join([f'{h}x{w}', *described.pop('images')])}; {flops / 1e9:,.2f} GFLOP to train on one{mean}",
        ),
        *_sizes(job),
        ("batch", f"{batch_size} = {mesh.size} devices x {micro} x {accumulation} accumulation steps"),
        ("length", f"{job.total_steps} steps = {job.total_steps / job.steps_per_epoch:.1f} epochs{begun}"),
        *((row, ", ".join(texts)) for row, texts in described.items()),
        *((s.name, f"{s.split}: {_examples(s)}, {counted(s.num_classes, _noun(s))}{_class_counts(s)}") for s in specs),
    ]
    rows += [("settled", text) for text in _decisions(job.settled)]
    lines = [f"  {name:<10} {text}" for name, text in dict.fromkeys(rows)]
    lines += [f"  note: {note}" for note in notes]
    return "\n".join(lines)


def for_sizes(job: Job) -> str:
    """` for 2 sizes of images, a program each`; "" for a run of one size."""
    count = len(set(job.sizes))
    return f" for {count} sizes of images, a program each" if count > 1 else ""


def _sizes(job: Job) -> list[tuple[str, str]]:
    """The row of a run whose training batches differ in size."""
    if not job.config.data.sizes:
        return []
    listed, count = ", ".join(f"{h}x{w}" for h, w in job.sizes), counted(len(set(job.sizes)), "program")
    return [("sizes", f"{listed}: training batches take each once in {counted(len(job.sizes), 'step')}; {count}")]


def _decisions(settled: list[Settled]) -> list[str]:
    """A line for each reason: `model.dtype float32, model.scan True: suits the device, a CPU`."""
    by_reason: dict[str, list[str]] = {}
    for decision in settled:
        by_reason.setdefault(decision.why, []).append(f"{decision.key} {decision.value}")
    few = {why: keys[:MOST] + [f"{len(keys) - MOST} more"] * (len(keys) > MOST) for why, keys in by_reason.items()}
    return [f"{', '.join(keys)}: {why}" for why, keys in few.items()]


def _examples(spec: DatasetSpec) -> str:
    excluded = f" ({spec.num_excluded:,} more are excluded)" if spec.num_excluded else ""
    return f"{counted(spec.num_examples, 'example')}{excluded}"


def _noun(spec: DatasetSpec) -> str:
    return "value" if isinstance(spec.target, Values) else "class"


def _class_counts(spec: DatasetSpec) -> str:
    """`: cat 12, dog 30`; for many classes, only the smallest and the largest; "" if the counts are unknown."""
    pairs = sorted(zip(spec.class_counts, spec.class_names, strict=False))
    if len(pairs) > 10:
        return f", of {pairs[0][0]:,} ({pairs[0][1]}) to {pairs[-1][0]:,} examples ({pairs[-1][1]})"
    named = ", ".join(f"{name} {count:,}" for name, count in zip(spec.class_names, spec.class_counts, strict=False))
    return f": {named}" if named else ""
