"""Fuzz of what a run and a sweep leave: resuming, starting from it and reporting on it give the same bits or one error."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mutations
import numpy as np
import pytest

from vit_jax import config as configs
from vit_jax.convert.open import open_checkpoint
from vit_jax.data.prepare.prepare import prepare as prepare_data
from vit_jax.metrics.jsonl import read_jsonl
from vit_jax.metrics.writers import JsonlWriter
from vit_jax.models import build as models
from vit_jax.report.collect import collect
from vit_jax.run import record
from vit_jax.run.hooks import RunHooks
from vit_jax.run.job import build_job, saved_config
from vit_jax.sweeps import job as jobs
from vit_jax.sweeps.grid import Run
from vit_jax.sweeps.results import Result, Sweep, SweepTask, read_as, write_result, write_sweep
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.loop import examine_state
from vit_jax.types import UserError

TINY = {"model.width": 16, "model.depth": 1, "model.mlp_dim": 16, "model.num_heads": 1, "model.representation_size": 8}
STEPS = (2, 4)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """(overrides, how to prepare the run anew, a workdir as the run leaves it after step 4)."""
    data, workdir = tmp_path_factory.mktemp("tfds"), tmp_path_factory.mktemp("made") / "run"
    prepare_data("digits", data_dir=str(data))
    overrides = [(key, str(value)) for key, value in {"data.data_dir": str(data), **TINY}.items()]

    def again(old=None):
        config = configs.load("configs/quickstart.py:pretrain,smoke")
        job = build_job(config, overrides, old)
        return job.config, job

    config, job = again()
    record.claim_workdir(workdir, configs.to_dict(config))
    state = job.parts.draw_state(models.init_params(job.parts.model, jax.random.key(0), config.data.resolution))
    saver, writer = Checkpointer(workdir, every=1), JsonlWriter(workdir / "metrics.jsonl", -1)
    for step in STEPS:
        state = state._replace(step=jax.device_put(np.int32(step), state.step.sharding))
        meta = {**RunHooks(job, workdir, SimpleNamespace(corrupt=["a.png"])).describe(step), "pending": {"loss": [0.5]}}
        saver.save(state, meta | {"checksums": examine_state(state, job.parts.mesh)})
        writer.write(step, {"train/loss": 2.5 / step, "train/lr": 1e-3, "eval/digits/top1": 0.1 * step})
    saver.close()
    writer.close()
    surroundings = {**record.surroundings(), "config": configs.to_dict(config)}
    counts = {"steps": 4, "num_params": 7, "train_flops_per_image": 9, "seconds": 1.5}
    scores = record.last_scores(workdir)
    record.write_json(workdir / "run.json", {**surroundings, **counts, "data": [{}], "scores": scores})
    return again, workdir


@pytest.fixture
def workdir(started, tmp_path):
    """A folder to damage; a test puts back what it has damaged."""
    return shutil.copytree(started[1], tmp_path / "run")


def damage(file, number, rng):
    """Damages a file, as JSON where it holds that in every other case, and returns what it held."""
    good = file.read_bytes()
    if number % 2 and file.name.endswith(".json"):
        file.write_bytes(json.dumps(mutations.mutate_json(json.loads(good), rng)).encode())
    else:
        file.write_bytes(mutations.mutate(good, rng))
    return good


@pytest.mark.slow
def test_a_damaged_config_resumes_the_same_run_or_is_one_error(started, workdir):
    again, _ = started
    expected = saved_config(workdir)
    for number, rng in mutations.cases():
        good = damage(workdir / "config.json", number, rng)
        with mutations.judged(number, UserError):
            old = saved_config(workdir)
            config, _ = again(old)
            record.check_workdir(workdir, configs.to_dict(config), old)
            changed = configs.differences(expected, configs.to_dict(config))
            assert all(record.may_change(line.partition(":")[0]) for line in changed)
        (workdir / "config.json").write_bytes(good)


@pytest.mark.slow
def test_damaged_records_and_results_are_read_or_one_error(workdir):
    for number, rng in mutations.cases():
        name = ("metrics.jsonl", "run.json")[number // 2 % 2]
        good = damage(workdir / name, number, rng)
        with mutations.judged(number, UserError):
            if name == "run.json":
                assert set(record.read_run(workdir)["config"]) >= set(configs.SECTIONS) - {"seed"}
            else:
                assert all(isinstance(score, int | float) for score in record.last_scores(workdir).values())
                JsonlWriter(workdir / name, 2).close()
                assert all(entry["step"] <= 2 for entry in read_jsonl(workdir / name))
        (workdir / name).write_bytes(good)


def as_bytes(tree):
    """Every array of a tree, random keys as their data."""
    data = (
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(tree)
    )
    return [np.asarray(x).tobytes() for x in data]


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_back_the_same_bits_or_is_one_error(started, workdir):
    _, job = started[0]()
    latest = workdir / "checkpoints" / str(STEPS[-1])
    files = sorted(file for file in latest.rglob("*") if file.is_file())

    def restore():
        reader = Checkpointer(workdir, every=1)
        try:
            return reader.restore(job.parts.abstract, reader.latest_step())
        finally:
            reader.close()

    expected, tensors = restore(), open_checkpoint(str(workdir)).tensors
    for number, rng in mutations.cases():
        file = files[int(rng.integers(len(files)))]
        good = damage(file, number, rng)
        if number % 8 == 0:
            file.unlink()
        elif number % 8 == 1:
            file.write_bytes((workdir / "checkpoints" / str(STEPS[0]) / "meta" / "metadata").read_bytes())
        with mutations.judged(number, UserError):
            if number % 3:
                state, meta = restore()
                assert (as_bytes(state), meta) == (as_bytes(expected[0]), expected[1])
            else:
                found = open_checkpoint(str(workdir)).tensors
                assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in tensors.items()}
        file.write_bytes(good)


RUN = Run(
    task="a",
    phase="final",
    candidate={"optim.lr": 0.1},
    seed=0,
    kind="train",
    config="configs/finetune.py:dataset=a",
    overrides=(("optim.lr", "0.1"), ("seed", "0")),
)
RESULT = Result(
    **{field: getattr(RUN, field) for field in ("task", "phase", "candidate", "seed")},
    **dict.fromkeys(("identity", "config_hash", "command", "dataset", "device"), "a"),
    **dict.fromkeys(("num_examples", "num_train_examples", "num_params", "train_flops"), 10),
    splits={"train": "train", "scored": "test"},
    resolution=(8, 8),
    preprocessing={"recipe": "eval"},
    scores={"top1": 0.5},
    average_scores={},
    seconds=1.0,
    surroundings={"git": {"commit": "a"}, "versions": {"jax": "0"}, "devices": ["cpu"]},
    class_names=("x", "y"),
)
SWEEP = Sweep(
    **{field: field for field in ("title", "label", "config")},
    layout="list",
    metric="top1",
    tasks=(SweepTask(name="a", title="A", group="", dataset="a"),),
    candidates={"optim.lr": (0.1,)},
    seeds=(0,),
)


def test_damaged_files_of_a_sweep_are_read_left_out_or_one_error(tmp_path):
    place = RUN.folder(tmp_path)
    place.mkdir(parents=True)
    write_sweep(tmp_path, SWEEP)
    write_result(place, RESULT)
    record.write_json(place / "job.json", dataclasses.asdict(jobs.Job(RUN, "a", True)))
    record.write_json(place / "outcome.json", {"code": 75, "message": "stopped"})
    files = [tmp_path / "sweep.json", place / "result.json", place / "job.json", place / "outcome.json"]
    for number, rng in mutations.cases():
        file = files[number // 2 % len(files)]
        good = damage(file, number, rng)
        with mutations.judged(number, UserError):
            jobs.read_outcome(place)
            if file.name == "job.json":
                assert isinstance(read_as(jobs.Job, file, "").run.key, str)
            (entry,) = collect([tmp_path])
            assert len(entry.runs) + len(entry.damaged) == 1
        file.write_bytes(good)
