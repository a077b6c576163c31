"""The Vision Transformer (arXiv 2010.11929, section 3, figure 1), its hybrids, and every ablation of it in the paper."""

from __future__ import annotations

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from vit_jax.models import heads, initializers
from vit_jax.models.dropout import Dropout
from vit_jax.models.embedding import PatchEmbedding
from vit_jax.models.encoder import AxialBlock, BlockSettings, EncoderBlock, Gelu
from vit_jax.models.inputs import check_grid, check_images
from vit_jax.models.positions import Kind, Place, PositionEmbedding
from vit_jax.models.resnet import resnet_stem
from vit_jax.types import Outputs, UserError

CAPTURE = ("layers", "attention")


class Encoder(nn.Module):
    """Positions, dropout, registers, `depth` blocks and the final LayerNorm; the `Transformer` of the released tree.

    Args:
      settings: of every block.
      depth: blocks.
      grid: (gh, gw) of the patches.
      has_class_token: whether token 0 is the class token.
      final_norm: whether a LayerNorm follows the last block.
      Others: as `VisionTransformer`.
    """

    settings: BlockSettings
    depth: int
    grid: tuple[int, int]
    has_class_token: bool
    positions: Kind
    positions_at: Place
    registers: int
    stochastic_depth: float
    axial: bool
    final_norm: bool
    scan: bool
    remat: bool

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b n d"], *, train: bool, capture: tuple[str, ...] = ()
    ) -> tuple[Float[Array, "b n d"], dict[str, tuple]]:
        """Returns the encoded tokens, registers left out, and what was captured, one entry per block."""
        first = int(self.has_class_token)
        x, shared = self.add_positions(tokens)
        x = Dropout(self.settings.dropout)(x, train)
        if self.registers:
            b, _, d = x.shape
            registers = self.param("registers", initializers.normal(stddev=0.02), (1, self.registers, d), jnp.float32)
            registers = jnp.broadcast_to(registers.astype(x.dtype), (b, self.registers, d))
            x = jnp.concatenate([x[:, :first], registers, x[:, first:]], axis=1)  # b 1+registers+n d
        rates = None
        if self.stochastic_depth:
            rates = self.stochastic_depth * jnp.arange(self.depth, dtype=jnp.float32) / max(self.depth - 1, 1)
        run = self.scan_blocks if self.scan else self.loop_blocks
        x, captured = run(x, rates, shared, train, capture)
        if self.registers:
            x = jnp.concatenate([x[:, :first], x[:, first + self.registers :]], axis=1)
        return self.settings.norm("encoder_norm")(x) if self.final_norm else x, captured

    def add_positions(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b n d"], Float[Array, "1 n d"] | None]:
        """Adds positions at the stem; or returns those that every block adds."""
        if self.positions in ("none", "relative") or self.positions_at == "every_layer":
            return x, None
        table = PositionEmbedding(
            self.positions, self.grid, self.has_class_token, self.settings.dtype, name="posembed_input"
        )(x)
        return (x + table, None) if self.positions_at == "stem" else (x, table)

    def block(self, train: bool, capture: tuple[str, ...]) -> tuple[type[nn.Module], dict]:
        """The class of a block, and its fields."""
        fields: dict = {"settings": self.settings, "train": train, "capture": capture}
        if self.axial:
            return AxialBlock, fields | {"grid": self.grid}
        if self.positions == "relative":
            fields["relative"] = (*self.grid, self.has_class_token)
        elif self.positions != "none" and self.positions_at == "every_layer":
            fields["positions"] = (self.positions, self.grid, self.has_class_token)
        return EncoderBlock, fields

    def loop_blocks(self, x, rates, shared, train, capture):
        """The blocks one after the other, with parameters of their own: `encoderblock_0`, ..."""
        kind, fields = self.block(train, capture)
        kind = nn.remat(kind) if self.remat else kind
        kind = nn.jit(kind)  # traced once and not once per layer; XLA inlines it
        captured: dict[str, tuple] = dict.fromkeys(capture, ())
        for layer in range(self.depth):
            rate = None if rates is None else rates[layer]
            x, found = kind(**fields, name=f"encoderblock_{layer}")(x, rate, shared)
            captured = {name: (*captured[name], value) for name, value in found.items()}
        return x, captured

    def scan_blocks(self, x, rates, shared, train, capture):
        """The same as a loop of the compiled program, its parameters stacked along a first axis: `encoderblock`."""
        kind, fields = self.block(train, capture)
        kind = nn.remat(kind, prevent_cse=False) if self.remat else kind
        scanned = nn.scan(
            kind,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast if rates is None else 0, nn.broadcast),
            length=self.depth,
        )
        x, found = scanned(**fields, name="encoderblock")(x, rates, shared)
        return x, {name: tuple(value) for name, value in found.items()}


class VisionTransformer(nn.Module):
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
      stem_width: channels of its root block.
      pool: `token` reads the class token, `gap` averages the patches, `map` pools by attention; `unpooled` applies the
        head to every token.
      class_token: whether there is one; `auto` for token and unpooled only.
      norm_after_pool: the final LayerNorm acts on the pooled vector (`fc_norm`), as timm's average-pooled models have it.
      positions: `learned_1d` (the paper's choice), `learned_2d`, `relative`, `sincos_2d` (fixed) or `none` (table 8).
      positions_at: `stem`, `every_layer` with a table each, or `shared`: every layer, one table.
      registers: extra learned tokens without position, dropped at the end (arXiv 2309.16588).
      representation_size: units of the tanh layer before the head (pre-training); 0 for none (fine-tuning).
      head_bias: initial bias of the head.
      dropout: rate after every dense layer but the qkv projections, and after adding positions (appendix B.1).
      attention_dropout: rate on attention weights; 0 in the paper.
      stochastic_depth: rate at the last block, growing linearly from 0 at the first (arXiv 1603.09382).
      layer_scale: initial value of a learned factor per channel on each residual branch; 0 for none (arXiv 2103.17239).
      qk_norm: LayerNorm of queries and keys (arXiv 2302.05442).
      axial: attention along rows, then along columns, each with its MLP (appendix D.6).
      gelu: `tanh` (released weights) or `erf` (weights of PyTorch libraries).
      norm_eps: of every LayerNorm; 1e-6 in released weights, 1e-12 in Hugging Face's.
      scan: the blocks are a loop of the compiled program: compiles faster when deep, stacks their parameters.
      remat: recompute each block's activations in the backward pass: less memory, about a third more time.
      dtype: compute dtype; parameters, softmax, LayerNorm statistics, head and loss are float32 in either case.

    Source: arXiv 2010.11929, eqs. 1-4, table 1.
    """

    num_classes: int
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
    representation_size: int = 0
    head_bias: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    layer_scale: float = 0.0
    qk_norm: bool = False
    axial: bool = False
    gelu: Gelu = "tanh"
    norm_eps: float = 1e-6
    scan: bool = False
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is a class token."""
        return self.pool in ("token", "unpooled") if self.class_token == "auto" else self.class_token == "yes"

    @property
    def stem_stride(self) -> int:
        """Pixels per position of the feature map that patches are cut from; 1 where it is the image itself."""
        return 2 ** (2 + max(len(self.stem_depths) - 1, 0)) if self.stem == "resnet" else 1

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the patches of an image of (h, w) pixels."""
        h, w = (-(-size // self.stem_stride) for size in resolution)
        return h // self.patch_size[0], w // self.patch_size[1]

    @nn.compact
    def __call__(
        self, images: Shaped[ArrayLike, ...], *, train: bool = False, capture: tuple[str, ...] = ()
    ) -> Outputs:
        """Runs the model on float (b, h, w, channels); `capture` asks for `layers` or `attention`, free if not asked."""
        self._check(capture)
        check_images(images, self.variables, "conv_root" if self.stem == "resnet" else "embedding")
        settings, x = self._settings(), jnp.asarray(images)
        dtype = settings.dtype
        if self.stem == "resnet":
            x = resnet_stem(x, self.stem_depths, self.stem_width, dtype)
        x = PatchEmbedding(self.width, self.patch_size, dtype, self.stem_stride, name="embedding")(x)
        b, gh, gw, d = x.shape
        pixels = self.patch_size[0] * self.stem_stride, self.patch_size[1] * self.stem_stride
        check_grid((gh, gw), self.variables, has_class_token=self.has_class_token, patch=pixels)
        x = x.reshape(b, gh * gw, d)  # b n d
        if self.has_class_token:
            token = self.param("cls", nn.initializers.zeros_init(), (1, 1, d), jnp.float32)
            x = jnp.concatenate([jnp.broadcast_to(token.astype(dtype), (b, 1, d)), x], axis=1)  # b 1+n d
        encoder = Encoder(
            settings=settings,
            depth=self.depth,
            grid=(gh, gw),
            has_class_token=self.has_class_token,
            positions=self.positions,
            positions_at=self.positions_at,
            registers=self.registers,
            stochastic_depth=self.stochastic_depth,
            axial=self.axial,
            final_norm=not self.norm_after_pool,
            scan=self.scan,
            remat=self.remat,
            name="Transformer",
        )
        tokens, captured = encoder(x, train=train, capture=capture)
        pooled = self._pool(tokens)
        pre_logits = pooled
        if self.representation_size:
            pre_logits = jnp.tanh(heads.representation_layer(self.representation_size, dtype)(pooled))
        logits = None
        if self.num_classes:
            logits = heads.classifier(self.num_classes, self.head_bias)(pre_logits.astype(jnp.float32))
        return Outputs(tokens, pooled, pre_logits, logits, captured.get("layers"), captured.get("attention"))

    def _pool(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b d"] | Float[Array, "b n d"]:
        settings = self._settings()
        if self.pool == "token":
            pooled = tokens[:, 0]
        elif self.pool == "gap":
            pooled = tokens[:, int(self.has_class_token) :].mean(axis=1)
        elif self.pool == "map":
            pooled = heads.MapHead(settings, name="MAPHead_0")(tokens)
        else:
            pooled = tokens
        return settings.norm("fc_norm")(pooled) if self.norm_after_pool else pooled

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
        )

    def _check(self, capture: tuple[str, ...]) -> None:
        """Raises UserError for sizes and rates that no model has, and for options that exclude each other."""
        sizes = {key: getattr(self, key) for key in ("width", "depth", "mlp_dim", "num_heads", "stem_width")}
        sizes |= {"patch_size": min(self.patch_size), "stem_depths": min(self.stem_depths, default=1)}
        errors = [f"model.{key} is {value}; expected 1 or more" for key, value in sizes.items() if value < 1]
        rates = {key: getattr(self, key) for key in ("dropout", "attention_dropout", "stochastic_depth")}
        errors += [f"model.{key} is {x}; expected at least 0 and below 1" for key, x in rates.items() if not 0 <= x < 1]
        counts = {key: getattr(self, key) for key in ("num_classes", "registers", "representation_size", "layer_scale")}
        errors += [f"model.{key} is {value}; expected 0 or more" for key, value in counts.items() if value < 0]
        choices = {"stem": ("none", "resnet"), "pool": ("token", "gap", "map", "unpooled"), "gelu": get_args(Gelu)}
        choices |= {"class_token": ("auto", "yes", "no"), "positions": get_args(Kind), "positions_at": get_args(Place)}
        for key, known in choices.items():
            if getattr(self, key) not in known:
                errors.append(f"model.{key} is {getattr(self, key)!r}; expected {', '.join(known)}")
        if self.pool == "token" and not self.has_class_token:
            errors.append(
                "model.pool=token reads the class token, and model.class_token=no leaves it out; use pool=gap"
            )
        if self.positions == "relative" and self.positions_at != "every_layer":
            errors.append("model.positions=relative acts in every layer; set model.positions_at=every_layer")
        if self.axial and (self.has_class_token or self.registers):
            errors.append("model.axial mixes rows and columns of patches only; use pool=gap or map, and no registers")
        if self.positions == "relative" and (self.axial or self.registers):
            errors.append("model.positions=relative goes with neither axial nor registers")
        elif self.positions != "none" and self.positions_at != "stem" and (self.axial or self.registers):
            errors.append("model.axial and model.registers want positions at the stem; set model.positions_at=stem")
        if set(capture) - set(CAPTURE):
            errors.append(f"capture={capture}; expected any of {', '.join(CAPTURE)}")
        if errors:
            raise UserError("\n".join(errors))
