"""YOLOS (arXiv 2106.00666): a ViT that finds objects. Learned detection tokens join the patches; each answers with a class and
a box.

The encoder is the classifier's, under the classifier's parameter names. Nothing in it is made for detection: no pyramid, no
windows, no decoder. Only `detection_tokens`, their positions and the two heads are new.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from vit_jax.models import initializers
from vit_jax.models.attention import Case, Core
from vit_jax.models.base import DEVICE, HEAD, IDENTITY, TRAINING, ImageModel
from vit_jax.models.embedding import PatchEmbedding, describe_patches, whole_patches
from vit_jax.models.encoder import BlockSettings, Gelu
from vit_jax.models.inputs import check_grid, check_images
from vit_jax.models.positions import PositionEmbedding, interpolation_matrix, keys_as_queries, sincos_centred
from vit_jax.models.transformer import Encoder, Remat
from vit_jax.types import Outputs, UserError

CAPTURE = ("layers", "attention")


class Yolos(ImageModel):
    """A detector for images of any (h, w) that the patch divides.

    `Outputs.extra` has `class_logits`, float32 (b, q, c + 1) with no object last, and `boxes`, float32 (b, q, 4): centre x,
    centre y, width and height in [0, 1]. `logits` is None.

    Args:
      num_classes: classes c of objects, without no object.
      queries: detection tokens q; an image never has more detections.
      position_grid: (gh, gw) of the stored positions, which are resized to each size of images (bicubic, as published);
        (0, 0) stores those of the images' own grid, and then there is one size.
      positions: `learned_1d` as published; `sincos_2d` for training without pre-training: fixed, computed for each size of
        images, the detection tokens' own begin as places spread over the image, and keys begin as queries.
      mid_positions: whether every layer but the first adds positions of its own, as the published S and B do. Its authors found
        later that they do not help (their issue 3).
      Others: see `VisionTransformer`.

    Source: arXiv 2106.00666, sections 2.1 and 2.2.
    """

    family = "vit"

    num_classes: int = dataclasses.field(metadata=HEAD)
    patch_size: tuple[int, int] = (16, 16)
    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    num_heads: int = 12
    queries: int = 100
    position_grid: tuple[int, int] = (0, 0)
    positions: Literal["learned_1d", "sincos_2d"] = "learned_1d"
    mid_positions: bool = False
    dropout: float = dataclasses.field(default=0.0, metadata=TRAINING)
    stochastic_depth: float = dataclasses.field(default=0.0, metadata=TRAINING)
    gelu: Gelu = dataclasses.field(default="tanh", metadata=IDENTITY)
    norm_eps: float = dataclasses.field(default=1e-6, metadata=IDENTITY)
    scan: bool = dataclasses.field(default=False, metadata=TRAINING)
    remat: Remat | None = dataclasses.field(default=None, metadata=DEVICE)
    dtype: Literal["float32", "bfloat16"] = dataclasses.field(default="float32", metadata=TRAINING)
    attention: Core | None = dataclasses.field(default=None, metadata=DEVICE)

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the patches of an image of (h, w) pixels."""
        return resolution[0] // self.patch_size[0], resolution[1] // self.patch_size[1]

    def table_grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the stored positions."""
        return self.position_grid if any(self.position_grid) else self.grid(resolution)

    def pixels(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the images that the patches of a grid cover exactly."""
        return grid[0] * self.patch_size[0], grid[1] * self.patch_size[1]

    def suit(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """Rounds to whole patches."""
        return whole_patches(resolution, self.patch_size)

    def describe(self, resolution: tuple[int, int]) -> list[tuple[str, str]]:
        """Depth, width, patches and detection tokens."""
        rows = [("model", f"{self.depth} x {self.width}, {self.queries} detection tokens")]
        return [*rows, *describe_patches(self.patch_size, self.grid(resolution))]

    def attends(self, resolution: tuple[int, int]) -> Case:
        """See `ImageModel.attends`."""
        gh, gw = self.grid(resolution)
        return Case("cpu", 1 + gh * gw + self.queries, self.width // self.num_heads, self.dtype)

    def layers_flops(self, resolution: tuple[int, int]) -> int:
        """See `ImageModel.layers_flops`."""
        n, d = self.attends(resolution).tokens, self.width
        return 6 * self.depth * n * d * (4 * d + 2 * self.mlp_dim + 2 * n)

    def redraw(self, params: dict[str, Any]) -> dict[str, Any]:
        """With fixed positions keys begin as queries."""
        return params if self.positions == "learned_1d" else keys_as_queries(params)

    @nn.compact
    def __call__(
        self, images: Shaped[ArrayLike, ...], *, train: bool = False, capture: tuple[str, ...] = ()
    ) -> Outputs:
        """Runs the model on float (b, h, w, channels); `capture` may name `layers` and `attention`, free if empty."""
        self._check(capture)
        check_images(images, self.variables, self.first_layer)
        dtype = jnp.dtype(self.dtype)
        x = PatchEmbedding(self.width, self.patch_size, dtype, name="embedding")(jnp.asarray(images))
        b, gh, gw, d = x.shape
        if not any(self.position_grid):
            check_grid((gh, gw), self.variables, has_class_token=True, patch=self.patch_size)
        token = self.param("cls", nn.initializers.zeros_init(), (1, 1, d), jnp.float32)
        # Zeros, as a checkpoint from elsewhere may leave them, would make all answers equal, and no gradient would part them.
        queries = self.param("detection_tokens", initializers.normal(stddev=0.02), (1, self.queries, d), jnp.float32)
        first, last = (jnp.broadcast_to(y.astype(dtype), (b, *y.shape[1:])) for y in (token, queries))
        x = jnp.concatenate([first, x.reshape(b, gh * gw, d), last], axis=1)  # b 1+n+q d
        encoder = DetectionEncoder(
            settings=BlockSettings(
                num_heads=self.num_heads,
                mlp_dim=self.mlp_dim,
                dtype=dtype,
                dropout=self.dropout,
                gelu=self.gelu,
                norm_eps=self.norm_eps,
                attention=self.attention or "fused",
                lean=self.scan and self.attention != "xla",
            ),
            depth=self.depth,
            grid=(gh, gw),
            has_class_token=True,
            positions=self.positions,
            positions_at="stem",
            registers=0,
            stochastic_depth=self.stochastic_depth,
            axial=False,
            final_norm=True,
            scan=self.scan,
            remat=self.remat or "none",
            stored=self.table_grid(self.pixels((gh, gw))),
            queries=self.queries,
            mid_positions=self.mid_positions,
            name="Transformer",
        )
        tokens, captured = encoder(x, train=train, capture=capture)
        answers = tokens[:, -self.queries :].astype(jnp.float32)  # b q d
        extra = {
            "class_logits": Mlp(self.num_classes + 1, name="head")(answers),
            "boxes": nn.sigmoid(Mlp(4, name="box_head")(answers)),
        }
        pooled = tokens[:, 0]
        return Outputs(tokens, pooled, pooled, None, captured.get("layers"), captured.get("attention"), extra)

    def _check(self, capture: tuple[str, ...]) -> None:
        """Raises UserError for impossible sizes and rates."""
        sizes = {key: getattr(self, key) for key in ("width", "depth", "mlp_dim", "num_heads", "queries")}
        sizes |= {"patch_size": min(self.patch_size)}
        errors = [f"model.{key} is {value}; expected 1 or more" for key, value in sizes.items() if value < 1]
        rates = {key: getattr(self, key) for key in ("dropout", "stochastic_depth")}
        errors += [f"model.{key} is {x}; expected at least 0 and below 1" for key, x in rates.items() if not 0 <= x < 1]
        if self.num_classes < 0:
            errors.append(f"model.num_classes is {self.num_classes}; expected 0 or more")
        if min(self.position_grid) < 0 or (any(self.position_grid) and not all(self.position_grid)):
            errors.append(
                f"model.position_grid is {self.position_grid}; expected (gh, gw), or (0, 0) for the images' own"
            )
        choices = {
            "positions": ("learned_1d", "sincos_2d"),
            "gelu": get_args(Gelu),
            "remat": (None, *get_args(Remat)),
            "attention": (None, *get_args(Core)),
        }
        for key, known in choices.items():
            if getattr(self, key) not in known:
                errors.append(f"model.{key} is {getattr(self, key)!r}; expected {', '.join(map(str, known))}")
        if set(capture) - set(CAPTURE):
            errors.append(f"capture={capture}; expected any of {', '.join(CAPTURE)}")
        if errors:
            raise UserError("\n".join(errors))


class DetectionEncoder(Encoder):
    """The encoder with positions of another grid than the images', and of the detection tokens.

    Args:
      stored: (gh, gw) of the stored positions.
      queries: detection tokens, the last of the sequence.
      mid_positions: see `Yolos`.
      Others: see `Encoder`.
    """

    stored: tuple[int, int] = (0, 0)
    queries: int = 0
    mid_positions: bool = False

    def add_positions(
        self, x: Float[Array, "b n d"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "layers 1 n d"] | None]:
        """Adds positions at the stem; returns those that the layers add."""
        d, dtype, normal = x.shape[-1], self.settings.dtype, initializers.normal(stddev=0.02)
        if self.positions == "learned_1d":
            patches = 1 + self.stored[0] * self.stored[1]
            positions = PositionEmbedding(
                self.positions, self.stored, True, jnp.dtype("float32"), name="posembed_input"
            )
            table, draw = positions(jnp.zeros((1, patches, d))), normal
        else:
            fixed = sincos_centred(self.grid, self.grid, d)[None]
            table, draw = jnp.pad(jnp.asarray(fixed), ((0, 0), (1, 0), (0, 0))), self._spread
        own = jnp.asarray(self.param("query_positions", draw, (1, self.queries, d), jnp.float32))
        table = jnp.concatenate([table, own], axis=1)
        x = x + (self._fit(table) if self.positions == "learned_1d" else table).astype(dtype)
        if not self.mid_positions:
            return x, None
        shape = (self.depth - 1, 1, 1 + self.stored[0] * self.stored[1] + self.queries, d)
        mid = self.param("mid_positions", normal, shape, jnp.float32)
        mid = self._fit(jnp.asarray(mid)[:, 0])[:, None]  # depth-1 1 n d
        return x, jnp.concatenate([jnp.zeros_like(mid[:1]), mid]).astype(dtype)

    def _spread(self, key: Any, shape: Sequence[int], dtype: Any) -> Float[Array, "1 q d"]:
        """Positions of places spread evenly over the image: queries then begin with a region each."""
        del key
        side = math.ceil(math.sqrt(shape[1]))
        return jnp.asarray(sincos_centred((side, side), self.grid, shape[2])[None, : shape[1]], dtype)

    def _fit(self, table: Float[Array, "layers s d"]) -> Float[Array, "layers n d"]:
        """Resizes the patches' part of tables to the images' grid."""
        if self.stored == self.grid:
            return table
        (gh, gw), d = self.stored, table.shape[-1]
        first, patches, last = table[:, :1], table[:, 1 : 1 + gh * gw], table[:, 1 + gh * gw :]
        rows, columns = (
            jnp.asarray(interpolation_matrix(old, new, "bicubic"), jnp.float32)
            for old, new in zip(self.stored, self.grid, strict=True)
        )
        highest = jax.lax.Precision.HIGHEST
        patches = jnp.einsum("yg,xw,lgwd->lyxd", rows, columns, patches.reshape(-1, gh, gw, d), precision=highest)
        return jnp.concatenate([first, patches.reshape(len(table), -1, d), last], axis=1)


class Mlp(nn.Module):
    """Three dense layers in float32 with a ReLU between them, drawn as PyTorch draws its Linear: uniformly from +-1/sqrt(fan in).

    Args:
      features: outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b q d"]) -> Float[Array, "b q features"]:
        d = x.shape[-1]
        draw = initializers.uniform(1 / math.sqrt(d))
        for i, features in enumerate((d, d, self.features)):
            dense = nn.Dense(features, dtype=jnp.float32, kernel_init=draw, bias_init=draw, name=f"Dense_{i}")
            x = dense(nn.relu(x) if i else x)
        return x
