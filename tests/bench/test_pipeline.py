"""The timing of an input pipeline: which commands are compared, and what a measurement of photographs reads."""

import subprocess
import sys
from pathlib import Path

import pytest

from vit_jax.bench import pipeline
from vit_jax.bench.pipeline import compare, compared, measure_data
from vit_jax.types import UserError

SPEC = f"{Path(__file__).resolve().parents[2]}/configs/pretrain.py:variant=Ti/16,dataset=imagenet2012"
SMALL = [("data.resolution", "(16, 16)"), ("data.workers", "0"), ("data.threads", "1")]


@pytest.fixture
def made(monkeypatch):
    """What `compared` would have made, in order; nothing is written and no other Python is needed."""
    calls = []
    monkeypatch.setattr(pipeline.peers, "check_python", lambda python: calls.append(("check", python)))
    monkeypatch.setattr(pipeline, "write_photographs", lambda folder, count: calls.append(("write", folder, count)))
    monkeypatch.setattr(pipeline, "pack", lambda source, target: calls.append(("pack", source, target)))
    monkeypatch.setattr(
        pipeline.subprocess, "run", lambda command, **_: calls.append(("run", *command)) or subprocess.CompletedProcess
    )
    return calls


def flags(command):
    return dict(word.partition("=")[::2] for word in command if word.startswith("--"))


def test_every_pipeline_reads_the_same_photographs_in_batches_of_one_size(made):
    commands = compared(SPEC, [*SMALL, ("data.threads", "3")], 8, 100, 50, "peers/python", "/f")
    assert made[:3] == [
        ("check", "peers/python"),
        ("write", Path("/f/photographs"), 50),
        ("pack", "/f/photographs", "/f/packed"),
    ]
    assert made[3][:2] == ("run", "peers/python")
    assert flags(made[3])["--records"] == "/f/photographs.tfrecord"  # made before anything is timed
    assert len(commands) == 7
    found = {name: flags(command) for name, command in commands.items()}
    for name, said in found.items():
        assert said["--batch"] == "8", name
        if name.startswith("ours"):
            assert commands[name][0] == sys.executable
            # The last of two values of a flag counts, as the user's own data set comes first.
            assert said["--config.data.dataset"] == ("/f/packed" if "ArrayRecord" in name else "/f/photographs")
            assert (said["--config.data.resolution"], said["--config.data.threads"]) == ("(16, 16)", "3")
        else:
            assert commands[name][0] == "peers/python"
            assert (said["--folder"], said["--size"], said["--threads"]) == ("/f/photographs", "16", "3")
    # 50 photographs are 6.25 batches: the warm-up is an epoch, so that nothing is read for the first time when it is timed.
    assert {said["--warmup"] for name, said in found.items() if "first epoch" not in name} == {"7"}
    assert (found["ours, files, first epoch"]["--warmup"], found["ours, files, first epoch"]["--steps"]) == ("0", "10")
    assert {said["--steps"] for name, said in found.items() if "first epoch" not in name} == {"100"}


def test_peers_are_given_as_many_threads_as_ours_has_workers(made):
    commands = compared(SPEC, [*SMALL, ("data.workers", "4")], 8, 10, 50, "python", "/f")
    assert flags(commands["PyTorch, Pillow, files"])["--threads"] == "4"


@pytest.mark.parametrize("change", [("data.resolution", "(16, 24)"), ("data.recipe", "finetune")])
def test_what_the_peers_do_not_know_is_refused_before_anything_is_made(made, change):
    with pytest.raises(UserError, match="the peers know the recipe `pretrain` at a square resolution only"):
        compare(SPEC, [*SMALL, change], batch_size=8, steps=10, jpegs=50, peer_python="python")
    assert made == []


def test_photographs_are_made_measured_and_removed():
    found = measure_data(SPEC, SMALL, batch_size=4, steps=10, warmup=0, jpegs=6)
    assert (found["images"], found["batch_size"], found["resolution"]) == (40, 4, [16, 16])
    assert (found["dataset"], found["recipe"], found["threads"]) == ("6 photographs of 500x375", "pretrain", 1)
    assert found["overrides"] == dict(SMALL)  # what the user asked for, without what was made for it
    assert found["images_per_s"] > 0
