"""The quickstart's two runs and their table; `quickstart.sh` installs and calls this.

python scripts/quickstart.py [--workdir=runs/quickstart] [--config.KEY=VALUE for both phases]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax import config as configs
from vit_jax.main import parse_command_line
from vit_jax.process import EXIT_INTERRUPTED, begin, finish, first_paragraph, prepare_process, reports_user_errors

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "quickstart.py"


def table(scores: dict[str, dict[str, float]]) -> str:
    """One table: a row per phase and kind of weights, top-1 and few-shot accuracies in percent."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="Digits: accuracy on the 360 held-out test images", title_style="bold")
    shown.add_column("trained")
    shown.add_column("weights")
    columns = {
        "top-1": "digits/top1",
        "1-shot": "fewshot/1shot",
        "5-shot": "fewshot/5shot",
        "10-shot": "fewshot/10shot",
    }
    for name in columns:
        shown.add_column(name, justify="right")
    for phase, found in scores.items():
        for weights, kind in (("raw", "eval"), ("averaged", "eval_average")):
            shown.add_row(phase, weights, *(f"{found[f'{kind}/{key}']:.2%}" for key in columns.values()))
    console = Console(width=80)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__), allow_abbrev=False)
    parser.add_argument(
        "--workdir", default="runs/quickstart", help="where both runs go; again on the same one resumes"
    )
    flags, overrides = parse_command_line(sys.argv[1:], parser)
    from vit_jax.run import run
    from vit_jax.tools.curves import plot_curves
    from vit_jax.train.loop import Interrupted

    prepare_process()
    workdir = Path(flags.workdir)
    folders = {"pre-trained, 16x16": workdir / "pretrain", "fine-tuned, 20x20": workdir / "finetune"}
    pretrain, finetune = folders.values()
    scores = {}
    for title, folder, spec in (
        ("pre-trained, 16x16", pretrain, f"{CONFIG}:pretrain"),
        ("fine-tuned, 20x20", finetune, f"{CONFIG}:finetune,init={pretrain}"),
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


if __name__ == "__main__":
    begin()
    finish(main)
