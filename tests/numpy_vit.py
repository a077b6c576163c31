"""A Vision Transformer in float64 numpy, written from the paper's equations 1 to 4 and from nothing of ours.

Parameters are a flat dictionary under the raw names of the released npz files.
"""

import math

import numpy as np
import scipy.special

POSITIONS = "Transformer/posembed_input/pos_embedding"


def draw_params(
    seed=0, *, patch=(4, 6), grid=(2, 2), d=8, depth=2, mlp=12, heads=2, classes=5, pool="token", representation=0
):
    """Random float32 values for every tensor of a tiny model, biases and norms included, under the released names."""
    shapes = {"embedding/kernel": (*patch, 3, d), "embedding/bias": (d,)}
    tokens = grid[0] * grid[1]
    if pool == "token":
        shapes["cls"] = (1, 1, d)
        tokens += 1
    shapes[POSITIONS] = (1, tokens, d)
    for layer in range(depth):
        block = f"Transformer/encoderblock_{layer}"
        shapes |= {f"{block}/LayerNorm_0/{leaf}": (d,) for leaf in ("scale", "bias")}
        shapes |= _attention_shapes(f"{block}/MultiHeadDotProductAttention_1", d, heads)
        shapes |= {f"{block}/LayerNorm_2/{leaf}": (d,) for leaf in ("scale", "bias")}
        shapes |= _mlp_shapes(f"{block}/MlpBlock_3", d, mlp)
    shapes |= {f"Transformer/encoder_norm/{leaf}": (d,) for leaf in ("scale", "bias")}
    if pool == "map":
        shapes["MAPHead_0/probe"] = (1, 1, d)
        shapes |= _attention_shapes("MAPHead_0/MultiHeadDotProductAttention_0", d, heads)
        shapes |= {f"MAPHead_0/LayerNorm_0/{leaf}": (d,) for leaf in ("scale", "bias")}
        shapes |= _mlp_shapes("MAPHead_0/MlpBlock_0", d, mlp)
    if representation:
        shapes |= {"pre_logits/kernel": (d, representation), "pre_logits/bias": (representation,)}
    shapes |= {"head/kernel": (representation or d, classes), "head/bias": (classes,)}
    return draw(shapes, seed)


def draw(shapes, seed=0):
    """Random float32 values for tensors of the given names and shapes."""
    rng = np.random.default_rng(seed)
    return {name: _draw(rng, name, shape) for name, shape in shapes.items()}


def _draw(rng, name, shape):
    values = rng.standard_normal(shape) * (0.5 if name.endswith("kernel") else 0.3)
    return (values + name.endswith("scale")).astype(np.float32)


def _attention_shapes(name, d, heads):
    inputs = {f"{name}/{part}/kernel": (d, heads, d // heads) for part in ("query", "key", "value")}
    biases = {f"{name}/{part}/bias": (heads, d // heads) for part in ("query", "key", "value")}
    return inputs | biases | {f"{name}/out/kernel": (heads, d // heads, d), f"{name}/out/bias": (d,)}


def _mlp_shapes(name, d, mlp):
    first = {f"{name}/Dense_0/kernel": (d, mlp), f"{name}/Dense_0/bias": (mlp,)}
    return first | {f"{name}/Dense_1/kernel": (mlp, d), f"{name}/Dense_1/bias": (d,)}


def forward(params, images, *, pool="token", eps=1e-6, positions=None):
    """Runs the model on uint8 images (b, h, w, 3); returns {"tokens", "pooled", "pre_logits", "logits"}, float64.

    `positions` replaces the position embeddings.
    """
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    z = embed(pixels(images), p)
    b = len(z)
    if pool == "token":
        z = np.concatenate([np.tile(p["cls"], (b, 1, 1)), z], axis=1)
    z = z + (p[POSITIONS] if positions is None else positions)  # eq. 1
    layer = 0
    while (block := f"Transformer/encoderblock_{layer}") + "/LayerNorm_0/scale" in p:
        y = layer_norm(z, p, f"{block}/LayerNorm_0", eps)
        z = attention(y, y, p, f"{block}/MultiHeadDotProductAttention_1") + z  # eq. 2
        z = mlp(layer_norm(z, p, f"{block}/LayerNorm_2", eps), p, f"{block}/MlpBlock_3") + z  # eq. 3
        layer += 1
    tokens = layer_norm(z, p, "Transformer/encoder_norm", eps)
    if pool == "token":
        pooled = tokens[:, 0]  # eq. 4
    elif pool == "gap":
        pooled = tokens.sum(axis=1) / tokens.shape[1]
    else:
        probe = np.tile(p["MAPHead_0/probe"], (b, 1, 1))
        x = attention(probe, tokens, p, "MAPHead_0/MultiHeadDotProductAttention_0")
        pooled = (x + mlp(layer_norm(x, p, "MAPHead_0/LayerNorm_0", eps), p, "MAPHead_0/MlpBlock_0"))[:, 0]
    pre_logits = np.tanh(pooled @ p["pre_logits/kernel"] + p["pre_logits/bias"]) if "pre_logits/bias" in p else pooled
    logits = pre_logits @ p["head/kernel"] + p["head/bias"]
    return {"tokens": tokens, "pooled": pooled, "pre_logits": pre_logits, "logits": logits}


def pixels(images):
    return (np.asarray(images, np.float64) - 127.5) / 127.5


def embed(images, p, name="embedding"):
    """A linear map of each patch, row by row."""
    kernel = p[f"{name}/kernel"]
    ph, pw = kernel.shape[:2]
    b, h, w, _ = images.shape
    z = []
    for y in range(0, h, ph):
        for x in range(0, w, pw):
            patch = images[:, y : y + ph, x : x + pw].reshape(b, -1)
            z.append(patch @ kernel.reshape(-1, kernel.shape[-1]) + p[f"{name}/bias"])
    return np.stack(z, axis=1)


def layer_norm(x, p, name, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * p[f"{name}/scale"] + p[f"{name}/bias"]


def attention(queries, inputs, p, name):
    heads = []
    for i in range(p[f"{name}/query/kernel"].shape[1]):
        q, k, v = (
            x @ p[f"{name}/{part}/kernel"][:, i] + p[f"{name}/{part}/bias"][i]
            for x, part in ((queries, "query"), (inputs, "key"), (inputs, "value"))
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))
        heads.append(scores / scores.sum(axis=-1, keepdims=True) @ v @ p[f"{name}/out/kernel"][i])
    return sum(heads) + p[f"{name}/out/bias"]


def gelu(x):
    """The tanh approximation."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def exact_gelu(x):
    return 0.5 * x * (1 + scipy.special.erf(x / math.sqrt(2)))


def mlp(x, p, name, gelu=gelu):
    x = gelu(x @ p[f"{name}/Dense_0/kernel"] + p[f"{name}/Dense_0/bias"])
    return x @ p[f"{name}/Dense_1/kernel"] + p[f"{name}/Dense_1/bias"]
