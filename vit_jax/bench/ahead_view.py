"""A plan for devices that are not here, as text and as a picture."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_jax.types import counted

GIB = 2**30


def describe(plan: Mapping[str, Any]) -> str:
    """The plan for a person to read; `plan` is of `bench.plan.plan` and `ahead.compile_for`."""
    rows = [
        ("config", plan["config"]),
        (
            "model",
            f"{plan['model']}, {plan['params']:,} parameters, {plan['tokens']} tokens an image of "
            f"{'x'.join(map(str, plan['resolution']))}, {plan['train_flops_per_image'] / 1e9:,.1f} GFLOP to train on one",
        ),
        ("devices", plan["devices"]),
        ("batch", f"{plan['batch_size']:,}"),
        *(("settled", text) for text in _decisions(plan["settled"])),
        ("memory", _memory(plan)),
    ]
    kinds = ", ".join(f"{kind} {_gib(size)}" for kind, size in plan["memory_by_kind"].items())
    rows.append(("", f"{kinds} GiB"))
    if plan["largest_batch"] is not None:
        rows.append(("largest", f"batch {plan['largest_batch']:,} fits with the same settings"))
    rows.append(("FLOPs", f"{plan['flops_per_device'] / 1e12:,.2f} T a device and step, recomputation included"))
    rows += _collectives(plan)
    rows += _time(plan)
    return "\n".join(f"  {name:<11} {text}" for name, text in rows)


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f}"


def _decisions(settled: list[list[Any]]) -> list[str]:
    """A line for each reason."""
    reasons: dict[str, list[str]] = {}
    for key, value, why in settled:
        reasons.setdefault(why, []).append(f"{key} {value}")
    return [f"{', '.join(keys)}: {why}" for why, keys in reasons.items()]


def _memory(plan: Mapping[str, Any]) -> str:
    hbm, peak = plan["hbm_bytes_per_chip"], plan["peak_bytes_per_chip"]
    share = f"{_gib(peak)} of a device's {_gib(hbm)} GiB, {peak / hbm:.0%} ({plan['peak_is']})"
    return f"fits: {share}" if plan["fits"] else f"does not fit, {_gib(peak - hbm)} GiB are missing: {share}"


def _collectives(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for found in plan.get("collectives", ())[:6]:
        hidden = "while the device computes" if found["hidden"] else "while the device waits"
        rows.append(
            f"{found['kind']} of {found['bytes'] / 1e6:,.1f} MB in {found['dtype']}, {counted(found['runs'], 'run')}, {hidden}"
        )
    return [("collectives" if i == 0 else "", row) for i, row in enumerate(rows)]


def _time(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a program that was compiled to the end; all are estimates."""
    rows = []
    if cycles := plan.get("cycles_by_part"):
        rows.append(("cycles", f"{plan['estimated_cycles'] / 1e6:,.1f} million a step, estimated by the compiler:"))
        rows += [("", row) for row in _shares(cycles, 1e6, "million")]
    if moved := plan.get("bytes_moved_by_part"):
        rows.append(
            ("traffic", f"{plan['bytes_moved'] / 1e9:,.1f} GB a step by {plan['kernels']:,} kernels, caches left out:")
        )
        rows += [("", row) for row in _shares(moved, 1e9, "GB")]
    if "estimated_step_s" not in plan:
        return rows
    basis = "cycles" if cycles else "traffic"
    text = f"{1000 * plan['estimated_step_s']:,.1f} ms a step, {plan['estimated_mfu']:.1%} of the peak"
    rows.append(("time", f"about {text}: an estimate from {basis}, without collectives and overlap"))
    if "steps" in plan:
        paper = plan["paper_tpuv3_core_days"]
        beside = f"; the paper's took {paper:,} TPUv3-core-days" if paper else ""
        days = plan["estimated_core_days"]
        text = f"{plan['steps']:,} steps in about {plan['estimated_chip_hours']:,.0f} chip-hours"
        text += f"{'' if days is None else f' or {days:,.0f} core-days'} (estimates){beside}"
        rows.append(("schedule", text))
    return rows


def _shares(parts: Mapping[str, int], unit: float, name: str) -> list[str]:
    total = sum(parts.values())
    return [
        f"{part:<34} {size / unit:>8,.1f} {name} {size / total:>5.0%}"
        for part, size in parts.items()
        if size > total / 200
    ]


def plot(plan: Mapping[str, Any], to: str | os.PathLike[str]) -> None:
    """Draws memory by kind, time (or traffic) by part and collectives as a PNG; what was not compiled to the end is left out."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from vit_jax.metrics.curves import COLORS, STYLE

    memory = {kind: size / GIB for kind, size in plan["memory_by_kind"].items()}
    panels = [("memory of a device, GiB", memory)]
    if cycles := plan.get("cycles_by_part"):
        panels.append(("estimated cycles of a step, million", {part: x / 1e6 for part, x in cycles.items()}))
    if moved := plan.get("bytes_moved_by_part"):
        panels.append(("bytes moved in a step, GB", {part: x / 1e9 for part, x in moved.items()}))
    if collectives := plan.get("collectives"):
        kinds: dict[str, float] = {}
        for found in collectives:
            name = f"{found['kind']}, {found['dtype']}{'' if found['hidden'] else ', not hidden'}"
            kinds[name] = kinds.get(name, 0) + found["bytes"] / 1e6
        panels.append(("collectives of a step, MB", kinds))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(panels), 3.4), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        title = re.sub(r"^.*/(?=\w+\.py)", "", plan["config"])
        figure.suptitle(f"{title} on {plan['topology']}", fontweight="bold")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, color, (label, values) in zip(axes, COLORS, panels, strict=False):
            bars = ax.barh(list(values), list(values.values()), color=color)
            ax.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=8)
            ax.invert_yaxis()
            ax.margins(x=0.16)
            ax.set_xlabel(label)
        axes[0].set_title(
            f"{_gib(plan['peak_bytes_per_chip'])} of {_gib(plan['hbm_bytes_per_chip'])} GiB: "
            f"{'fits' if plan['fits'] else 'does not fit'}",
            fontsize=10,
        )
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(os.fspath(to), format="png")
