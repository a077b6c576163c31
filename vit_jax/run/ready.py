"""Brings a checked run to its first step: the state is drawn or read while the training step compiles."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import Any

from etils import epath

from vit_jax import peers
from vit_jax.convert.adapt import Fate
from vit_jax.memory import return_freed_memory
from vit_jax.run.initial import initial_params
from vit_jax.run.job import Job
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.step import TrainStep
from vit_jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Ready:
    """The inputs of training: the state of `start_step`, its checkpoint's meta, and the compiled step."""

    start_step: int
    state: TrainState
    meta: dict[str, Any]
    fates: list[Fate]
    train_step: TrainStep
    flops: int


def bring_up(job: Job, folder: epath.Path, checkpointer: Checkpointer, start_step: int) -> Ready:
    """Draws or reads the state while the step compiles in another thread; writes nothing."""
    meta: dict[str, Any] = {}
    fates: list[Fate] = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        compiling = pool.submit(job.parts.compile_each, job.batch_size, job.sizes)
        if start_step:
            state, meta = job.restore(checkpointer, folder, start_step)
        else:
            params, fates = initial_params(job.config, job.parts.model, job.init_source)
            if job.init_source is not None:
                job.init_source.tensors.clear()  # gigabytes, which the run no longer needs
            state = job.parts.draw_state(params)
            del params
        train_step, flops = compiling.result()
    return_freed_memory()
    # The first collective waits only 30 s for the other processes (Gloo), and compile caches make some faster than others.
    peers.wait_for_all("first step")
    return Ready(start_step, state, meta, fates, train_step, flops)
