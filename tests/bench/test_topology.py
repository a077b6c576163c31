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


# Shortened from a program of libtpu 0.0.42: a loop of 32 layers, and a called computation.
PROGRAM = """HloModule jit_train_step, is_scheduled=true

%cond (wide.param.1: (s32[], bf16[32,257,1280])) -> pred[] {
  %constant.420 = s32[]{:T(256)} constant(32)
  ROOT %lt.19 = pred[]{:T(1024)} compare(%get-tuple-element.1822, %constant.420), direction=LT
}

%body (wide.param.2: (s32[], bf16[32,257,1280])) -> (s32[], bf16[32,257,1280]) {
  %fusion.1 = bf16[32,257,1280] fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"1000"}
  %copy.2 = bf16[32,257,1280] copy(%fusion.1), backend_config={"estimated_cycles":"10"}
}

%called (p: f32[8]) -> f32[8] {
  ROOT %fusion.7 = f32[8] fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"5"}
}

ENTRY %main.1_spmd (param.1: s32[]) -> (s32[]) {
  %fusion.3 = f32[8] fusion(%param.1), kind=kLoop, backend_config={"estimated_cycles":"7"}
  %while.57 = (s32[], bf16[32,257,1280]) while(%tuple), condition=%cond, body=%body, metadata={op_name="while"}
  %call.1 = f32[8] call(%fusion.3), to_apply=%called
}
"""


def test_a_loop_counts_as_often_as_it_runs():
    assert topology.estimated_cycles(PROGRAM) == 7 + 32 * 1010 + 5


@pytest.mark.parametrize("text", ["v5e", "4x4", "v5e:4", "v5e:4x4,slices=0", "v5e:4x4,hosts=2", ""])
def test_a_topology_is_a_generation_and_an_arrangement(text):
    with pytest.raises(UserError, match=r"is not a topology; expected one like v5e:4x4, v4:4x4x4 or v5e:4x4,slices=2"):
        topology.open_topology(text)


def test_without_libtpu_the_message_has_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs libtpu, .* not installed; pip install 'libtpu>=0.0.42,<0.1'"):
        topology.open_topology("v5e:4x4")


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


def memory_of(variant, dataset, where, *overrides):
    """What `compile_for` returns, without and with all that is not memory."""
    spec = f"configs/pretrain.py:variant={variant},dataset={dataset}"
    scanned = [("model.scan", "True"), ("model.remat", "block"), *overrides]
    return topology.compile_for(spec, scanned, where, num_classes=1000)


@pytest.mark.scale
@pytest.mark.parametrize(
    ("where", "variant", "batch", "fsdp"),
    [
        ("v3:8x8", "H/14", 4096, 4),
        ("v4:4x4x4", "H/14", 4096, 2),
        ("v5e:8x8", "H/14", 4096, 4),
        ("v5p:4x4x4", "H/14", 4096, 1),
        ("v5e:4x4", "L/16", 1024, 2),
        ("v5e:8x8,slices=2", "H/14", 8192, 4),
    ],
)
def test_the_papers_largest_rows_fit_with_room_and_the_split_that_is_settled(where, variant, batch, fsdp):
    dataset = "jft" if variant == "H/14" else "imagenet21k"
    found = memory_of(variant, dataset, where, ("data.batch_size", str(batch)))
    assert (found["fits"], found["fsdp"], found["estimated_cycles"]) == (True, fsdp, None)
    assert found["peak_bytes_per_chip"] < 0.5 * found["hbm_bytes_per_chip"]
    # Parameters and two moments in float32; the table of sizes has 632 and 307 million parameters without these heads.
    least = 12 * {"H/14": 632e6, "L/16": 307e6}[variant] / fsdp
    assert least < found["state_bytes_per_chip"] < 1.1 * least


@pytest.mark.scale
def test_a_step_that_does_not_fit_says_what_it_needs():
    found = memory_of("L/16", "imagenet21k", "v5e:4x4", ("data.batch_size", "4096"), ("model.remat", "none"))
    assert (found["fits"], found["fsdp"]) == (False, 2)
    # Of 256 images attention's softmax alone keeps 24 layers x 16 heads x 197 x 197 x 256 x 4 bytes = 15 GB.
    assert found["peak_bytes_per_chip"] > found["hbm_bytes_per_chip"] == int(15.75 * GIB)


@pytest.mark.scale
def test_a_whole_compilation_estimates_cycles_and_takes_the_memory_that_was_foreseen():
    spec = "configs/pretrain.py:variant=Ti/16,dataset=imagenet2012,smoke"
    quick, whole = (
        topology.compile_for(spec, [("data.batch_size", "64")], "v5e:2x2", num_classes=1000, cycles=cycles)
        for cycles in (False, True)
    )
    assert quick["estimated_cycles"] is None
    assert whole["estimated_cycles"] > 1000
    # The compiler states what it lacks in hundredths of a GiB.
    assert quick["peak_bytes_per_chip"] == pytest.approx(whole["peak_bytes_per_chip"], abs=0.011 * GIB)
