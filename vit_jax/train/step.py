"""One optimizer step, from a batch of stored images to new parameters. Read `train_step` top to bottom: it is all here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax import partition
from vit_jax.train.groups import together, without
from vit_jax.train.masking import Drawn
from vit_jax.train.mixing import Mixed, mixed_values
from vit_jax.train.objectives import Objective
from vit_jax.types import Batch, TrainState

DRAWN = 2**31 - 1  # folded into a step's key for what an objective draws; micro-batches fold in 0, 1, ...

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    *,
    forward: Callable[..., Any],
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    accumulation: int = 1,
    average_decay: float = 0.0,
    mix: Callable[[Batch, jax.Array], Mixed] | None = None,
    frozen: frozenset[str] = frozenset(),
) -> TrainStep:
    """Builds `train_step(state, batch) -> (state, metrics)`; the caller jits it (`jit_train_step`).

    Args:
      forward: `forward(params, images, train=True, rng=key) -> Outputs`.
      objective: the loss of each example, and its weight.
      optimizer, schedule: from `make_optimizer`.
      mesh: the mesh that it runs on.
      accumulation: micro-batches that a global batch is cut into, run in sequence; same numbers, less memory.
      average_decay: factor d of the Polyak average, a <- d a + (1 - d) w after each step (section 4.1: 0.9999); 0 is off.
      mix: mixup or CutMix, from `mixing.make_mix`; examples are mixed within a micro-batch.
      frozen: names of parameters that stay as they are, `Groups.frozen`.
    """

    def loss(
        params: Any, micro: tuple[Batch, Drawn], rng: jax.Array, total: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """This micro-batch's part of the global mean; summed over micro-batches it is the mean over the whole batch."""
        batch, drawn = micro
        if mix is None:
            values = objective.values(objective.run(forward, params, batch.image, drawn, train=True, rng=rng), batch)
        else:
            mixed = mix(batch, jax.random.fold_in(rng, 1))
            outputs = forward(params, mixed.image, train=True, rng=rng)
            values = mixed_values(objective.values, outputs, batch, mixed.share)
        weight = objective.weight(batch)
        parts = {name: jnp.sum(value * weight) / total for name, value in values.items()}
        return parts["loss"], parts

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        rng = jax.random.fold_in(state.rng, state.step)
        batch = objective.prepare(batch)
        total = jnp.maximum(objective.weight(batch).sum(), 1.0)
        trained = without(state.params, frozen)

        def loss_of(trained: Any, *inputs: Any) -> Any:
            return loss(together(state.params, trained, frozen), *inputs)

        gradient = jax.grad(loss_of, has_aux=True)
        drawn = Drawn()
        if objective.draw:  # for the whole batch, so that accumulation changes no mask
            drawn = objective.draw(jax.random.split(jax.random.fold_in(rng, DRAWN), batch.mask.shape[0]))
        gradients, metrics = _accumulate(gradient, trained, (batch, drawn), rng, total, accumulation, mesh)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = together(state.params, optax.apply_updates(trained, updates), frozen)
        average = state.average
        if average_decay:
            average = optax.incremental_update(params, average, step_size=1 - average_decay)
        metrics |= {"grad_norm": optax.tree.norm(gradients), "lr": schedule(state.step)}
        return TrainState(state.step + 1, params, opt_state, average, state.rng), metrics

    return train_step


def _accumulate(
    gradient: Callable[..., Any],
    params: Any,
    batch: tuple[Batch, Drawn],
    rng: jax.Array,
    total: jax.Array,
    accumulation: int,
    mesh: Mesh,
) -> Any:
    """Sums `gradient(params, part, key, total)` over `accumulation` equal parts of the batch, one part in memory at a time, each
    with a key of its own."""
    if accumulation == 1:
        return gradient(params, batch, jax.random.fold_in(rng, 0), total)
    split = NamedSharding(mesh, PartitionSpec(None, partition.BATCH_AXES))

    def cut(x: jax.Array) -> jax.Array:
        # Row r goes to part r % accumulation: every device then slices its own rows, and no row moves between devices.
        x = x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1)  # accumulation b/accumulation ...
        return jax.lax.with_sharding_constraint(x, split)

    parts = jax.tree.map(cut, batch)
    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts), rng, total)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        micro, i = part
        return jax.tree.map(jnp.add, sums, gradient(params, micro, jax.random.fold_in(rng, i), total)), None

    sums, _ = jax.lax.scan(add, zero, (parts, jnp.arange(accumulation)))
    return sums


def init_state(
    params: Any, optimizer: optax.GradientTransformation, rng: jax.Array, mesh: Mesh, *, average: bool
) -> TrainState:
    """Places parameters on the mesh and creates the state of step 0; the average starts as the parameters.

    Args:
      params: tree of arrays; the caller must not use them again: on one device the state may share memory that steps reuse.
      optimizer: from `make_optimizer`.
      rng: the run's key for dropout.
      mesh: the mesh.
      average: whether a Polyak average is kept.
    """
    params = partition.put_tree(params, partition.param_sharding(params, mesh))
    shardings = partition.param_sharding(jax.eval_shape(optimizer.init, params), mesh)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(params)
    # The key is copied: steps reuse the state's memory.
    scalars = {"step": jnp.zeros((), jnp.int32), "rng": jax.random.clone(rng)}
    return TrainState(
        params=params,
        opt_state=opt_state,
        average=jax.tree.map(jnp.copy, params) if average else None,
        **partition.put_tree(scalars, partition.param_sharding(scalars, mesh)),
    )


def abstract_state(
    params: Any, optimizer: optax.GradientTransformation, rng: jax.Array, mesh: Mesh, *, average: bool
) -> TrainState:
    """The shapes, dtypes and shardings of `init_state`'s result; allocates nothing."""

    def place(tree: Any) -> Any:
        shardings = partition.param_sharding(tree, mesh)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)

    params = place(params)
    scalars = place((jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(lambda: rng)))
    opt_state = place(jax.eval_shape(optimizer.init, params))
    return TrainState(scalars[0], params, opt_state, params if average else None, scalars[1])


@dataclasses.dataclass(frozen=True)
class StepBySize:
    """A step compiled for several sizes of images; the batch decides which program runs.

    Args:
      programs: {(h, w): the step compiled for it}.
    """

    programs: Mapping[tuple[int, int], TrainStep]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """Runs the program of the batch's size."""
        return self.programs[batch.image.shape[1:3]](state, batch)


def jit_train_step(train_step: TrainStep, state: TrainState, mesh: Mesh) -> Any:
    """Jits a step for a state's shardings; the new state reuses the old state's memory."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    everywhere = partition.replicated(mesh)
    return jax.jit(
        train_step,
        in_shardings=(shardings, partition.batch_sharding(mesh)),
        out_shardings=(shardings, everywhere),
        donate_argnums=0,
    )
