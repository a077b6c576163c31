"""The plan that a person checks before a run spends hours: every figure in it is worked out here by hand."""

import dataclasses

import pytest

from vit_jax.config import Config
from vit_jax.run.plan import describe_plan, for_sizes
from vit_jax.run.settle import Settled
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec


def rows_of(job, *, flops=1_250_000_000, start_step=0):
    """{row: its texts}."""
    found = {}
    for line in describe_plan(job, flops, start_step).splitlines():
        name, _, text = line.strip().partition(" ")
        found.setdefault(name, []).append(text.strip())
    return found


def spec(counts, **changes):
    names = tuple(f"c{i}" for i in range(len(counts)))
    found = DatasetSpec("cats", "train", sum(counts), ClassId(len(counts)), names, (None, None, 3), class_counts=counts)
    return found._replace(**changes)


@pytest.fixture(scope="module")
def job(made):
    return made(train__duration="15", train__accumulation="3")


def test_the_batch_and_the_length_are_split_as_the_devices_and_the_data_are(job):
    rows = rows_of(job)
    assert rows["devices"] == ["8 x cpu (data 8 x fsdp 1), 1 process"]
    assert rows["batch"] == ["72 = 8 devices x 3 x 3 accumulation steps"]
    assert rows["length"] == ["15 steps = 1.5 epochs"]  # 720 examples in batches of 72: 10 steps an epoch
    assert rows["images"][0].startswith("16x16: ")
    assert rows["images"][0].endswith("; 1.25 GFLOP to train on one")
    # By hand: 4x4x3 pixels to width 96 and a bias, 17 positions and a class token, one block of 4 x 96^2 + 2 x 96 x 384 with its
    # biases and two norms, the last norm, the tanh layer of 96x96, and the head.
    block = 4 * (96 * 96 + 96) + (96 * 384 + 384) + (384 * 96 + 96) + 4 * 96
    parameters = (48 * 96 + 96) + (17 + 1) * 96 + block + 2 * 96 + (96 * 96 + 96) + (96 * 10 + 10)
    assert f"{parameters:,} parameters, float32" in rows["model"][0]
    assert "sizes" not in rows
    assert for_sizes(job) == ""
    assert rows_of(job, start_step=7)["length"] == ["15 steps = 1.5 epochs, from step 7"]


def test_each_data_set_stands_there_once_with_its_classes_and_what_was_left_out_of_it(job):
    few = spec((12, 1_030), num_excluded=2_000, notes=("two files are no images",))
    rows = rows_of(dataclasses.replace(job, specs=[few, few]))
    assert rows["cats"] == ["train: 1,042 examples (2,000 more are excluded), 2 classes: c0 12, c1 1,030"]
    assert rows["note:"] == ["two files are no images"]
    many = rows_of(dataclasses.replace(job, specs=[spec((50, 7, *[20] * 8, 1_300))]))
    assert many["cats"] == ["train: 1,517 examples, 11 classes, of 7 (c1) to 1,300 examples (c10)"]
    unknown = rows_of(dataclasses.replace(job, specs=[spec((1,), class_counts=())]))
    assert unknown["cats"] == ["train: 1 example, 1 class"]


def test_decisions_are_listed_by_reason_and_only_the_first_four_of_each(job):
    settled = [Settled(f"model.k{i}", i, "as x.npz was trained") for i in range(6)]
    settled.insert(1, Settled("model.dtype", "float32", "suits the device, a CPU"))
    assert rows_of(dataclasses.replace(job, settled=settled))["settled"] == [
        "model.k0 0, model.k1 1, model.k2 2, model.k3 3, 2 more: as x.npz was trained",
        "model.dtype float32: suits the device, a CPU",
    ]


def test_sizes_are_listed_with_the_number_of_their_programs(job):
    changed = job.config.to_dict()
    changed["data"]["sizes"] = ((8, 16), (12, 12), (8, 16))
    job = dataclasses.replace(job, config=Config(changed))
    rows = rows_of(job)
    assert rows["sizes"] == ["8x16, 12x12, 8x16: training batches take each once in 3 steps; 2 programs"]
    assert rows["images"][0].endswith("; 1.25 GFLOP to train on one, a mean over data.sizes")
    assert for_sizes(job) == " for 2 sizes of images, a program each"
