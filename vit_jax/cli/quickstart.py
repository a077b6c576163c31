"""The quickstart's two runs and their table: pre-trains a small model on real digits, fine-tunes it at a higher resolution.

`--config.key=value` applies to both phases.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from vit_jax import config as configs
from vit_jax.cli.flags import Parser, parse_command_line
from vit_jax.process import EXIT_INTERRUPTED, reports_user_errors, set_up_process
from vit_jax.remote import is_url
from vit_jax.types import UserError

EXAMPLES = "vit_jax quickstart --workdir=runs/quickstart"


def interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% interval of a share observed on `count` images. Source: Wilson 1927, the score interval."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half


def table(scores: dict[str, dict[str, float]]) -> str:
    """One table with a row per phase and kind of weights: top-1 with its interval and few-shot accuracies, in percent."""
    from rich.console import Console
    from rich.table import Table

    count = int(next(iter(scores.values()))["eval/digits/num_examples"])
    shown = Table(title=f"Digits: accuracy on {count:,} held-out images", title_style="bold")
    shots = ("1shot", "5shot")  # 10shot is in the record only: the table fits a terminal
    for name in ("trained", "weights"):
        shown.add_column(name)
    for name in ("top-1", "95% interval", *(shot.replace("shot", "-shot") for shot in shots)):
        shown.add_column(name, justify="right")
    for phase, metrics in scores.items():
        for weights, kind in (("raw", "eval"), ("averaged", "eval_average")):
            top1 = metrics[f"{kind}/digits/top1"]
            low, high = interval(top1, count)
            few = (f"{metrics[f'{kind}/fewshot/{shot}']:.1%}" for shot in shots)
            shown.add_row(phase, weights, f"{top1:.1%}", f"{100 * low:.1f} to {high:.1%}", *few)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("quickstart", EXAMPLES, __doc__)
    text = "where both runs go; again on the same one resumes"
    parser.add_argument("--workdir", default="runs/quickstart", help=text)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    began = time.perf_counter()
    flags, overrides = parse_command_line(sys.argv[1:] if argv is None else argv, make_parser())
    from vit_jax.metrics.curves import plot_curves
    from vit_jax.run import run
    from vit_jax.train.loop import Interrupted

    if is_url(flags.workdir):
        raise UserError(
            f"--workdir={flags.workdir}: the quickstart writes to a local folder; `vit_jax train` takes URLs"
        )
    set_up_process()
    workdir = Path(flags.workdir)
    folders = {"pre-trained, 16x16": workdir / "pretrain", "fine-tuned, 32x32": workdir / "finetune"}
    pretrain, finetune = folders.values()
    scores = {}
    for title, folder, spec in (
        ("pre-trained, 16x16", pretrain, "quickstart:pretrain"),
        ("fine-tuned, 32x32", finetune, f"quickstart:finetune,init={pretrain}"),
    ):
        print(f"\n== {title}: {folder}", flush=True)
        try:
            scores[title] = run(configs.load(spec), folder, overrides=overrides).scores
        except Interrupted as stopped:
            print(stopped)
            return EXIT_INTERRUPTED
    plot_curves({title: folder / "metrics.jsonl" for title, folder in folders.items()}, workdir / "curves.png")
    print("\n" + table(scores))
    print(f"curves: {workdir / 'curves.png'}; {time.perf_counter() - began:.0f} s in all")
    return 0
