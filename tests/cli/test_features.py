"""`vit_jax features`: flags reach the library, and images that do not decode are named."""

import pytest

from vit_jax.cli import features
from vit_jax.cli.flags import track
from vit_jax.features import Written


@pytest.fixture
def asked(monkeypatch):
    """What the library is asked for, and what it answers."""
    monkeypatch.setattr(features, "set_up_process", lambda: None)  # the process is the tests'
    calls = []
    done = Written("out", 1999, 3, 1, ["a/1.jpg"])
    monkeypatch.setattr(
        "vit_jax.features.write_features", lambda *words, **options: calls.append((words, options)) or done
    )
    return calls


def test_flags_reach_the_library_and_lost_images_are_named(asked, capsys):
    words = [
        "runs/mine",
        "--data=cifar10",
        "--split=test",
        "--to=out",
        "--layer=6",
        "--pool=mean",
        "--batch=8",
        "--half",
    ]
    assert features.main([*words, "--set", "resolution=8,8"]) == 0
    ((words, options),) = asked
    assert words == ("runs/mine", "cifar10", "out")
    assert list(options.pop("watch")([1, 2], 2)) == [1, 2]
    assert options == {
        **{"split": "test", "layer": "6", "pool": "mean", "format": "safetensors", "half": True, "recipe": ""},
        **{
            "data_dir": "",
            "batch_size": 8,
            "shard_size": 0,
            "max_corrupt": 100,
            "weights": "raw",
            "resolution": (8, 8),
        },
    }
    out, err = capsys.readouterr()
    assert out == "wrote features of 1,999 examples to out: 3 shards, 1 of them of an earlier run\n"
    assert err == "1 image left out, which do not decode:\n  a/1.jpg\n"


def test_no_bar_is_drawn_where_standard_error_is_no_terminal(capsys):
    assert list(track(range(3), 3, "shards")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
