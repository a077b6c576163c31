"""Masked models in float64 numpy, written from SimMIM's and MAE's papers; the plain encoder is `numpy_vit`."""

import numpy as np
import numpy_vit


def blocks(z, p, prefix, eps=1e-6):
    """The blocks of an encoder, and its last LayerNorm if it has one."""
    layer = 0
    while (block := f"{prefix}/encoderblock_{layer}") + "/LayerNorm_0/scale" in p:
        y = numpy_vit.layer_norm(z, p, f"{block}/LayerNorm_0", eps)
        z = numpy_vit.attention(y, y, p, f"{block}/MultiHeadDotProductAttention_1") + z
        z = numpy_vit.mlp(numpy_vit.layer_norm(z, p, f"{block}/LayerNorm_2", eps), p, f"{block}/MlpBlock_3") + z
        layer += 1
    return numpy_vit.layer_norm(z, p, f"{prefix}/encoder_norm", eps) if f"{prefix}/encoder_norm/scale" in p else z


def dense(x, p, name):
    return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]


def masked(params, images, hidden=None, other=None):
    """(tokens, the decoder's output of each patch) of a masked model with a class token."""
    p = {name: np.asarray(x, np.float64) for name, x in params.items()}
    z = numpy_vit.embed(numpy_vit.pixels(images), p)
    b, n, _ = z.shape
    if other is not None:
        z = np.stack([z[row][other[row]] for row in range(b)])
    for row, patch in np.argwhere(np.zeros((b, n)) if hidden is None else hidden):
        z[row, patch] = p["mask_token"][0, 0]
    z = np.concatenate([np.tile(p["cls"], (b, 1, 1)), z], axis=1) + p[numpy_vit.POSITIONS]
    tokens = blocks(z, p, "Transformer")
    return tokens, dense(tokens[:, 1:], p, "decoder")


def as_image(decoded, grid, patch):
    """Pixel shuffle by loops: output c ph pw of a patch's vector is channel c of row i and column j."""
    b, _, size = decoded.shape
    (gh, gw), (ph, pw) = grid, patch
    image = np.zeros((b, gh * ph, gw * pw, size // (ph * pw)))
    for n, k in np.ndindex(gh * gw, size):
        c, i, j = k // (ph * pw), k // pw % ph, k % pw
        image[:, n // gw * ph + i, n % gw * pw + j, c] = decoded[:, n, k]
    return image


def autoencoder(params, images, noise, keep):
    """(tokens of the visible patches, prediction of each patch, hidden) of an MAE, an image at a time."""
    p = {name: np.asarray(x, np.float64) for name, x in params.items()}
    z = numpy_vit.embed(numpy_vit.pixels(images), p)
    positions, n = p[numpy_vit.POSITIONS][0], z.shape[1]
    tokens, patches, hidden = [], [], np.ones((len(z), n), bool)
    for row, order in enumerate(np.argsort(noise, axis=1)):
        seen = order[:keep]
        hidden[row, seen] = False
        x = np.concatenate([p["cls"][0] + positions[:1], z[row, seen] + positions[1:][seen]])
        x = blocks(x[None], p, "Transformer")
        tokens.append(x[0])
        y = dense(x[0], p, "decoder/embed")
        full = np.tile(p["decoder/mask_token"][0], (n + 1, 1))
        full[0], full[1 + seen] = y[0], y[1:]
        full = blocks((full + p[f"decoder/{numpy_vit.POSITIONS}"][0])[None], p, "decoder/Transformer")
        patches.append(dense(full[0, 1:], p, "decoder/pred"))
    return np.stack(tokens), np.stack(patches), hidden
