"""`vit_jax plan`: the cost of a config without its data, as lines and as JSON."""

import json

import pytest

from vit_jax.cli.plan import main


@pytest.mark.slow
def test_a_config_is_priced_without_its_data(capsys):
    assert main(["--config=configs/pretrain.py:variant=H/14,dataset=imagenet2012", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    # H/14 with 1,000 classes (semantics: 632,045,800) and the tanh layer of 1280 x 1280 + 1280.
    assert plan["params"] == 632_045_800 + 1280 * 1281
    assert plan["tokens"] == 257
    # By hand: per layer and token 2 x (4 x 1280^2 + 2 x 1280 x 5120) and 4 x 257 x 1280 for attention; patches; head.
    layers = 32 * 257 * (2 * (4 * 1280**2 + 2 * 1280 * 5120) + 4 * 257 * 1280)
    by_hand = layers + 256 * 2 * 14 * 14 * 3 * 1280 + 2 * 1280**2 + 2 * 1280 * 1000
    assert plan["forward_flops_per_image"] == by_hand
    assert plan["train_flops_per_image"] == pytest.approx(3 * by_hand, rel=0.005)


@pytest.mark.slow
def test_lines_have_thousands_and_overrides_count(capsys):
    words = ["--config=configs/pretrain.py:variant=Ti/16,dataset=imagenet2012", "--config.model.depth=1"]
    assert main([*words, "--config.model.representation_size=0"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    # Patches, positions and class token, one block of width 192 with its norms, the last norm, 1,000 classes.
    block = 4 * (192 * 192 + 192) + (192 * 768 + 768) + (768 * 192 + 192) + 4 * 192
    by_hand = (16 * 16 * 3 * 192 + 192) + 197 * 192 + 192 + block + 2 * 192 + 192 * 1000 + 1000
    assert lines["params"] == f"{by_hand:,}"
    assert main([*words, "--config.model.dpeth=1"]) == 2
    assert "config.model.dpeth does not exist; did you mean 'depth'?" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--cycles", "--largest-batch", "--plot=plan.png"])
def test_what_only_a_compiler_knows_needs_a_topology(capsys, flag):
    assert main(["--config=configs/pretrain.py:variant=Ti/16,dataset=imagenet2012", flag]) == 2
    assert "go with --topology, the devices to compile for" in capsys.readouterr().err
