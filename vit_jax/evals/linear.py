"""Linear probe: a linear classifier on frozen features, as self-supervised models are judged (arXiv 2111.06377, section 4.1)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from vit_jax import partition
from vit_jax.evals.base import Scores, has_top5
from vit_jax.evals.classification import list_predictions
from vit_jax.evals.features import Features, Probe

BATCH_NORM_EPS = 1e-6  # MAE's, of its batch norm without scale and shift
TOLERANCE = 1e-5  # of the largest entry of the gradient of the mean loss
AT_ONCE = 4096  # examples whose scores are computed together

Normalize = Literal["batch", "length", "none"]


@dataclasses.dataclass(kw_only=True)
class LinearProbe(Probe):
    """Fits a softmax classifier to the features of all training examples and scores the test split: top1, top5 if there are more
    than five classes, loss (cross-entropy), train_top1 and num_examples; for each example, the arrays of `list_predictions`.

    Minimises the sum of cross-entropies over the examples plus l2_reg / 2 times the squared norm of the weights (not the bias):
    scikit-learn's LogisticRegression with C = 1 / l2_reg. Features are computed once, so the training images are not augmented.

    Args:
      recipe: how the images of both splits are prepared.
      normalize: `batch` subtracts the training features' mean and divides by their deviation, as a batch norm without scale
        and shift does (MAE's probe); `length` divides each feature vector by its length; `none` leaves them.
      solver: `lbfgs` uses all examples in every step until the gradient vanishes; `sgd` draws batches, with momentum 0.9 and a
        cosine schedule.
      l2_reg: weight of the squared norm.
      iterations: most steps of L-BFGS.
      lr, epochs, sgd_batch: SGD's peak rate, length, and examples per step.
      seed: of SGD's order.
      Others: see `Probe`.
    """

    recipe: Literal["eval_crop", "eval", "fewshot"] = "eval_crop"
    normalize: Normalize = "batch"
    solver: Literal["lbfgs", "sgd"] = "lbfgs"
    l2_reg: float = 1.0
    iterations: int = 1000
    lr: float = 0.1
    epochs: int = 90
    sgd_batch: int = 1024
    seed: int = 0

    def view(self) -> str:
        """The recipe that prepares images."""
        return self.recipe

    def score(self, train: Features, test: Features, mesh: Mesh) -> Scores:
        """Fits the classifier and scores it."""
        spec = self._sources[0].spec
        shift, scale = feature_scale(train[0], self.normalize)
        train, test = ((normalize(x, shift, scale, self.normalize), y) for x, y in (train, test))
        data = put_rows(train, mesh)
        start = {"kernel": jnp.zeros((train[0].shape[1], spec.num_classes)), "bias": jnp.zeros(spec.num_classes)}
        start = jax.device_put(start, partition.replicated(mesh))
        l2 = jnp.float32(self.l2_reg / len(train[0]))
        if self.solver == "lbfgs":
            params = fit_lbfgs(start, data, l2, self.iterations)
        else:
            params = fit_sgd(start, data, l2, len(train[0]), self.lr, self.epochs, self.sgd_batch, self.seed)
        params = on_every_device(params, mesh)
        rows, fitted = score_rows(params, test), score_rows(params, train)
        values = {"top1": rows["top1"].mean(), "top5": rows["top5"].mean(), "loss": rows["loss"].mean()}
        if not has_top5(spec):
            del values["top5"]
        values |= {"train_top1": fitted["top1"].mean(), "num_examples": len(test[0])}
        predictions = {name: rows[name] for name in ("label", "predicted", "confidence")}
        return Scores({name: float(x) for name, x in values.items()}, list_predictions(predictions, rows["top1"] >= 0))


def feature_scale(x: np.ndarray, how: Normalize) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) of each feature, float32 (d,), for `batch`; else 0 and 1."""
    if how != "batch":
        return np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
    wide = x.astype(np.float64)
    return wide.mean(axis=0).astype(np.float32), np.sqrt(wide.var(axis=0) + BATCH_NORM_EPS).astype(np.float32)


def normalize(x: np.ndarray, shift: np.ndarray, scale: np.ndarray, how: Normalize) -> np.ndarray:
    """Normalised features, float32 (n, d)."""
    x = x.astype(np.float32)
    if how == "length":
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return (x - shift) / scale


def put_rows(features: Features, mesh: Mesh) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features, labels and weights on the devices, split by rows; rows of weight 0 fill up the last device."""
    x, y = features
    fill = -len(x) % mesh.size
    rows = np.pad(x, ((0, fill), (0, 0))), np.pad(y, (0, fill)), np.pad(np.ones(len(x), np.float32), (0, fill))
    return partition.put_tree(rows, tuple(partition.batch_sharding(mesh) for _ in rows))


def on_every_device(tree: Any, mesh: Mesh) -> Any:
    """Arrays of which every device has the whole, so that each process can read them."""
    return jax.jit(lambda x: x, out_shardings=partition.replicated(mesh))(tree)


def mean_loss(params: Any, data: tuple[jax.Array, jax.Array, jax.Array], l2: jax.Array) -> jax.Array:
    """Weighted mean cross-entropy, plus l2 / 2 times the squared norm of the kernel."""
    x, y, weight = data
    logits = x @ params["kernel"] + params["bias"][None]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return (losses * weight).sum() / weight.sum() + 0.5 * l2 * (params["kernel"] ** 2).sum()


@functools.partial(jax.jit, static_argnames="iterations")
def fit_lbfgs(start: Any, data: tuple[jax.Array, jax.Array, jax.Array], l2: jax.Array, iterations: int) -> Any:
    """Minimises `mean_loss` until its gradient vanishes, or for at most `iterations` steps."""
    solver = optax.lbfgs()

    def loss(params: Any) -> jax.Array:
        return mean_loss(params, data, l2)

    def go_on(carry: Any) -> jax.Array:
        _, _, gradient, step = carry
        largest = jnp.stack([jnp.abs(g).max() for g in jax.tree.leaves(gradient)]).max()
        return (step < iterations) & (largest > TOLERANCE)

    def advance(carry: Any) -> Any:
        params, state, gradient, step = carry
        value = optax.tree.get(state, "value")
        updates, state = solver.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state, optax.tree.get(state, "grad"), step + 1

    value, gradient = jax.value_and_grad(loss)(start)
    state = optax.tree.set(solver.init(start), value=value, grad=gradient)
    return jax.lax.while_loop(go_on, advance, (start, state, gradient, 0))[0]


@functools.partial(jax.jit, static_argnames=("n", "lr", "epochs", "size", "seed"))
def fit_sgd(
    start: Any,
    data: tuple[jax.Array, jax.Array, jax.Array],
    l2: jax.Array,
    n: int,
    lr: float,
    epochs: int,
    size: int,
    seed: int,
) -> Any:
    """Minimises `mean_loss` over batches of `size` of the n examples in an order drawn anew for each epoch, without an incomplete
    last batch."""
    size = min(size, n)
    batches = n // size
    optimizer = optax.sgd(optax.cosine_decay_schedule(lr, epochs * batches), momentum=0.9)

    def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
        params, state = carry
        gradient = jax.grad(mean_loss)(params, tuple(x[rows] for x in data), l2)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry: Any, number: jax.Array) -> tuple[Any, None]:
        order = jax.random.permutation(jax.random.fold_in(jax.random.key(seed), number), n)
        return jax.lax.scan(step, carry, order[: batches * size].reshape(batches, size))

    return jax.lax.scan(epoch, (start, optimizer.init(start)), jnp.arange(epochs))[0][0]


def score_rows(params: Any, features: Features) -> dict[str, np.ndarray]:
    """label, predicted, confidence, loss, top1 and top5 of each example, (n,)."""
    weights, (x, y) = jax.device_get(params), features
    parts = []
    for start in range(0, len(x), AT_ONCE):
        label = y[start : start + AT_ONCE]
        logits = x[start : start + AT_ONCE] @ weights["kernel"] + weights["bias"]  # n c
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        right = log_p[np.arange(len(label)), label]
        parts.append(
            {
                "label": label,
                "predicted": logits.argmax(axis=1).astype(np.int32),
                "confidence": np.exp(log_p.max(axis=1)),
                "loss": -right,
                "top1": logits.argmax(axis=1) == label,
                "top5": (log_p > right[:, None]).sum(axis=1) < 5,
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
