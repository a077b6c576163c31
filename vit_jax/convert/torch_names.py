"""Maps names and layouts of parameters between vit_jax and PyTorch's two ViT libraries, Hugging Face transformers and timm.

A rule pairs a foreign name with a vit_jax name and gives the tensor's layout. Every layout has an exact inverse, so a tensor that
is written and read again is equal to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from vit_jax.types import UserError, counted, itemize

BLOCK = "Transformer/encoderblock_{i}"
ATTENTION = f"{BLOCK}/MultiHeadDotProductAttention_1"

# (foreign name, vit_jax name, layout). `{i}` is the layer. A `same` tensor is named in full; the other layouts stand for a
# layer's weight and bias.
HUGGING_FACE = (
    ("embeddings.cls_token", "cls", "same"),
    ("embeddings.mask_token", "mask_token", "same"),
    ("decoder.0", "decoder", "conv_1x1"),
    ("embeddings.position_embeddings", "Transformer/posembed_input/pos_embedding", "same"),
    ("embeddings.patch_embeddings.projection", "embedding", "conv"),
    ("encoder.layer.{i}.layernorm_before", f"{BLOCK}/LayerNorm_0", "norm"),
    ("encoder.layer.{i}.attention.attention.query", f"{ATTENTION}/query", "to_heads"),
    ("encoder.layer.{i}.attention.attention.key", f"{ATTENTION}/key", "to_heads"),
    ("encoder.layer.{i}.attention.attention.value", f"{ATTENTION}/value", "to_heads"),
    ("encoder.layer.{i}.attention.output.dense", f"{ATTENTION}/out", "from_heads"),
    ("encoder.layer.{i}.layernorm_after", f"{BLOCK}/LayerNorm_2", "norm"),
    ("encoder.layer.{i}.intermediate.dense", f"{BLOCK}/MlpBlock_3/Dense_0", "dense"),
    ("encoder.layer.{i}.output.dense", f"{BLOCK}/MlpBlock_3/Dense_1", "dense"),
    ("layernorm", "Transformer/encoder_norm", "norm"),
    ("pooler.dense", "pre_logits", "dense"),
    ("classifier", "head", "dense"),
)

# Names that transformers 5 gives the same tensors in memory (its files keep the names above).
HUGGING_FACE_5 = (
    ("layers.{i}.attention.q_proj", "encoder.layer.{i}.attention.attention.query"),
    ("layers.{i}.attention.k_proj", "encoder.layer.{i}.attention.attention.key"),
    ("layers.{i}.attention.v_proj", "encoder.layer.{i}.attention.attention.value"),
    ("layers.{i}.attention.o_proj", "encoder.layer.{i}.attention.output.dense"),
    ("layers.{i}.mlp.fc1", "encoder.layer.{i}.intermediate.dense"),
    ("layers.{i}.mlp.fc2", "encoder.layer.{i}.output.dense"),
    ("layers.{i}.layernorm_before", "encoder.layer.{i}.layernorm_before"),
    ("layers.{i}.layernorm_after", "encoder.layer.{i}.layernorm_after"),
)

TIMM = (
    ("cls_token", "cls", "same"),
    ("reg_token", "Transformer/registers", "same"),
    ("pos_embed", "Transformer/posembed_input/pos_embedding", "same"),
    ("patch_embed.proj", "embedding", "conv"),
    ("blocks.{i}.norm1", f"{BLOCK}/LayerNorm_0", "norm"),
    ("blocks.{i}.attn.qkv", f"{ATTENTION}/query|key|value", "to_heads"),
    ("blocks.{i}.attn.q_norm", f"{ATTENTION}/query_norm", "norm"),
    ("blocks.{i}.attn.k_norm", f"{ATTENTION}/key_norm", "norm"),
    ("blocks.{i}.attn.proj", f"{ATTENTION}/out", "from_heads"),
    ("blocks.{i}.ls1.gamma", f"{BLOCK}/LayerScale_0/scale", "same"),
    ("blocks.{i}.norm2", f"{BLOCK}/LayerNorm_2", "norm"),
    ("blocks.{i}.mlp.fc1", f"{BLOCK}/MlpBlock_3/Dense_0", "dense"),
    ("blocks.{i}.mlp.fc2", f"{BLOCK}/MlpBlock_3/Dense_1", "dense"),
    ("blocks.{i}.ls2.gamma", f"{BLOCK}/LayerScale_1/scale", "same"),
    ("norm", "Transformer/encoder_norm", "norm"),
    ("fc_norm", "fc_norm", "norm"),
    ("head", "head", "dense"),
)


# An MAE's decoder, whose names `decoder_name` makes from those of transformers and of MAE's own files.
DECODER = (
    ("mask_token", "decoder/mask_token", "same"),
    ("pos_embed", "decoder/Transformer/posembed_input/pos_embedding", "same"),
    ("embed", "decoder/embed", "dense"),
    ("norm", "decoder/Transformer/encoder_norm", "norm"),
    ("pred", "decoder/pred", "dense"),
)
HUGGING_FACE_DECODER = DECODER + tuple(
    (theirs, f"decoder/{ours}", kind) for theirs, ours, kind in HUGGING_FACE if theirs.startswith("encoder.layer")
)
TIMM_DECODER = DECODER + tuple(
    (theirs, f"decoder/{ours}", kind) for theirs, ours, kind in TIMM if theirs.startswith("blocks.")
)


class Layout(NamedTuple):
    """Converts a weight from PyTorch's layout (out, in, ...), and back; `heads` splits a width into (heads, k)."""

    weight_name: str
    weight: Callable[[np.ndarray, int], np.ndarray]
    weight_back: Callable[[np.ndarray], np.ndarray]
    bias: Callable[[np.ndarray, int], np.ndarray] = lambda x, heads: x
    bias_back: Callable[[np.ndarray], np.ndarray] = lambda x: x
    rank: int = 2


LAYOUTS = {
    "norm": Layout("scale", lambda x, heads: x, lambda x: x, rank=1),
    "dense": Layout("kernel", lambda x, heads: x.T, lambda x: x.T),
    "conv_1x1": Layout("kernel", lambda x, heads: x.reshape(x.shape[:2]).T, lambda x: x.T[:, :, None, None], rank=4),
    "conv": Layout("kernel", lambda x, heads: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1), rank=4),
    "to_heads": Layout(
        "kernel",
        lambda x, heads: x.T.reshape(x.shape[1], heads, -1),
        lambda x: x.reshape(x.shape[0], -1).T,
        lambda x, heads: x.reshape(heads, -1),
        lambda x: x.reshape(-1),
    ),
    "from_heads": Layout(
        "kernel", lambda x, heads: x.T.reshape(heads, -1, x.shape[0]), lambda x: x.reshape(-1, x.shape[-1]).T
    ),
}


class Entry(NamedTuple):
    """One foreign tensor: the vit_jax tensors that it holds (three for a fused qkv), in order, and the maps both ways."""

    ours: tuple[str, ...]
    to_native: Callable[[np.ndarray, int], np.ndarray]
    to_foreign: Callable[[np.ndarray], np.ndarray]
    rank: int | None = None  # axes of the foreign tensor; None if the vit_jax tensor is the same


def expand(rules: tuple[tuple[str, str, str], ...], depth: int) -> dict[str, Entry]:
    """{full foreign name: Entry} for a model of `depth` layers."""
    entries = {}
    for foreign, ours, kind in rules:
        for i in range(depth) if "{i}" in foreign else (0,):
            theirs, native = foreign.format(i=i), ours.format(i=i)
            if kind == "same":
                entries[theirs] = Entry((native,), lambda x, heads: x, lambda x: x)
                continue
            layout = LAYOUTS[kind]
            first, *others = native.split("|")
            layers = [first, *(f"{first.rpartition('/')[0]}/{other}" for other in others)]
            kernels = tuple(f"{layer}/{layout.weight_name}" for layer in layers)
            entries[f"{theirs}.weight"] = Entry(kernels, layout.weight, layout.weight_back, layout.rank)
            entries[f"{theirs}.bias"] = Entry(tuple(f"{x}/bias" for x in layers), layout.bias, layout.bias_back, 1)
    return entries


def count_layers(names: Mapping[str, np.ndarray] | set[str]) -> int:
    """Number of blocks in a foreign file's names; an absurd block number counts as one block."""
    matches = (re.search(r"(?:^|\.)(?:blocks|layers?)\.(\d+)\.", name) for name in names)
    return len({match[1] for match in matches if match})


def to_native(
    tensors: Mapping[str, np.ndarray], rules: tuple[tuple[str, str, str], ...], num_heads: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a foreign file's tensors to vit_jax names and layouts.

    Args:
      tensors: {foreign name: array}.
      rules: `HUGGING_FACE` or `TIMM`.
      num_heads: heads of every block, which the arrays do not show.

    Returns:
      ({vit_jax name: array}; tensors that match no rule, or whose rank differs from the rule's, keep their foreign names,
      {vit_jax name: foreign name}).

    Raises:
      UserError: two tensors map to one vit_jax name.
    """
    entries = expand(rules, count_layers(tensors))
    out: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for name, x in tensors.items():
        entry = entries.get(name)
        try:
            if entry is None or x.shape[0] % len(entry.ours) or entry.rank not in (None, x.ndim):
                raise ValueError
            parts = {
                ours: entry.to_native(part, num_heads)
                for ours, part in zip(entry.ours, np.split(x, len(entry.ours)), strict=True)
            }
        except (ValueError, IndexError):
            parts = {name: x}
        if twice := sorted(set(parts) & set(out)):
            raise UserError(f"{origin[twice[0]]} and {name} stand for one and the same tensor, {twice[0]}")
        out |= parts
        origin |= dict.fromkeys(parts, name)
    return out, origin


def to_foreign(
    tensors: Mapping[str, np.ndarray], rules: tuple[tuple[str, str, str], ...], depth: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The inverse of `to_native`: (foreign tensors, vit_jax names that match no rule)."""
    out, left = {}, set(tensors)
    for name, entry in expand(rules, depth).items():
        if all(ours in tensors for ours in entry.ours):
            out[name] = np.concatenate([entry.to_foreign(tensors[ours]) for ours in entry.ours])
            left -= set(entry.ours)
    return out, sorted(left)


def hub_name(name: str) -> str:
    """A transformers tensor's name on the hub: without `vit.`, and with the block names from before version 5."""
    plain = name.removeprefix("vit.").replace("encoder.interpolation.mid_position", "encoder.mid_position")
    for new, old in HUGGING_FACE_5:
        pattern = re.escape(new).replace(r"\{i\}", r"(\d+)") + r"\.(weight|bias)"
        if match := re.fullmatch(pattern, plain):
            return f"{old.format(i=match[1])}.{match[2]}"
    return plain


def decoder_name(name: str) -> str:
    """The name in `DECODER`'s tables of a tensor of an MAE's decoder; "" for a tensor of anything else.

    transformers writes `decoder.decoder_layers.0.`, or by a slip of some versions 5 `decoder.decoder_encoder.layer.0.`; in memory
    its blocks have the names of version 5. MAE's own files say `decoder_blocks.0.`.
    """
    inner = name.removeprefix("decoder.")
    if inner == "mask_token":
        return inner
    if not inner.startswith("decoder_"):
        return ""
    plain = inner.removeprefix("decoder_")
    if plain.startswith("layers."):
        on_disk = hub_name(plain)
        return on_disk if on_disk != plain else f"encoder.layer.{plain.removeprefix('layers.')}"
    return plain


def hugging_face_decoder_name(name: str) -> str:
    """The inverse of `decoder_name`: transformers' name, on disk, of a tensor of an MAE's decoder."""
    if name == "mask_token":
        return "decoder.mask_token"
    if name.startswith("encoder.layer."):
        return f"decoder.decoder_layers.{name.removeprefix('encoder.layer.')}"
    return f"decoder.decoder_{name}"


def check_left(form: str, left: list[str]) -> None:
    """Refuses to write a model of which tensors are left that a format has no name for.

    Raises:
      UserError: names them.
    """
    if left:
        raise UserError(
            f"--format={form} has no place for {counted(len(left), 'tensor')}; use npz or orbax:\n{itemize(left)}"
        )
