"""Checksums: by hand, the same on every mesh and on the host, and another for every change."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vit_jax import partition
from vit_jax.train.checksum import checksum, compare, examine, same_step, seal, unseal

RNG = np.random.default_rng(0)
ARRAYS = {
    "float32": RNG.normal(size=(16, 24)).astype(np.float32),
    "bfloat16": RNG.normal(size=(8, 5, 3)).astype(ml_dtypes.bfloat16),
    "float16": RNG.normal(size=(8, 7)).astype(np.float16),
    "int32": RNG.integers(-100, 100, (8,)).astype(np.int32),
    "uint8": RNG.integers(0, 255, (8, 3)).astype(np.uint8),
    "scalar": np.float32(1.5),
    "empty": np.zeros((0, 3), np.float32),
}


def test_the_checksum_is_the_sum_of_words_times_the_odd_numbers():
    assert checksum(np.array([1, 2, 3], np.uint32)) == 1 * 1 + 2 * 3 + 3 * 5
    assert checksum(np.array([[1.0], [-2.0]], np.float32)) == (0x3F800000 + 3 * 0xC0000000) % 2**32
    assert checksum(np.full(2**12, 2**32 - 1, np.uint32)) == -(2**24) % 2**32  # the first n odd numbers come to n * n


@pytest.mark.parametrize("name", ARRAYS)
def test_devices_and_host_come_to_the_same_however_an_array_is_split(name):
    x = ARRAYS[name]
    for fsdp in (1, 4, 8):
        mesh = partition.make_mesh(fsdp)
        splits = [PartitionSpec(), PartitionSpec("fsdp"), PartitionSpec(("data", "fsdp"))]
        for split in splits if x.ndim and len(x) else splits[:1]:
            placed = jax.device_put(x, NamedSharding(mesh, split))
            assert examine([placed], mesh) == ([True], [checksum(x)])


def test_a_random_key_has_one_too_and_numbers_that_are_not_finite_are_told():
    mesh = partition.make_mesh()
    key = jax.device_put(jax.random.key(7), partition.replicated(mesh))
    bad = jax.device_put(np.array([1, np.inf], np.float32), partition.replicated(mesh))
    finite, sums = examine({"a": bad, "b": key}, mesh)
    assert finite == [False, True]
    assert sums == [checksum(np.array([1, np.inf], np.float32)), checksum(np.asarray(jax.random.key_data(key)))]


def test_large_arrays_are_summed_in_parts(monkeypatch):
    x = RNG.integers(0, 2**32, 1000).astype(np.uint32)
    whole = checksum(x)
    monkeypatch.setattr("vit_jax.train.checksum.TOGETHER", 64)
    assert checksum(x) == whole
    words = x.astype(object)  # Python's integers
    assert whole == sum(words * (2 * np.arange(1000) + 1)) % 2**32


def test_any_bit_and_any_exchange_changes_it():
    x = RNG.normal(size=(6, 4)).astype(np.float32)
    for bit in range(x.nbytes * 8):
        changed = bytearray(x.tobytes())
        changed[bit // 8] ^= 1 << bit % 8
        assert checksum(np.frombuffer(changed, np.float32)) != checksum(x)
    assert checksum(x[::-1]) != checksum(x)
    assert checksum(x.T) != checksum(x)
    assert checksum(np.asfortranarray(x)) == checksum(x)  # the same values


def test_a_difference_names_the_first_array():
    tree = {"a": {"bias": jnp.zeros(1), "kernel": jnp.zeros(1)}, "b": jnp.zeros(1)}
    compare({"params": tree}, {}, {"params": [1, 2, 3]})  # of a version before checksums
    compare({"params": tree}, {"checksums": {"params": [1, 2, 3], "average": [9]}}, {"params": [1, 2, 3]})
    with pytest.raises(
        ValueError, match=r"its params are not what was saved \(checksum of \['a'\]\['kernel'\] and 1 more\)"
    ):
        compare({"params": tree}, {"checksums": {"params": [1, 5, 6]}}, {"params": [1, 2, 3]})
    for missing in ({}, {"params": []}, {"params": None}, {"params": 3}, {"params": [1, 2, 3, 4]}):
        with pytest.raises(ValueError, match="its params are not what was saved"):
            compare({"params": tree}, {"checksums": missing}, {"params": [1, 2, 3]})


def test_meta_knows_when_it_has_changed():
    sealed = seal({"step": 3, "pending": {"loss": [0.1, 2.5e-7]}, "names": ["é", "b"], "grid": (4, 4)})
    assert unseal({**sealed, "grid": [4, 4]})["step"] == 3  # as JSON gives it back
    assert unseal({"step": 3}) == {"step": 3}  # of a version before checksums
    for damaged in (sealed | {"step": 2}, sealed | {"crc": 0}, sealed | {"crc": None}, [], None):
        with pytest.raises(ValueError, match="its meta is damaged"):
            unseal(damaged)


def test_parts_of_several_steps_are_named():
    same_step(folder=4, meta=4)
    with pytest.raises(ValueError, match="parts of several steps: folder 4, meta 2"):
        same_step(folder=4, meta=2)
