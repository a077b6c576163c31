"""The ResNets in float64 numpy, written from their papers (arXiv 1603.05027, 1903.10520, 1912.11370) and the releases' paddings.

Parameters are flat dictionaries; names of the hybrids' stem are those of the released files.
"""

import itertools

import numpy as np


def conv2d(x, kernel, stride, pads):
    """Cross-correlation of x (b, h, w, c) with kernel (kh, kw, c, out); pads is ((top, bottom), (left, right)) of zeros."""
    kh, kw = kernel.shape[:2]
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = ((size - k) // stride + 1 for size, k in ((x.shape[1], kh), (x.shape[2], kw)))
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i, j in itertools.product(range(rows), range(columns)):
        window = x[:, i * stride : i * stride + kh, j * stride : j * stride + kw]
        out[:, i, j] = window.reshape(len(x), -1) @ kernel.reshape(-1, kernel.shape[3])
    return out


def same(size, side, stride):
    """TensorFlow's SAME: as many outputs as strides begin within the input, the odd zero behind."""
    total = max((-(-size // stride) - 1) * stride + side - size, 0)
    return total // 2, total - total // 2


def standardized(kernel, eps, under_root):
    flat = kernel.reshape(-1, kernel.shape[-1])
    out = np.zeros_like(flat)
    for channel in range(flat.shape[1]):
        values = flat[:, channel] - flat[:, channel].mean()
        variance = (values**2).mean()
        out[:, channel] = values / (np.sqrt(variance + eps) if under_root else np.sqrt(variance) + eps)
    return out.reshape(kernel.shape)


def group_norm(x, p, name, eps):
    """Each example's groups of channels have mean 0 and variance 1 over positions and channels; 32 groups at most."""
    out = np.zeros_like(x)
    channels = x.shape[-1]
    groups = min(32, channels)
    size = channels // groups
    for example, group in itertools.product(range(len(x)), range(groups)):
        part = x[example, :, :, group * size : (group + 1) * size]
        out[example, :, :, group * size : (group + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + eps)
    return out * p[f"{name}/scale"] + p[f"{name}/bias"]


def max_pool(x, pads, beyond):
    """The largest value of 3x3, every second position."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=beyond)
    rows, columns = ((size - 3) // 2 + 1 for size in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, x.shape[3]))
    for i, j in itertools.product(range(rows), range(columns)):
        out[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2))
    return out


def relu(x):
    return np.maximum(x, 0)


def residual_unit(p, name, x, stride, *, conv_eps=1e-5, under_root=False, norm_eps=1e-6):
    """Post-activation, SAME."""

    def conv(x, part, stride=1):
        return same_conv(p, f"{name}{part}", x, stride, conv_eps, under_root)

    def norm(x, part):
        return group_norm(x, p, f"{name}{part}", norm_eps)

    y = relu(norm(conv(x, "conv1"), "gn1"))
    y = relu(norm(conv(y, "conv2", stride), "gn2"))
    y = norm(conv(y, "conv3"), "gn3")
    if f"{name}conv_proj/kernel" in p:
        x = norm(conv(x, "conv_proj", stride), "gn_proj")
    return relu(x + y)


def same_conv(p, name, x, stride, eps, under_root):
    kernel = standardized(p[f"{name}/kernel"], eps, under_root)
    return conv2d(x, kernel, stride, [same(size, kernel.shape[0], stride) for size in x.shape[1:3]])


def stem(p, x, depths, *, pool_pads=None, **eps):
    """The stem of a hybrid."""
    conv_eps, under_root = eps.get("conv_eps", 1e-5), eps.get("under_root", False)
    x = same_conv(p, "conv_root", x, 2, conv_eps, under_root)
    x = relu(group_norm(x, p, "gn_root", eps.get("norm_eps", 1e-6)))
    x = max_pool(x, pool_pads or [same(size, 3, 2) for size in x.shape[1:3]], -np.inf)
    for stage, depth in enumerate(depths, 1):
        for unit in range(1, depth + 1):
            stride = 2 if stage > 1 and unit == 1 else 1
            x = residual_unit(p, f"block{stage}/unit{unit}/", x, stride, **eps)
    return x


def preactivation_unit(p, name, x, stride, *, conv_eps=1e-10, under_root=True, norm_eps=1e-5):
    """Pre-activation, padded evenly."""

    def conv(x, part, stride=1):
        return even_conv(p, f"{name}{part}", x, stride, conv_eps, under_root)

    def activated(x, part):
        return relu(group_norm(x, p, f"{name}{part}", norm_eps))

    first = activated(x, "gn1")
    if f"{name}conv_proj/kernel" in p:
        x = conv(first, "conv_proj", stride)
    y = conv(activated(conv(first, "conv1"), "gn2"), "conv2", stride)
    return x + conv(activated(y, "gn3"), "conv3")


def even_conv(p, name, x, stride, eps, under_root):
    kernel = standardized(p[f"{name}/kernel"], eps, under_root)
    pad = kernel.shape[0] // 2
    return conv2d(x, kernel, stride, ((pad, pad), (pad, pad)))


def bit(p, x, depths, *, beyond=0.0, **eps):
    """BiT; returns the last features. `beyond` is what the max-pool sees beyond the border."""
    x = even_conv(p, "conv_root", x, 2, eps.get("conv_eps", 1e-10), eps.get("under_root", True))
    x = max_pool(x, ((1, 1), (1, 1)), beyond)
    for stage, depth in enumerate(depths, 1):
        for unit in range(1, depth + 1):
            stride = 2 if stage > 1 and unit == 1 else 1
            x = preactivation_unit(p, f"block{stage}/unit{unit}/", x, stride, **eps)
    return relu(group_norm(x, p, "gn_final", eps.get("norm_eps", 1e-5)))


def stem_shapes(depths, width):
    """Names and shapes of a hybrid's stem, as in the released files."""
    shapes = {"conv_root/kernel": (7, 7, 3, width), "gn_root/scale": (width,), "gn_root/bias": (width,)}
    channels = width
    for stage, depth in enumerate(depths, 1):
        middle = width * 2 ** (stage - 1)
        for unit in range(1, depth + 1):
            name = f"block{stage}/unit{unit}"
            kernels = {"conv1": (1, channels, middle), "conv2": (3, middle, middle), "conv3": (1, middle, 4 * middle)}
            norms = {"gn1": middle, "gn2": middle, "gn3": 4 * middle}
            if unit == 1:
                kernels["conv_proj"], norms["gn_proj"] = (1, channels, 4 * middle), 4 * middle
            shapes |= {f"{name}/{conv}/kernel": (k, k, i, o) for conv, (k, i, o) in kernels.items()}
            shapes |= {f"{name}/{norm}/{leaf}": (size,) for norm, size in norms.items() for leaf in ("scale", "bias")}
            channels = 4 * middle
    return shapes


def bit_shapes(depths, width):
    """Names and shapes of a BiT without its head: norms are of what goes into the convolutions, none of a projection."""
    shapes = {}
    channels = width
    for name, shape in stem_shapes(depths, width).items():
        if "conv" in name:
            shapes[name] = shape
    for stage, depth in enumerate(depths, 1):
        middle = width * 2 ** (stage - 1)
        for unit in range(1, depth + 1):
            sizes = {"gn1": channels, "gn2": middle, "gn3": middle}
            shapes |= {
                f"block{stage}/unit{unit}/{norm}/{leaf}": (size,)
                for norm, size in sizes.items()
                for leaf in ("scale", "bias")
            }
            channels = 4 * middle
    return shapes | {"gn_final/scale": (channels,), "gn_final/bias": (channels,)}
