"""Models that predict patches hidden from them: masked image modelling with a mask token, and MAE (arXiv 2111.06377).

Their encoders are Vision Transformers under the released names, so a classifier starts from one of them, or one of them from a
classifier. Which patches are hidden is an argument of a call, which the objective draws: without it, the encoder sees them all.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from vit_jax.models import initializers
from vit_jax.models.base import HEAD, TRAINING
from vit_jax.models.encoder import BlockSettings
from vit_jax.models.inputs import check_per_patch
from vit_jax.models.positions import Kind
from vit_jax.models.transformer import Encoder, Remat
from vit_jax.models.vit import VisionTransformer
from vit_jax.types import Outputs, UserError

COLOURS = 512  # 3-bit colours: 8 levels of red, green and blue


class MaskedViT(VisionTransformer):
    """A ViT whose hidden patches are replaced by a learned token, and a linear decoder that predicts each patch.

    With `decoder=pixels` this is SimMIM's and Hugging Face's masked image model; the other decoders are for the paper's masked
    patch prediction.

    Args:
      num_classes: always 0: there is no head.
      decoder: what is predicted of a patch, and its name in `Outputs.extra`: its `pixels`, as an image (b, h, w, channels) in the
        range of the model's images; or logits of 3-bit colours, `mean_colour` (b, n, 512) or `patch_4x4` (b, n, 16, 512).
      final_norm: whether a LayerNorm follows the last block.
      Others: see `VisionTransformer`.

    Source: arXiv 2111.09886 section 3; transformers' `ViTForMaskedImageModeling`; arXiv 2010.11929 appendix B.1.2.
    """

    num_classes: int = dataclasses.field(default=0, metadata=HEAD)
    decoder: Literal["pixels", "mean_colour", "patch_4x4"] = dataclasses.field(default="pixels", metadata=TRAINING)
    final_norm: bool = True

    classifies = False

    @property
    def ends_in_norm(self) -> bool:
        """Whether a LayerNorm follows the last block."""
        return self.final_norm and not self.norm_after_pool

    @nn.compact
    def __call__(
        self,
        images: Shaped[ArrayLike, ...],
        *,
        train: bool = False,
        capture: tuple[str, ...] = (),
        hidden: Shaped[ArrayLike, ...] | None = None,
        other: Int[ArrayLike, ...] | None = None,
    ) -> Outputs:
        """Runs the model on float (b, h, w, channels).

        Args:
          images, train, capture: see `VisionTransformer`.
          hidden: bool (b, n), patches whose embedding the mask token replaces; None for none.
          other: int (b, n), for each patch the patch of the same image whose embedding takes its place; None for its own.
        """
        self._check(capture)
        if self.decoder not in ("pixels", "mean_colour", "patch_4x4"):
            raise UserError(f"model.decoder is {self.decoder!r}; expected pixels, mean_colour or patch_4x4")
        x, grid = self._embed(images)
        check_per_patch({"hidden": hidden, "other": other}, (x.shape[0], x.shape[1]))
        if other is not None:
            x = jnp.take_along_axis(x, jnp.asarray(other)[..., None], axis=1)  # b n d
        token = self.param("mask_token", initializers.normal(stddev=0.02), (1, 1, self.width), jnp.float32)
        if hidden is not None:
            x = jnp.where(jnp.asarray(hidden).astype(bool)[..., None], token.astype(x.dtype), x)
        tokens, captured = self._encoder(grid)(self._join_class_token(x), train=train, capture=capture)
        pooled, _ = self._pool(tokens)
        decoded = self._decode(tokens[:, int(self.has_class_token) :], grid, jnp.shape(images)[-1])
        found = captured.get("layers"), captured.get("attention")
        return Outputs(tokens, pooled, pooled, None, *found, extra={self.decoder: decoded})

    def _decode(self, x: Float[Array, "b n d"], grid: tuple[int, int], channels: int) -> Float[Array, ...]:
        """The prediction of each patch from its own token, in float32."""
        ph, pw = self.pixels((1, 1))
        size = {"pixels": channels * ph * pw, "mean_colour": COLOURS, "patch_4x4": 16 * COLOURS}[self.decoder]
        x = nn.Dense(size, dtype=jnp.float32, kernel_init=initializers.xavier_uniform(), name="decoder")(
            x.astype(jnp.float32)
        )
        b, n, _ = x.shape
        if self.decoder == "mean_colour":
            return x
        if self.decoder == "patch_4x4":
            return x.reshape(b, n, 16, COLOURS)
        gh, gw = grid
        x = x.reshape(b, gh, gw, channels, ph, pw).transpose(0, 1, 4, 2, 5, 3)  # b gh ph gw pw channels
        return x.reshape(b, gh * ph, gw * pw, channels)


class MaskedAutoencoder(VisionTransformer):
    """MAE: the encoder sees only the patches that are not hidden, and a small Transformer predicts all from its tokens.

    `Outputs.extra` has `patches`, float32 (b, n, p p channels), the prediction for every patch, and `hidden`, bool (b, n).

    Args:
      num_classes: always 0: there is no head.
      positions: `sincos_mae`, as published; others are possible.
      mask_ratio: share of the patches that is hidden in training.
      decoder_width, decoder_depth, decoder_heads, decoder_mlp_dim: sizes of the decoder; the published ones serve every encoder.
      Others: see `VisionTransformer`.

    Source: arXiv 2111.06377, sections 3 and A.1.
    """

    num_classes: int = dataclasses.field(default=0, metadata=HEAD)
    positions: Kind = "sincos_mae"
    mask_ratio: float = dataclasses.field(default=0.75, metadata=TRAINING)
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_mlp_dim: int = 2048

    classifies = False

    def describe(self, resolution: tuple[int, int]) -> list[tuple[str, str]]:
        """See `ImageModel.describe`: the decoder too, and the patches that the encoder sees."""
        gh, gw = self.grid(resolution)
        sizes = f"and a decoder of {self.decoder_depth} x {self.decoder_width}"
        seen = f"{int(gh * gw * (1 - self.mask_ratio))} visible"
        rows = super().describe(resolution)
        return [rows[0], ("model", sizes), rows[1], ("images", seen), *rows[2:]]

    def layers_flops(self, resolution: tuple[int, int]) -> int:
        """See `ImageModel.layers_flops`: of the visible patches in the encoder, and of all in the decoder."""
        n = self.attends(resolution).tokens
        seen, d, w = max(int(n * (1 - self.mask_ratio)), 1), self.width, self.decoder_width
        encoder = self.depth * seen * d * (4 * d + 2 * self.mlp_dim + 2 * seen)
        return 6 * (encoder + self.decoder_depth * n * w * (4 * w + 2 * self.decoder_mlp_dim + 2 * n))

    @nn.compact
    def __call__(
        self,
        images: Shaped[ArrayLike, ...],
        *,
        train: bool = False,
        capture: tuple[str, ...] = (),
        noise: Float[ArrayLike, ...] | None = None,
    ) -> Outputs:
        """Runs the model on float (b, h, w, channels).

        Args:
          images, train, capture: see `VisionTransformer`.
          noise: float (b, n); the patches with the lowest noise are visible, and the share `mask_ratio` with the highest is
            hidden. None hides nothing.
        """
        self._check(capture)
        x, grid = self._embed(images)
        b, n, _ = x.shape
        check_per_patch({"noise": noise}, (b, n))
        keep, places, hidden = n, None, jnp.zeros((b, n), bool)
        visible = None
        if noise is not None:
            keep = int(n * (1 - self.mask_ratio))
            if not keep:
                raise UserError(f"model.mask_ratio={self.mask_ratio} hides all {n} patches; choose smaller patches")
            order = jnp.argsort(jnp.asarray(noise), axis=1)  # b n
            places = jnp.argsort(order, axis=1)  # b n: the place of each patch in the order of the noise
            visible, hidden = order[:, :keep], places >= keep
        encoder = self._encoder(grid)
        tokens, captured = encoder(self._join_class_token(x), train=train, capture=capture, visible=visible)
        ph, pw = self.pixels((1, 1))
        settings = dataclasses.replace(
            self._settings(), num_heads=self.decoder_heads, mlp_dim=self.decoder_mlp_dim, layer_scale=0.0, qk_norm=False
        )
        sizes = self.decoder_width, self.decoder_depth, ph * pw * jnp.shape(images)[-1]
        decoder = Decoder(settings, *sizes, grid, self.has_class_token, self.scan, self.remat or "none", name="decoder")
        extra = {"patches": decoder(tokens, places, train=train), "hidden": hidden}
        pooled, _ = self._pool(tokens)
        return Outputs(tokens, pooled, pooled, None, captured.get("layers"), captured.get("attention"), extra)

    def _check(self, capture: tuple[str, ...]) -> None:
        """See `VisionTransformer`."""
        super()._check(capture)
        sizes = {key: getattr(self, f"decoder_{key}") for key in ("width", "depth", "heads", "mlp_dim")}
        errors = [f"model.decoder_{key} is {value}; expected 1 or more" for key, value in sizes.items() if value < 1]
        if not 0 < self.mask_ratio < 1:
            errors.append(
                f"model.mask_ratio is {self.mask_ratio}; expected above 0 and below 1: some patches are hidden, and some seen"
            )
        if self.axial or self.positions_at != "stem":
            errors.append("an MAE removes patches: set model.axial=False and model.positions_at=stem")
        if errors:
            raise UserError("\n".join(errors))


class Decoder(nn.Module):
    """MAE's decoder: predicts every patch from the tokens of the visible ones.

    Args:
      settings: settings of its blocks.
      width, depth: sizes of its Transformer.
      size: values of a patch.
      grid, has_class_token, scan, remat: see `Encoder`.
    """

    settings: BlockSettings
    width: int
    depth: int
    size: int
    grid: tuple[int, int]
    has_class_token: bool
    scan: bool
    remat: Remat

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b m d"], places: Int[Array, "b n"] | None, *, train: bool
    ) -> Float[Array, "b n size"]:
        """`places` says which token stands for each patch, beyond the last one the mask token; None for all in order."""
        dtype, first = self.settings.dtype, int(self.has_class_token)
        kernel_init = initializers.xavier_uniform()
        x = nn.Dense(self.width, dtype=dtype, kernel_init=kernel_init, name="embed")(tokens)
        token = self.param("mask_token", initializers.normal(stddev=0.02), (1, 1, self.width), jnp.float32)
        if places is not None:
            b, n = places.shape
            hidden = jnp.broadcast_to(token.astype(dtype), (b, n + first - x.shape[1], self.width))
            patches = jnp.concatenate([x[:, first:], hidden], axis=1)  # b n width, in the order of the noise
            patches = jnp.take_along_axis(patches, places[..., None], axis=1)
            x = jnp.concatenate([x[:, :first], patches], axis=1)
        x, _ = Encoder(
            settings=self.settings,
            depth=self.depth,
            grid=self.grid,
            has_class_token=self.has_class_token,
            positions="sincos_mae",
            positions_at="stem",
            registers=0,
            stochastic_depth=0.0,
            axial=False,
            final_norm=True,
            scan=self.scan,
            remat=self.remat,
            name="Transformer",
        )(x, train=train)
        x = x[:, first:].astype(jnp.float32)
        return nn.Dense(self.size, dtype=jnp.float32, kernel_init=kernel_init, name="pred")(x)
