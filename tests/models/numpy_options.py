"""The encoder's options in float64 numpy, each written from its paper; the plain model is `numpy_vit`.

An option that has parameters is on where they are among those given; the others are arguments.
"""

import math

import numpy as np
import numpy_vit


def forward(
    params,
    images,
    *,
    pool="token",
    at="stem",
    grid=(2, 2),
    fixed=None,
    gelu=numpy_vit.gelu,
    eps=1e-6,
    norm_pooled=False,
):
    """Runs the model on uint8 images (b, h, w, 3); returns "tokens", "pooled", "logits", "layers" and "attention".

    Args:
      params: flat, under the names of the released files and of the options.
      images: uint8 (b, h, w, 3), or a feature map (b, gh, gw, c) in floating point.
      pool: `token`, `gap` (patches only) or `unpooled`.
      at: where positions are added: `stem`, `every_layer` (a table each) or `shared`.
      grid: of the patches.
      fixed: positions (n, d) without parameters, to be added where there are no others.
      gelu: of the MLPs.
      eps: of every LayerNorm.
      norm_pooled: whether the last LayerNorm is that of the pooled vector.
    """
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    cls = int("cls" in p)
    z = numpy_vit.embed(numpy_vit.pixels(images) if images.dtype == np.uint8 else images, p)
    b = len(z)
    if cls:
        z = np.concatenate([np.tile(p["cls"], (b, 1, 1)), z], axis=1)
    once = added(p, "Transformer", grid, cls, fixed)
    if at == "stem":
        z = z + once
    extra = 0
    if "Transformer/registers" in p:
        extra = p["Transformer/registers"].shape[1]
        z = np.concatenate([z[:, :cls], np.tile(p["Transformer/registers"], (b, 1, 1)), z[:, cls:]], axis=1)
    layers, attentions = [], []
    for layer in range(len({name.split("/")[1] for name in p if "/encoderblock_" in name})):
        block = f"Transformer/encoderblock_{layer}"
        if at != "stem":
            z = z + (once if at == "shared" else added(p, block, grid, cls, fixed))
        if f"{block}/row/LayerNorm_0/scale" in p:
            gh, gw = grid
            out, of_rows = z.copy(), []
            for y in range(gh):
                row = slice(y * gw, (y + 1) * gw)
                out[:, row], weights = encode(z[:, row], p, f"{block}/row", grid, cls, gelu, eps)
                of_rows.append(weights)
            attentions.append(np.stack(of_rows, axis=1).reshape(b * gh, *weights.shape[1:]))
            z = out.copy()
            for x in range(gw):
                out[:, x::gw], _ = encode(z[:, x::gw], p, f"{block}/column", grid, cls, gelu, eps)
            z = out
        else:
            z, weights = encode(z, p, block, grid, cls, gelu, eps)
            attentions.append(weights)
        layers.append(z)
    tokens = np.concatenate([z[:, :cls], z[:, cls + extra :]], axis=1)
    if not norm_pooled:
        tokens = numpy_vit.layer_norm(tokens, p, "Transformer/encoder_norm", eps)
    pooled = {"token": tokens[:, 0], "gap": tokens[:, cls:].mean(axis=1), "unpooled": tokens}[pool]
    if norm_pooled:
        pooled = numpy_vit.layer_norm(pooled, p, "fc_norm", eps)
    logits = pooled @ p["head/kernel"] + p["head/bias"]
    return {"tokens": tokens, "pooled": pooled, "logits": logits, "layers": layers, "attention": attentions}


def added(p, parent, grid, cls, fixed):
    """The positions (n, d) under a module, if there are any: table 8's 1-D or 2-D, or those given."""
    name = f"{parent}/posembed_input/pos_embedding"
    if name in p:
        return p[name][0]
    patches = [0.0] if fixed is None else list(fixed)
    if f"{name}_x" in p:
        x_table, y_table = p[f"{name}_x"][0], p[f"{name}_y"][0]
        patches = [np.concatenate([x_table[x], y_table[y]]) for y in range(grid[0]) for x in range(grid[1])]
    elif fixed is None:
        return 0.0
    return np.stack([np.zeros_like(patches[0])] * cls + patches)


def sincos(grid, d, temperature=10_000.0):
    """Sines and cosines of x, then of y, at d/4 wavelengths from 2 pi to 2 pi times `temperature` (arXiv 2104.02057)."""
    out = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            rates = [temperature ** -(i / (d // 4 - 1)) for i in range(d // 4)]
            out.append([f(at * rate) for at in (x, y) for f in (math.sin, math.cos) for rate in rates])
    return np.array(out)


def encode(z, p, block, grid, cls, gelu, eps):
    """Equations 2 and 3; each branch times its LayerScale, if any."""
    y, weights = attend(numpy_vit.layer_norm(z, p, f"{block}/LayerNorm_0", eps), p, block, grid, cls, eps)
    z = z + y * p.get(f"{block}/LayerScale_0/scale", 1.0)
    y = numpy_vit.layer_norm(z, p, f"{block}/LayerNorm_2", eps)
    y = numpy_vit.mlp(y, p, f"{block}/MlpBlock_3", gelu)
    return z + y * p.get(f"{block}/LayerScale_1/scale", 1.0), weights


def attend(y, p, block, grid, cls, eps):
    """Appendix A, with normalised queries and keys (arXiv 2302.05442) and relative positions (D.4), if any."""
    name = f"{block}/MultiHeadDotProductAttention_1"
    mixed, all_weights = p[f"{name}/out/bias"], []
    for head in range(p[f"{name}/query/kernel"].shape[1]):
        q, k, v = (
            y @ p[f"{name}/{part}/kernel"][:, head] + p[f"{name}/{part}/bias"][head]
            for part in ("query", "key", "value")
        )
        if f"{name}/query_norm/scale" in p:
            q, k = (numpy_vit.layer_norm(x, p, f"{name}/{part}_norm", eps) for x, part in ((q, "query"), (k, "key")))
        logits = np.einsum("bqk,bjk->bqj", q, k)
        if f"{name}/relative_positions/rel_embedding" in p:
            table = p[f"{name}/relative_positions/rel_embedding"][:, head]
            for i in range(logits.shape[1]):
                for j in range(logits.shape[2]):
                    logits[:, i, j] += q[:, i] @ table[offset(i, j, grid[0] * grid[1], cls)]
        scores = np.exp(logits / math.sqrt(q.shape[-1]))
        weights = scores / scores.sum(axis=-1, keepdims=True)
        mixed = mixed + weights @ v @ p[f"{name}/out/kernel"][head]
        all_weights.append(weights)
    return mixed, np.stack(all_weights, axis=1)


def offset(query, key, patches, cls):
    """Entry of the table: p_q - p_k counted from -(patches - 1), then class to class, class to patch, patch to class."""
    if not cls:
        return query - key + patches - 1
    if query and key:
        return query - key + patches - 1
    return 2 * patches - 1 + (0 if query == key else 1 if query == 0 else 2)
