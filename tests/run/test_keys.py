"""`vit_jax train --help --config=SPEC`: every key with its value, its type in words and its line of a docstring."""

import itertools

from vit_jax.cli.train import main
from vit_jax.run.keys import describe_keys


def test_every_key_is_listed_with_its_type_in_words_and_its_line(capsys):
    assert main(["--help", "--config=quickstart:pretrain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sections = ["model", "data", "objective", "optim", "train", "evals.digits", "evals.fewshot", "checkpoint", "init"]
    expected = [*(f"--config.{name}." for name in sections), "--config."]
    assert [line for line in lines if line.startswith("--config.")] == expected
    after = dict(itertools.pairwise(lines))
    assert after["  patch_size=4,4"].startswith("      two integers, 4,6: (h, w) of a patch")
    assert after["  momentum=0.9"] == "      a number: SGD's, not Nesterov."
    assert after["  b2=0.999"] == "      a number: Adam's decay rates."
    assert after["  keep_best=0"].startswith("      an integer: checkpoints with the best `best_metric`")
    assert not [line for line in lines if "tuple[" in line or "Annotated" in line or "typing" in line]


def test_every_key_of_a_shipped_config_has_a_line():
    lines = describe_keys("finetune:variant=B/16,dataset=cifar10").splitlines()
    keys = [i for i, line in enumerate(lines) if line.startswith("  ") and line[2] != " "]
    missing = [lines[i] for i in keys if ": " not in lines[i + 1] and not lines[i].startswith(("  name=", "  seed="))]
    assert missing == []
