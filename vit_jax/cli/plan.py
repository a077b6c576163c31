"""Shows a config's model and its cost, before anything is rented: no image is read, no parameter allocated.

Prints parameters, tokens per image, and FLOPs per image, forward and for training (forward, backward, and the recomputation of
remat): matrix products and convolutions of the traced program, with a multiply and an add counted as two. Overrides work as in
`vit_jax train`. The number of classes is the config's, else the data's, else (if the data is missing) 1,000; the line
classes_from says which.

With --topology, the training step is also compiled for a TPU, of which there need be none; it needs libtpu
(pip install 'vit_jax[tpu-aot]'). In seconds it says how much memory of a device the step needs, and whether it fits, with
train.fsdp, model.scan, model.remat and train.accumulation as a run there would settle them. --largest-batch looks for the
largest batch that fits. --cycles compiles to the end if it fits, which takes minutes (many for unrolled layers), and adds the
memory that the program takes, the compiler's estimate of a step's cycles by part, and what follows from it. For GPUs
(--topology=h100:8, pip install 'vit_jax[gpu-aot]') it always compiles to the end, and says how many bytes the kernels move.
"""

from __future__ import annotations

import json
import os
import sys
import time

from vit_jax.cli.flags import Parser, parse_command_line
from vit_jax.process import reports_user_errors
from vit_jax.types import UserError

EXAMPLES = """
vit_jax plan --config=configs/pretrain.py:variant=H/14,dataset=jft
vit_jax plan --config=configs/hybrid.py:variant=R50+B/16,dataset=imagenet21k --json
vit_jax plan --config=configs/pretrain.py:variant=H/14,dataset=jft --topology=v4:4x4x4 --cycles --plot=h14.png
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("plan", EXAMPLES, __doc__)
    parser.add_argument("--config", required=True, help="config file and its arguments")
    parser.add_argument(
        "--topology",
        default="",
        help="devices to compile the step for: v5e:4x4, v4:4x4x4, several slices, v5e:4x4,slices=2, or GPUs, h100:8",
    )
    parser.add_argument("--cycles", action="store_true", help="with --topology: also estimate the cycles of a step")
    text = "with --topology: also look for the largest batch that fits"
    parser.add_argument("--largest-batch", action="store_true", help=text)
    parser.add_argument("--plot", default="", metavar="FILE.png", help="with --topology: a picture of the plan")
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags, overrides = parse_command_line(sys.argv[1:] if argv is None else argv, make_parser())
    if not flags.topology and (flags.cycles or flags.largest_batch or flags.plot):
        raise UserError("--cycles, --largest-batch and --plot go with --topology, the devices to compile for")
    if flags.topology:  # plans for other devices; those attached stay free
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's compilers report that there is no device
    from vit_jax.bench.plan import plan

    result = plan(flags.config, overrides)
    if flags.topology:
        from vit_jax.bench.ahead import compile_for
        from vit_jax.bench.ahead_view import describe, plot

        began = time.perf_counter()

        def say(text: str) -> None:
            if not flags.json:
                print(f"{time.perf_counter() - began:4.0f} s  {text}", file=sys.stderr, flush=True)

        options = {"num_classes": result["num_classes"], "model_flops": result["train_flops_per_image"]}
        options |= {"cycles": flags.cycles, "largest": flags.largest_batch, "say": say}
        result |= compile_for(flags.config, overrides, flags.topology, **options)
        if flags.plot:
            plot(result, flags.plot)
        if not flags.json:
            print(describe(result))
            return 0
    if flags.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        for key, value in result.items():
            print(f"{key:<{width}}  {value:,}" if type(value) is int else f"{key:<{width}}  {value}")
    return 0
