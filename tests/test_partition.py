"""The mesh, who holds what, and what does not divide."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from vit_jax import partition
from vit_jax.models import build
from vit_jax.models.variants import vit_variant
from vit_jax.models.vit import VisionTransformer
from vit_jax.types import Batch, UserError


def test_there_are_eight_devices():
    assert len(jax.devices()) == 8


@pytest.mark.parametrize(("fsdp", "data"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_the_mesh_is_data_by_fsdp(fsdp, data):
    mesh = partition.make_mesh(fsdp)
    assert dict(mesh.shape) == {"data": data, "fsdp": fsdp}
    assert partition.describe_devices(mesh) == f"8 x cpu (data {data} x fsdp {fsdp}), 1 process"


@pytest.mark.parametrize("fsdp", [0, -1, 3, 16])
def test_fsdp_that_does_not_divide_the_devices_names_what_does(fsdp):
    with pytest.raises(UserError, match=rf"train.fsdp={fsdp} does not divide the 8 devices; .*\[1, 2, 4, 8\]"):
        partition.make_mesh(fsdp)


def devices_of(slices, per_slice):
    """Devices as JAX shows those of several TPU slices, or of several nodes of GPUs; not in the order of their slices."""
    places = [(s, i) for i in range(per_slice) for s in range(slices)]
    return [
        types.SimpleNamespace(id=s * per_slice + i, slice_index=s, platform="gpu", device_kind="an H100")
        for s, i in places
    ]


@pytest.mark.parametrize(
    ("fsdp", "ids"),
    [
        (1, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        (2, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (4, [[0, 1, 2, 3], [4, 5, 6, 7]]),  # a slice
        (8, [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_parameters_are_split_inside_a_slice_and_data_over_slices(fsdp, ids):
    found = partition.arrange(devices_of(2, 4), fsdp)
    assert [[device.id for device in row] for row in found] == ids


def test_a_split_that_would_cross_slices_without_filling_them_is_refused():
    expected = r"train.fsdp=6 does not divide the 12 devices in 3 slices of 4; choose one of \[1, 2, 4, 12\]"
    with pytest.raises(UserError, match=expected):
        partition.arrange(devices_of(3, 4), 6)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((64, 256), (None, "fsdp")),  # the largest axis
        ((256, 64), ("fsdp", None)),
        ((128, 128), (None, "fsdp")),  # the last of equals
        ((255, 128), (None, "fsdp")),  # the largest that divides
        ((16, 16, 3, 768), (None, None, None, "fsdp")),
        ((1, 197, 768), (None, None, "fsdp")),
        ((127, 129), ()),  # nothing divides
        ((64, 255), ()),  # 2^14 - 64 elements: too small
        ((768,), ()),
        ((), ()),
    ],
)
def test_a_parameters_largest_axis_is_split(shape, spec):
    mesh = partition.make_mesh(4)
    sharding = partition.param_sharding({"a": jax.ShapeDtypeStruct(shape, jnp.float32)}, mesh)["a"]
    assert sharding.spec == PartitionSpec(*spec)
    assert (
        partition.param_sharding(jax.ShapeDtypeStruct(shape, jnp.float32), partition.make_mesh()).spec
        == PartitionSpec()
    )


@pytest.mark.parametrize("scan", [False, True])
def test_a_scanned_stack_of_layers_is_split_as_each_layer_is(scan):
    mesh = partition.make_mesh(8)
    layers = {"encoderblock": (24,)} if scan else {"encoderblock_0": ()}
    shapes = {"kernel": (16, 1024), "bias": (4096,)}  # 24 biases are more than 2^14 elements
    tree = {
        "Transformer": {
            name: {key: jax.ShapeDtypeStruct(stack + shape, jnp.float32) for key, shape in shapes.items()}
            for name, stack in layers.items()
        }
    }
    ((found,),) = (tuple(part.values()) for part in partition.param_sharding(tree, mesh).values())
    none = (None,) * scan
    assert found["kernel"].spec == PartitionSpec(*none, None, "fsdp")
    assert found["bias"].is_fully_replicated
    moments = partition.param_sharding(({"mu": tree}, {"nu": tree}), mesh)
    assert {str(x.spec) for x in jax.tree.leaves(moments)} == {str(x.spec) for x in jax.tree.leaves(found)}


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    ("heads", "inputs", "out"),
    [
        (16, (None, "fsdp", None), ("fsdp", None, None)),
        (6, ("fsdp", None, None), (None, None, "fsdp")),  # 4 does not divide 6: the width is split
    ],
)
def test_attentions_kernels_are_split_between_heads_if_those_divide(heads, inputs, out, scan):
    model = VisionTransformer(10, width=128 * heads, depth=1, mlp_dim=64, num_heads=heads, scan=scan)
    params = build.abstract_params(model, (32, 32))["Transformer"]["encoderblock" if scan else "encoderblock_0"]
    tree = {"Transformer": {"encoderblock" if scan else "encoderblock_0": params}}
    ((found,),) = (part.values() for part in partition.param_sharding(tree, partition.make_mesh(4)).values())
    attention, stacked = found["MultiHeadDotProductAttention_1"], (None,) * scan
    for name in ("query", "key", "value"):
        assert attention[name]["kernel"].spec == PartitionSpec(*stacked, *inputs)
    assert attention["out"]["kernel"].spec == PartitionSpec(*stacked, *out)


@pytest.mark.parametrize(("variant", "fsdp"), [("B/16", 8), ("B/16", 16), ("H/14", 8), ("H/14", 64)])
def test_the_state_of_a_device_falls_as_one_by_fsdp(variant, fsdp):
    model = VisionTransformer(1000, scan=True, **vit_variant(variant))
    params = build.abstract_params(model, (224, 224))
    mesh = AbstractMesh((1, fsdp), partition.BATCH_AXES, axis_types=(AxisType.Auto,) * 2)
    shards = jax.tree.map(
        lambda s, x: math.prod(s.shard_shape(x.shape)), partition.param_sharding(params, mesh), params
    )
    assert sum(jax.tree.leaves(shards)) < 1.1 * build.count_params(params) / fsdp


@pytest.mark.parametrize(
    ("batch", "accumulation", "hint"),
    [(100, 1, "use 96 or 104"), (100, 4, "= 32; use 96 or 128"), (4, 1, "use 8,"), (0, 1, "use 8,"), (-8, 1, "use 8,")],
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_do(batch, accumulation, hint):
    with pytest.raises(UserError, match=rf"data.batch_size={batch} is not divisible by 8 devices .*{hint}"):
        partition.check_batch_size(batch, partition.make_mesh(), accumulation=accumulation)
    partition.check_batch_size(96, partition.make_mesh(2), accumulation=4)


def test_rows_of_a_batch_go_to_the_devices_in_order():
    mesh = partition.make_mesh(2)
    images = np.arange(16 * 2 * 2 * 3, dtype=np.uint8).reshape(16, 2, 2, 3)[:, ::-1]  # not contiguous
    batch = partition.put_batch(Batch(images, np.arange(16, dtype=np.int32), np.ones(16, np.float32)), mesh)
    assert np.array_equal(batch.image, images)
    assert (batch.image.dtype, batch.target.dtype, batch.mask.dtype) == (jnp.uint8, jnp.int32, jnp.float32)
    rows = {shard.device.id: np.asarray(shard.data).tolist() for shard in batch.target.addressable_shards}
    devices = [device.id for device in mesh.devices.flat]
    assert [rows[i] for i in devices] == [[2 * i, 2 * i + 1] for i in range(8)]


def test_a_tree_is_placed_shard_by_shard_and_gathered_whole():
    mesh = partition.make_mesh(8)
    tree = {"kernel": np.arange(2**14, dtype=np.float32).reshape(64, 256), "bias": np.arange(3.0, dtype=np.float32)}
    placed = partition.put_tree(tree, partition.param_sharding(tree, mesh))
    assert {shard.data.shape for shard in placed["kernel"].addressable_shards} == {(64, 32)}
    assert {shard.data.shape for shard in placed["bias"].addressable_shards} == {(3,)}
    gathered = jax.device_get(placed)
    for name, value in tree.items():
        assert isinstance(gathered[name], np.ndarray)
        assert np.array_equal(gathered[name], value)


def test_batch_and_replicated_shardings():
    mesh = partition.make_mesh(4)
    x = np.arange(16.0, dtype=np.float32)
    split, copied = (jax.device_put(x, s) for s in (partition.batch_sharding(mesh), partition.replicated(mesh)))
    assert {shard.data.shape for shard in split.addressable_shards} == {(2,)}
    assert {shard.data.shape for shard in copied.addressable_shards} == {(16,)}
    assert len(copied.addressable_shards) == 8
