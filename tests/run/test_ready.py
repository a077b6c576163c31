"""From a checked run to its first step: the drawn state, the restored one, and a compiled step that takes either."""

import contextlib
import gc
import weakref

import jax
import numpy as np
import pytest
from etils import epath

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.run import ready
from vit_jax.run.ready import bring_up
from vit_jax.train.checkpoint import Checkpointer


def leaves(tree):
    return [
        np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in tree
    ]


@pytest.mark.slow
def test_a_new_run_draws_its_state_writes_nothing_and_a_saved_one_comes_back(made, tmp_path):
    job, folder = made(), epath.Path(tmp_path)
    with contextlib.closing(
        configs.build(Checkpointer, job.config.checkpoint, job.to_steps, directory=folder)
    ) as saver:
        ready = bring_up(job, folder, saver, 0)
        assert list(tmp_path.iterdir()) == []
        assert (ready.start_step, int(ready.state.step), ready.meta, ready.fates) == (0, 0, {}, [])
        assert ready.flops == job.parts.trace(job.batch_size, job.config.data.resolution)[1] > 0
        head = ready.state.params["head"]["kernel"]
        assert not np.asarray(head).any()  # table 3's head of zeros
        loader = job.data.batches(job.source, seed=0, start_step=0, process_index=0, process_count=1, corrupt=())
        with contextlib.closing(loader):
            batch = next(loader)
        state, metrics = ready.train_step(ready.state, partition.put_batch(batch, job.parts.mesh))
        np.testing.assert_allclose(float(metrics["loss"]), np.log(10), rtol=1e-5)  # ten classes, no preference
        saver.save(state, {"step": 1, "config": configs.to_dict(job.config)}, {})
        saver.wait()
        expected = leaves(jax.tree.leaves((state.params, state.opt_state, state.average, state.rng)))
        resumed = bring_up(job, folder, saver, 1)
    assert (resumed.start_step, int(resumed.state.step), resumed.meta["step"]) == (1, 1, 1)
    again = resumed.state
    for a, b in zip(
        expected, leaves(jax.tree.leaves((again.params, again.opt_state, again.average, again.rng))), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_memory_is_returned_when_all_is_compiled_and_the_drawn_parameters_are_gone(made, tmp_path, monkeypatch):
    job, folder, drawn, alive = made(), epath.Path(tmp_path), [], []
    draw = ready.initial_params

    def remembered(*arguments):
        params, fates = draw(*arguments)
        drawn.append(weakref.ref(params["head"]["kernel"]))
        return params, fates

    monkeypatch.setattr(ready, "initial_params", remembered)

    def look():
        gc.collect()  # JAX's own cycles may hold them for a while
        alive.append(drawn[0]() is not None)

    monkeypatch.setattr(ready, "return_freed_memory", look)
    with contextlib.closing(
        configs.build(Checkpointer, job.config.checkpoint, job.to_steps, directory=folder)
    ) as saver:
        bring_up(job, folder, saver, 0)
    assert alive == [False]


@pytest.mark.slow
def test_each_size_has_its_program_and_none_is_compiled_in_the_loop(made, tmp_path, caplog):
    """On eight devices, in three micro-batches."""
    several = {"model__positions": "sincos_2d", "train__accumulation": "3"}
    job, folder = made(**several, data__sizes="((12,12),(16,16),(12,12))"), epath.Path(tmp_path)
    jax.config.update("jax_log_compiles", True)
    try:
        with contextlib.closing(
            configs.build(Checkpointer, job.config.checkpoint, job.to_steps, directory=folder)
        ) as saver:
            ready = bring_up(job, folder, saver, 0)
        loader = job.data.batches(job.source, seed=0, start_step=0, process_index=0, process_count=1, corrupt=())
        caplog.clear()
        with contextlib.closing(loader):
            batches = [partition.put_batch(next(loader), job.parts.mesh) for _ in range(3)]
        state, metrics = ready.state, []
        for batch in batches:
            state, found = ready.train_step(state, batch)
            metrics.append(found)
        jax.block_until_ready(metrics)
        assert "ompil" not in caplog.text
        jax.jit(lambda x: x + 1)(1)
        assert "ompil" in caplog.text  # so the record would have shown one
    finally:
        jax.config.update("jax_log_compiles", False)
    assert sorted(batch.image.shape[1:3] for batch in batches) == [(12, 12), (12, 12), (16, 16)]
    assert set(ready.train_step.programs) == {(12, 12), (16, 16)}
    assert all(isinstance(program, jax.stages.Compiled) for program in ready.train_step.programs.values())
    np.testing.assert_allclose(float(metrics[0]["loss"]), np.log(10), rtol=1e-5)  # ten classes, no preference
    assert int(state.step) == 3
    small, large = (job.parts.trace(72, size)[1] for size in ((12, 12), (16, 16)))
    assert ready.flops == (2 * small + large) // 3
