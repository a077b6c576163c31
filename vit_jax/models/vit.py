"""The Vision Transformer (arXiv 2010.11929, section 3, figure 1), its hybrids, and every ablation of it in the paper."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from vit_jax.models import heads
from vit_jax.models.attention import Case, Core
from vit_jax.models.base import DEVICE, HEAD, IDENTITY, TRAINING, ImageModel
from vit_jax.models.embedding import PatchEmbedding, describe_patches, whole_patches
from vit_jax.models.encoder import BlockSettings, Gelu
from vit_jax.models.inputs import check_grid, check_images
from vit_jax.models.positions import Kind, Place, keys_as_queries
from vit_jax.models.resnet import resnet_stem
from vit_jax.models.transformer import Encoder, Remat
from vit_jax.types import Outputs, UserError

CAPTURE = ("layers", "attention")


class VisionTransformer(ImageModel):
    """ViT for images of any (h, w) that the patch divides; the position embeddings fix (h, w) at initialisation.

    Args:
      num_classes: outputs of the head; 0 for no head (`Outputs.logits` is None).
      patch_size: (h, w) of a patch: pixels, or positions of the stem's feature map.
      width: token width d.
      depth: encoder blocks.
      mlp_dim: hidden units of each block's MLP.
      num_heads: attention heads per block.
      stem: `resnet` makes a hybrid: patches are cut from a ResNet's features (section 3.1).
      stem_depths: units per stage of that ResNet; (3, 4, 9) has stride 16, (3, 4, 6, 3) stride 32, () stride 4.
      stem_width: channels of the ResNet's root block.
      pool: `token` reads the class token, `gap` averages the patches, `map` pools by attention; `unpooled` applies the
        head to every token.
      class_token: whether there is a class token; `auto` means for token and unpooled only.
      norm_after_pool: apply the final LayerNorm to the pooled vector (`fc_norm`), as timm's average-pooled models do.
      positions: `learned_1d` (the paper's choice), `learned_2d`, `relative`, `sincos_2d` (fixed) or `none` (table 8);
        `sincos_centred`, a new detector's fixed positions (`Yolos`), for a classifier that will start one; `sincos_mae`, MAE's
        fixed table, kept in the checkpoint; `relative_bias`, BEiT's and SimMIM's bias of the attention.
      positions_at: `stem`, `every_layer` with one table per layer, or `shared`: every layer, one table.
      registers: number of extra learned tokens without position, dropped at the end (arXiv 2309.16588).
      representation_size: units of the tanh layer before the head (pre-training); 0 for none (fine-tuning).
      head_bias: initial bias of the head.
      dropout: rate after every dense layer but the qkv projections, and after adding positions (appendix B.1).
      attention_dropout: rate on attention weights; 0 in the paper.
      stochastic_depth: rate at the last block, growing linearly from 0 at the first (arXiv 1603.09382).
      layer_scale: initial value of a learned factor per channel on each residual branch; 0 for none (arXiv 2103.17239).
      qk_norm: LayerNorm of queries and keys (arXiv 2302.05442).
      axial: attention along rows, then along columns, each with its MLP (appendix D.6).
      gelu: `tanh` (released weights) or `erf` (weights of PyTorch libraries).
      norm_eps: epsilon of every LayerNorm; 1e-6 in released weights, 1e-12 in Hugging Face's.
      scan: run the blocks as a loop in the compiled program: deep models compile faster; their parameters are stacked.
      remat: what the backward pass computes anew to save memory: `none`; `dots` everything in a block but its matrix products;
        `block` whole blocks, for about a third more time; `offload` the same, with the blocks' inputs in the host's memory;
        None for what the device's memory asks for (outside a run, `none`).
      dtype: compute dtype; parameters, softmax, LayerNorm statistics, head and loss are always float32.
      attention: core of the attention: `xla` leaves it to autodiff, `fused` has a backward pass that keeps less, `cudnn` is for
        GPUs and `splash` for TPUs, see `attention.refusal`; None for the one that suits the device. Relative positions and
        captured attention always use `xla`.

    Source: arXiv 2010.11929, eqs. 1-4, table 1.
    """

    family = "vit"

    num_classes: int = dataclasses.field(metadata=HEAD)
    patch_size: tuple[int, int] = (16, 16)
    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    num_heads: int = 12
    stem: Literal["none", "resnet"] = "none"
    stem_depths: tuple[int, ...] = ()
    stem_width: int = 64
    pool: Literal["token", "gap", "map", "unpooled"] = "token"
    class_token: Literal["auto", "yes", "no"] = "auto"
    norm_after_pool: bool = False
    positions: Kind = "learned_1d"
    positions_at: Place = "stem"
    registers: int = 0
    representation_size: int = dataclasses.field(default=0, metadata=HEAD)
    head_bias: float = dataclasses.field(default=0.0, metadata=TRAINING)
    dropout: float = dataclasses.field(default=0.0, metadata=TRAINING)
    attention_dropout: float = dataclasses.field(default=0.0, metadata=TRAINING)
    stochastic_depth: float = dataclasses.field(default=0.0, metadata=TRAINING)
    layer_scale: float = 0.0
    qk_norm: bool = False
    axial: bool = False
    gelu: Gelu = dataclasses.field(default="tanh", metadata=IDENTITY)
    norm_eps: float = dataclasses.field(default=1e-6, metadata=IDENTITY)
    scan: bool = dataclasses.field(default=False, metadata=TRAINING)
    remat: Remat | None = dataclasses.field(default=None, metadata=DEVICE)
    dtype: Literal["float32", "bfloat16"] = dataclasses.field(default="float32", metadata=TRAINING)
    attention: Core | None = dataclasses.field(default=None, metadata=DEVICE)

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is a class token."""
        return self.pool in ("token", "unpooled") if self.class_token == "auto" else self.class_token == "yes"

    @property
    def ends_in_norm(self) -> bool:
        """Whether a LayerNorm follows the last block."""
        return not self.norm_after_pool

    @property
    def stem_stride(self) -> int:
        """Pixels per position of the feature map that patches are cut from; 1 if they are cut from the image."""
        return 2 ** (2 + max(len(self.stem_depths) - 1, 0)) if self.stem == "resnet" else 1

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the patches of an image of (h, w) pixels."""
        h, w = (-(-size // self.stem_stride) for size in resolution)
        return h // self.patch_size[0], w // self.patch_size[1]

    def pixels(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the images that the patches of a grid cover exactly."""
        return grid[0] * self.patch_size[0] * self.stem_stride, grid[1] * self.patch_size[1] * self.stem_stride

    def suit(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """Rounds to whole patches; a hybrid accepts any resolution."""
        return whole_patches(resolution, self.patch_size) if self.stem == "none" else resolution

    def redraw(self, params: dict[str, Any]) -> dict[str, Any]:
        """With a detector's positions keys begin as queries."""
        return keys_as_queries(params) if self.positions == "sincos_centred" else params

    def describe(self, resolution: tuple[int, int]) -> list[tuple[str, str]]:
        """Depth, width and patches, and notes on sizes that train poorly."""
        rows = [("model", f"{self.depth} x {self.width}"), *describe_patches(self.patch_size, self.grid(resolution))]
        if self.width // self.num_heads < 32:
            rows.append(("note", "heads of fewer than 32 dimensions train poorly; lower model.num_heads"))
        return rows

    def attends(self, resolution: tuple[int, int]) -> Case:
        """The attention of the blocks; see `ImageModel.attends`."""
        gh, gw = self.grid(resolution)
        tokens = max(gh, gw) if self.axial else gh * gw + self.has_class_token + self.registers
        relative = self.positions in ("relative", "relative_bias")
        return Case("cpu", tokens, self.width // self.num_heads, self.dtype, relative, self.attention_dropout)

    def layers_flops(self, resolution: tuple[int, int]) -> int:
        """See `ImageModel.layers_flops`."""
        n, d = self.attends(resolution).tokens, self.width
        return (
            6 * self.depth * n * d * (4 * d + 2 * self.mlp_dim + 2 * n)
        )  # a multiply and an add, forward and twice back

    @property
    def first_layer(self) -> str:
        """The patch embedding; in a hybrid, the root convolution."""
        return "conv_root" if self.stem == "resnet" else "embedding"

    @nn.compact
    def __call__(
        self, images: Shaped[ArrayLike, ...], *, train: bool = False, capture: tuple[str, ...] = ()
    ) -> Outputs:
        """Runs the model on float (b, h, w, channels); `capture` may name `layers` and `attention`, free if empty."""
        self._check(capture)
        x, grid = self._embed(images)
        tokens, captured = self._encoder(grid)(self._join_class_token(x), train=train, capture=capture)
        pooled, extra = self._pool(tokens, "attention" in capture)
        pre_logits = pooled
        if self.representation_size:
            pre_logits = jnp.tanh(heads.representation_layer(self.representation_size, x.dtype)(pooled))
        logits = None
        if self.num_classes:
            logits = heads.classifier(self.num_classes, self.head_bias)(pre_logits.astype(jnp.float32))
        return Outputs(tokens, pooled, pre_logits, logits, captured.get("layers"), captured.get("attention"), extra)

    def _embed(self, images: Shaped[ArrayLike, ...]) -> tuple[Float[Array, "b n d"], tuple[int, int]]:
        """Patch embeddings of images that the model accepts, and their grid (gh, gw)."""
        check_images(images, self.variables, self.first_layer)
        x, dtype = jnp.asarray(images), self._settings().dtype
        if self.stem == "resnet":
            x = resnet_stem(x, self.stem_depths, self.stem_width, dtype)
        x = PatchEmbedding(self.width, self.patch_size, dtype, self.stem_stride, name="embedding")(x)
        b, gh, gw, d = x.shape
        check_grid((gh, gw), self.variables, has_class_token=self.has_class_token, patch=self.pixels((1, 1)))
        return x.reshape(b, gh * gw, d), (gh, gw)  # b n d

    def _join_class_token(self, x: Float[Array, "b n d"]) -> Float[Array, "b m d"]:
        """Puts the class token before the patches, if there is one."""
        if not self.has_class_token:
            return x
        b, _, d = x.shape
        token = self.param("cls", nn.initializers.zeros_init(), (1, 1, d), jnp.float32)
        return jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (b, 1, d)), x], axis=1)  # b 1+n d

    def _encoder(self, grid: tuple[int, int]) -> Encoder:
        """The encoder for a grid of patches."""
        return Encoder(
            settings=self._settings(),
            depth=self.depth,
            grid=grid,
            has_class_token=self.has_class_token,
            positions=self.positions,
            positions_at=self.positions_at,
            registers=self.registers,
            stochastic_depth=self.stochastic_depth,
            axial=self.axial,
            final_norm=self.ends_in_norm,
            scan=self.scan,
            remat=self.remat or "none",
            name="Transformer",
        )

    def _pool(
        self, tokens: Float[Array, "b n d"], weights: bool = False
    ) -> tuple[Float[Array, "b d"] | Float[Array, "b n d"], dict[str, Any]]:
        """The pooled tokens and, if `weights` asks for it, the attention of a MAP head, {"probe": (b, heads, n)}."""
        settings, extra = self._settings(), {}
        if self.pool == "token":
            pooled = tokens[:, 0]
        elif self.pool == "gap":
            pooled = tokens[:, int(self.has_class_token) :].mean(axis=1)
        elif self.pool == "map":
            pooled, found = heads.MapHead(settings, name="MAPHead_0")(tokens, weights)
            extra = {} if found is None else {"probe": found[:, :, 0]}
        else:
            pooled = tokens
        return settings.norm("fc_norm")(pooled) if self.norm_after_pool else pooled, extra

    def _settings(self) -> BlockSettings:
        return BlockSettings(
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            dtype=jnp.dtype(self.dtype),
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            layer_scale=self.layer_scale,
            qk_norm=self.qk_norm,
            gelu=self.gelu,
            norm_eps=self.norm_eps,
            attention=self.attention or "fused",
            lean=self.scan and self.attention != "xla",  # unrolled, XLA decides what it computes again
        )

    def _check(self, capture: tuple[str, ...]) -> None:
        """Raises UserError for impossible sizes and rates, and for options that exclude each other."""
        sizes = {key: getattr(self, key) for key in ("width", "depth", "mlp_dim", "num_heads", "stem_width")}
        sizes |= {"patch_size": min(self.patch_size), "stem_depths": min(self.stem_depths, default=1)}
        errors = [f"model.{key} is {value}; expected 1 or more" for key, value in sizes.items() if value < 1]
        rates = {key: getattr(self, key) for key in ("dropout", "attention_dropout", "stochastic_depth")}
        errors += [f"model.{key} is {x}; expected at least 0 and below 1" for key, x in rates.items() if not 0 <= x < 1]
        counts = {key: getattr(self, key) for key in ("num_classes", "registers", "representation_size", "layer_scale")}
        errors += [f"model.{key} is {value}; expected 0 or more" for key, value in counts.items() if value < 0]
        choices = {"stem": ("none", "resnet"), "pool": ("token", "gap", "map", "unpooled"), "gelu": get_args(Gelu)}
        choices |= {"remat": (None, *get_args(Remat)), "attention": (None, *get_args(Core))}
        choices |= {"class_token": ("auto", "yes", "no"), "positions": get_args(Kind), "positions_at": get_args(Place)}
        for key, known in choices.items():
            if getattr(self, key) not in known:
                errors.append(f"model.{key} is {getattr(self, key)!r}; expected {', '.join(map(str, known))}")
        if self.pool == "token" and not self.has_class_token:
            errors.append(
                "model.pool=token reads the class token, and model.class_token=no leaves it out; use pool=gap"
            )
        if self.positions == "relative" and self.positions_at != "every_layer":
            errors.append("model.positions=relative acts in every layer; set model.positions_at=every_layer")
        if self.axial and (self.has_class_token or self.registers):
            errors.append("model.axial mixes rows and columns of patches only; use pool=gap or map, and no registers")
        if self.positions == "relative_bias" and self.positions_at == "stem":
            errors.append(
                "model.positions=relative_bias acts in the layers; set model.positions_at=shared or every_layer"
            )
        if self.positions in ("relative", "relative_bias") and (self.axial or self.registers):
            errors.append(f"model.positions={self.positions} goes with neither axial nor registers")
        elif self.positions != "none" and self.positions_at != "stem" and (self.axial or self.registers):
            errors.append("model.axial and model.registers want positions at the stem; set model.positions_at=stem")
        if set(capture) - set(CAPTURE):
            errors.append(f"capture={capture}; expected any of {', '.join(CAPTURE)}")
        if errors:
            raise UserError("\n".join(errors))
