"""Times training or inference of a config on random images of its real shape, without its data set; or its input pipeline.

`--mode=data` reads, decodes, augments and batches the config's training split (or `--jpegs` photographs of 500x375, cut from
two that scikit-learn ships) and prints images/s, images per CPU-second, time to the first batch and memory. `--compare`
measures vit_jax, tf.data (`decode_and_crop_jpeg`, bilinear without antialias) and a PyTorch DataLoader with Pillow in turns, and
prints a Markdown table of medians; the other two need an environment of their own (requirements-benchmark.txt).

The other modes print median and quartile step time, images/s, time to the first step (from the config; and from the start of the
process), peak memory, FLOPs per image, and on a known accelerator in bf16 the share of its peak. Config overrides work as in
`vit_jax train`: `--config.model.dtype=float32`, `--config.data.resolution=224`. `--batches=8+` doubles the batch until memory is
full, and prints and draws images/s, share of peak and memory against the batch size.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from vit_jax.cli.flags import Parser, parse_command_line
from vit_jax.process import reports_user_errors, set_up_process
from vit_jax.types import UserError

EXAMPLES = """
vit_jax bench --mode=train --config=configs/pretrain.py:variant=S/16,dataset=imagenet2012 --batch=8 --json
vit_jax bench --mode=infer --config=configs/finetune.py:variant=B/16,dataset=cifar10 --batch=32
vit_jax bench --mode=train --config=configs/pretrain.py:variant=S/16,dataset=imagenet2012 --batches=8+ --plot=s16.png
vit_jax bench --mode=data --config=configs/pretrain.py:dataset=imagenet2012 --batch=256 --json
vit_jax bench --mode=data --config=configs/pretrain.py:dataset=imagenet2012 --batch=64 --jpegs=2000
vit_jax bench --mode=data --config=configs/pretrain.py:dataset=imagenet2012 --batch=64 --jpegs=2000 \\
    --steps=50 --compare --peer-python=peers/bin/python
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("bench", EXAMPLES, __doc__)
    parser.add_argument("--mode", choices=("train", "infer", "data"), required=True)
    parser.add_argument("--config", required=True, help="config file and its arguments")
    parser.add_argument("--batch", type=int, default=0, help="global batch size")
    text = (
        "in place of --batch: several sizes, 8,16,32, or 8+ to double 8 until memory is full; prints a Markdown table"
    )
    parser.add_argument("--batches", default="", metavar="SIZES", help=text)
    parser.add_argument("--plot", default="", metavar="FILE.png", help="with --batches: a picture of the table")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, at least 10")
    parser.add_argument("--warmup", type=int, default=3, help="with --mode=data: batches before those that are timed")
    parser.add_argument("--jpegs", type=int, default=0, help="with --mode=data: photographs to make and read instead")
    parser.add_argument("--compare", action="store_true", help="with --jpegs: beside tf.data and PyTorch")
    parser.add_argument("--peer-python", default="", help="with --compare: the interpreter that has them")
    text = "with --compare: runs of each, of which the median counts"
    parser.add_argument("--rounds", type=int, default=5, help=text)
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags, overrides = parse_command_line(sys.argv[1:] if argv is None else argv, make_parser())
    if flags.steps < 10:
        raise UserError(f"--steps={flags.steps}: quartiles need at least 10 timed steps")
    if flags.jpegs and flags.mode != "data":
        raise UserError(f"--jpegs={flags.jpegs} goes with --mode=data; {flags.mode} makes its images in memory")
    if flags.compare and not flags.jpegs:
        raise UserError("--compare goes with --mode=data and --jpegs=N, the photographs that all of them read")
    if bool(flags.batch) == bool(flags.batches) or (flags.batches and flags.mode == "data"):
        raise UserError("expected --batch=SIZE, or, with --mode=train or infer, --batches=SIZES")
    if flags.batches:
        return sweep(flags, overrides)
    result = measure(flags, overrides)
    if flags.json:
        print(json.dumps(result))
    elif flags.compare:
        from vit_jax.bench.peers import to_markdown

        print(to_markdown(result))
    else:
        width = max(map(len, result))
        print("\n".join(f"{key:<{width}}  {value}" for key, value in result.items()))
    return 0


def sweep(flags: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    """Measures several batch sizes, and prints the table of those that fit."""
    from vit_jax.bench import batches

    sizes, double = batches.parse_sizes(flags.batches)
    words = [f"--mode={flags.mode}", f"--config={flags.config}", f"--steps={flags.steps}"]
    alone = batches.measure_alone([*words, *(f"--config.{key}={value}" for key, value in overrides)])
    rows: list[Any] = []
    for row in batches.sweep(sizes, double, alone, batches.free_memory()):
        rows.append(row)
        print(f"batch {row['batch_size']}: {row['images_per_s']:,.1f} images/s", file=sys.stderr, flush=True)
    if not rows:
        raise UserError(f"batch {sizes[0]} does not fit into memory; give smaller ones")
    print(json.dumps(rows) if flags.json else batches.to_markdown(rows))
    if flags.plot:
        batches.plot(rows, f"{flags.config}, {rows[0]['num_devices']} x {rows[0]['device']}", flags.plot)
    return 0


def measure(flags: argparse.Namespace, overrides: list[tuple[str, str]]) -> dict[str, Any]:
    """Makes the call that the flags select."""
    shape = {"batch_size": flags.batch, "steps": flags.steps}
    if flags.mode == "data":
        from vit_jax.bench import pipeline

        shape["jpegs"] = flags.jpegs
        if not flags.compare:
            return pipeline.measure_data(flags.config, overrides, **shape, warmup=flags.warmup)
        peer, rounds = flags.peer_python, flags.rounds
        return pipeline.compare(flags.config, overrides, **shape, peer_python=peer, rounds=rounds)
    set_up_process()
    from vit_jax.bench.step import measure_step

    return measure_step(flags.mode, flags.config, overrides, **shape)
