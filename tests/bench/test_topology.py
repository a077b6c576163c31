"""Compiling for TPUs that are not here. Tests of mark `scale` need libtpu; the others read texts that it wrote."""

import os

import pytest

from vit_jax import partition
from vit_jax.bench import topology
from vit_jax.types import UserError

GIB = 2**30


def test_the_memory_that_a_program_needs_is_read_from_either_message_of_the_compiler():
    program = (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 72.90G of 30.75G hbm. Exceeded hbm capacity by "
        "42.15G."
    )
    array = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (1.00T) exceeds available "
        "HBM (15.75G)."
    )
    assert topology.out_of_memory(program) == (int(72.9 * GIB), int(30.75 * GIB))
    assert topology.out_of_memory(array) == (1024 * GIB, int(15.75 * GIB))
    with pytest.raises(UserError, match="the TPUs' compiler failed: INTERNAL: a bug"):
        topology.out_of_memory("INTERNAL: a bug")


@pytest.mark.parametrize("text", ["v5e", "4x4", "v5e:x4", "v5e:4x4,slices=0", "v5e:4x4,hosts=2", ""])
def test_a_topology_is_a_generation_and_an_arrangement(text):
    expected = r"is not a topology; expected one like v5e:4x4, v4:4x4x4, v5e:4x4,slices=2 or h100:8"
    with pytest.raises(UserError, match=expected):
        topology.open_topology(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e:4x4", r"needs libtpu, .* not installed; pip install 'vit_jax\[tpu-aot\]'"),
        ("h100:8", r"needs XLA's compiler for CUDA GPUs and cuDNN, .* not installed; pip install 'vit_jax\[gpu-aot\]'"),
    ],
)
def test_without_the_compiler_the_message_has_the_command_that_installs_it(monkeypatch, text, message):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        topology.open_topology(text)


def test_an_unknown_gpu_is_refused_with_those_that_are_known():
    with pytest.raises(UserError, match="v5e:4: the GPUs are h100; expected a topology like v5e:4x4"):
        topology.open_topology("v5e:4")


@pytest.mark.parametrize(
    ("memory", "batch"), [(100, 0), (110, 16), (1000, 16 * 90), (1009, 16 * 90), (10**6, 16 * 99_968)]
)
def test_the_largest_batch_is_found_by_bisection_to_a_32nd(memory, batch):
    tried = []

    def needed(size):
        tried.append(size)
        return 100 + 10 * (size // 16)  # 16 devices, 10 bytes an image each

    found = topology.largest_batch(needed, 16, 64, memory)
    assert batch * 31 / 32 <= found <= batch
    assert needed(found) <= memory or not found
    assert all(size % 16 == 0 for size in tried)
    assert len(tried) < 25


@pytest.fixture(scope="module", autouse=True)
def environment():
    """libtpu's settings do not leak into programs that other tests start."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.scale
def test_an_unknown_topology_is_refused_in_the_compilers_words():
    with pytest.raises(UserError, match=r"v5e:3x5 is not a topology: .* not divisible"):
        topology.open_topology("v5e:3x5")


@pytest.mark.scale
@pytest.mark.parametrize(
    ("text", "devices", "gib"),
    [("v3:8x8", 128, 15.48), ("v4:4x4x4", 64, 30.75), ("v5e:4x4,slices=2", 32, 15.75), ("v5p:4x4x4", 64, 95.74)],
)
def test_devices_and_their_memory_are_the_compilers(text, devices, gib):
    found = topology.open_topology(text)
    assert len(found) == devices
    assert topology.hbm_bytes(found[0]) == int(gib * GIB)


@pytest.mark.scale
@pytest.mark.parametrize(("text", "fsdp", "slices"), [("v5e:2x2,slices=2", 4, 1), ("v5e:2x2,slices=2", 8, 2)])
def test_devices_that_split_parameters_lie_in_one_slice_if_they_fit(text, fsdp, slices):
    mesh = partition.make_mesh(fsdp, topology.open_topology(text))
    assert [len({device.slice_index for device in row}) for row in mesh.devices] == [slices] * (8 // fsdp)
