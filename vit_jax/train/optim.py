"""The optimizer: clip, Adam or SGD, decoupled weight decay, schedule (arXiv 2010.11929, sections 4.1 and B.1, tables 3, 4)."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vit_jax.train.groups import Layers, make_groups, without
from vit_jax.types import Duration, UserError

Decay = Literal["cosine", "linear", "constant", "staircase"]
STAIRS = (0.3, 0.6, 0.9)  # shares of the run: those of VTAB's own light protocol


def make_schedule(
    *,
    lr: float,
    total_steps: int,
    decay: Decay,
    warmup: int,
    end_lr: float = 1e-5,
    stairs: tuple[float, ...] = STAIRS,
) -> optax.Schedule:
    """Learning rate at optimizer step t: linear warm-up times a decay that starts where the warm-up ends.

    With p = clip((t - warmup) / (total_steps - warmup), 0, 1), the decay is lr (1 + cos(pi p)) / 2 for cosine and
    end_lr + (lr - end_lr)(1 - p) for linear; a staircase divides lr by ten after each of `stairs`, so by default in a run of
    1,000 steps t = 300 is the last at the full rate. The warm-up factor is min(1, t / warmup). Steps count from 0, so the
    first update of a run with warm-up has rate 0, as in the release.

    Args:
      lr: peak rate.
      total_steps: optimizer steps of the run, independent of accumulation.
      decay: shape of the decay.
      warmup: steps of warm-up; 0 for none.
      end_lr: rate at the end of a linear decay.
      stairs: shares of the run after which a staircase divides the rate.

    Raises:
      UserError: the warm-up is longer than the run.
    """
    if warmup > total_steps:
        raise UserError(
            f"optim.warmup is {warmup} steps, longer than the run of {total_steps}; shorten it or lengthen train.duration"
        )

    def schedule(step: Any) -> jax.Array:
        progress = jnp.clip((step - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
        if decay == "cosine":
            rate = lr * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        elif decay == "linear":
            rate = end_lr + (lr - end_lr) * (1 - progress)
        elif decay == "staircase":
            rate = lr * 0.1 ** sum(jnp.float32(step > math.floor(round(share * total_steps, 6))) for share in stairs)
        else:
            rate = jnp.asarray(lr, jnp.float32)
        return jnp.asarray(rate * jnp.minimum(1.0, step / warmup) if warmup else rate, jnp.float32)

    return schedule


def is_kernel(params: Any) -> Any:
    """A tree of booleans: True for kernels, which weight decay shrinks; False for biases, norms, positions and tokens."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    *,
    total_steps: int,
    layers: Layers | None = None,
    name: Literal["adam", "sgd"],
    lr: float,
    decay: Decay,
    warmup: Duration = 0,
    end_lr: float = 1e-5,
    stairs: tuple[float, ...] = STAIRS,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.9,
    state_dtype: Literal["float32", "bfloat16"] = "float32",
    layer_decay: float = 1.0,
    freeze: tuple[str, ...] = (),
    multipliers: tuple[str, ...] = (),
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds update = -schedule(t) f (u + weight_decay w), where u is Adam's or momentum's direction for clipped gradients, and f
    the parameter's own factor, 1 unless `layer_decay` or `multipliers` say otherwise.

    Weight decay is decoupled, acts on kernels only, and is multiplied by the learning rate: the paper's 0.1 at a rate of
    1e-3 shrinks a kernel by 1e-4 a step. So biases, norms, class token and positions never decay, as in MAE and BEiT.

    Patterns are those of the shell, on names as parameters.txt has them, with the layers of a scanned model spelt
    `Transformer/encoderblock_3/...`. Where several match a parameter, the last one counts.

    Args:
      total_steps: optimizer steps of the run; supplied by the program.
      layers: the layer of each parameter, from `models.layers.find_layers`; supplied by the program.
      name: `adam` (pre-training, table 3) or `sgd` (fine-tuning, table 4).
      lr: peak learning rate.
      decay: shape of the schedule after warm-up.
      warmup: length of the linear warm-up.
      end_lr: rate at the end of a linear decay.
      stairs: shares of the run after which a staircase divides the rate by ten.
      weight_decay: factor of the decoupled decay, multiplied by the learning rate; 0 for none.
      clip_norm: largest global norm of the gradient, over the mean gradient of the whole global batch; 0 for no clipping.
      b1, b2: Adam's decay rates.
      eps: added to the root of Adam's second moment. If it is far below a gradient's size, it only prevents 0/0; near that size,
        elements whose gradient is mostly rounding move more slowly than the others.
      momentum: SGD's, not Nesterov.
      state_dtype: dtype of Adam's first moment or of the momentum; Adam's second moment stays float32.
      layer_decay: factor on the rate from each layer to the one before it, 0.65 to fine-tune MAE's B/16 (arXiv 2106.08254): the
        head and the last norm have the full rate, block i of L a factor layer_decay^(L - i), patches and positions one
        factor less. 1 for none.
      freeze: patterns of parameters that stay as they are: embedding/*,Transformer/encoderblock_[0-5]/*. `!` before a pattern
        trains them after all: *,!head/* trains the head alone. They have no gradient and no optimizer state.
      multipliers: PATTERN=FACTOR, a factor on the rate: head/*=10.

    Returns:
      The transformation and its schedule.
    """
    schedule = make_schedule(
        lr=lr, total_steps=total_steps, decay=decay, warmup=int(warmup), end_lr=end_lr, stairs=stairs
    )
    groups = make_groups(layers or {}, layer_decay, freeze, multipliers) if layers else None
    dtype = jnp.dtype(state_dtype)
    steps = []
    if groups and groups.partly:
        steps.append(optax.stateless(lambda gradients, _: groups.silence(gradients)))
    if clip_norm:
        steps.append(optax.clip_by_global_norm(clip_norm))
    if name == "adam":
        steps.append(optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=dtype))
    else:
        steps.append(optax.trace(decay=momentum, accumulator_dtype=dtype))
    if weight_decay:
        steps.append(optax.add_decayed_weights(weight_decay, mask=is_kernel))
    if groups and groups.differ:
        steps.append(optax.stateless(lambda updates, _: groups.scale(updates)))
    chain = optax.chain(*steps, optax.scale_by_learning_rate(schedule))
    return (leave_out(chain, groups.frozen) if groups else chain), schedule


def leave_out(optimizer: optax.GradientTransformation, frozen: frozenset[str]) -> optax.GradientTransformation:
    """An optimizer of whole parameter trees: only parameters that are not frozen have gradients, state and updates."""

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return optimizer.update(gradients, state, without(params, frozen))

    return optax.GradientTransformation(lambda params: optimizer.init(without(params, frozen)), update)
