"""Plans for devices that are not here. Tests of mark `scale` need libtpu; the others make a plan from given figures."""

import os
from types import SimpleNamespace

import pytest

from vit_jax.bench import ahead
from vit_jax.config import Config

GIB = 2**30


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """libtpu's settings do not leak into programs that other tests start; nothing is cached outside."""
    before = dict(os.environ)
    os.environ["XDG_CACHE_HOME"] = str(tmp_path)
    yield
    os.environ.clear()
    os.environ.update(before)


def chip(kind, platform="tpu"):
    """Parts on a mesh of 64 devices of a kind."""
    device = SimpleNamespace(device_kind=kind, platform=platform)
    return SimpleNamespace(mesh=SimpleNamespace(size=64, devices=SimpleNamespace(flat=[device])))


H14 = Config(
    {
        "model": {"width": 1280, "depth": 32},
        "data": {"dataset": "jft_300m", "split": "train", "data_dir": "none", "batch_size": 4096},
        "train": {"duration": "14 epochs"},
    }
)
WHOLE = {
    "collectives": [],
    "cycles": {"MLP": 400_000_000, "attention": 200_000_000},
    "traffic": {"MLP": 67 * 10**9},
    "kernels": 9,
}


def test_time_share_of_the_peak_and_the_schedule_follow_from_cycles():
    found = ahead.estimates(WHOLE, H14, chip("TPU v5 lite"), model_flops=10**12)
    # 600 million cycles at 197e12 / 2^17 = 1.503 GHz; 64 images a device of 1 TFLOP.
    step = 600e6 / (197e12 / 2**17)
    assert found["estimated_cycles"] == 600_000_000
    assert found["estimated_step_s"] == pytest.approx(step)
    assert found["estimated_mfu"] == pytest.approx(64e12 / step / 197e12)
    # 303 million images, 14 times.
    assert found["steps"] == pytest.approx(14 * 303e6 / 4096, abs=1)
    assert found["estimated_chip_hours"] == pytest.approx(found["steps"] * step / 3600 * 64)
    assert found["estimated_core_days"] == pytest.approx(found["estimated_chip_hours"] / 24)
    assert found["paper_tpuv3_core_days"] == 2500


@pytest.mark.parametrize(
    ("kind", "ghz", "cores", "chips"), [("TPU v3", 0.94, 1, 2), ("TPU v4", 1.05, 2, 1), ("TPU v5", 1.75, 2, 1)]
)
def test_clocks_cores_and_chips_are_those_of_the_device(kind, ghz, cores, chips):
    found = ahead.estimates(WHOLE, H14, chip(kind), model_flops=10**12)
    assert 0.6 / found["estimated_step_s"] == pytest.approx(ghz, rel=0.01)
    device_hours = found["steps"] * found["estimated_step_s"] / 3600 * 64
    assert found["estimated_core_days"] == pytest.approx(device_hours * cores / 24)
    assert found["estimated_chip_hours"] == pytest.approx(device_hours / chips)


def test_of_a_gpu_the_bytes_moved_stand_for_time():
    found = ahead.estimates(WHOLE, H14, chip("NVIDIA H100 80GB HBM3", "cuda"), model_flops=10**12)
    assert (found["bytes_moved"], found["kernels"]) == (67 * 10**9, 9)
    assert found["estimated_step_s"] == pytest.approx(0.02)  # 67 GB at 3.35 TB/s
    assert "estimated_cycles" not in found
    assert found["estimated_core_days"] is None


def test_results_are_kept_by_program_devices_and_versions(monkeypatch):
    calls = []

    def compute():
        calls.append(1)
        return {"peak": 3}

    keys = {ahead.key_of("program", "v5e:4x4"), ahead.key_of("program", "v4:4x4x4"), ahead.key_of("other", "v5e:4x4")}
    assert len(keys) == 3
    assert [ahead.cached("whole", compute, key="a") for _ in range(2)] == [{"peak": 3}] * 2
    assert len(calls) == 1
    ahead.cached("whole", compute, key="b")
    monkeypatch.setenv("VIT_JAX_COMPILATION_CACHE", "0")
    ahead.cached("whole", compute, key="a")
    assert len(calls) == 3


def plan(variant, where, *overrides, dataset="jft", **options):
    """`compile_for` with nothing but the config."""
    spec = f"configs/pretrain.py:variant={variant},dataset={dataset}"
    return ahead.compile_for(spec, list(overrides), where, num_classes=1000, **options)


# (state + gradients) / fsdp is at most a quarter of the memory. Parameters and moments: 12 bytes each of 632, 307, 1011 and
# 1843 million parameters, heads left out.
@pytest.mark.scale
@pytest.mark.parametrize(
    ("variant", "where", "batch", "fsdp", "million"),
    [
        ("H/14", "v3:8x8", 4096, 4, 632),
        ("H/14", "v4:4x4x4", 4096, 2, 632),
        ("H/14", "v5e:8x8", 4096, 4, 632),
        ("H/14", "v5e:8x8,slices=2", 8192, 4, 632),
        ("L/16", "v5e:4x4", 1024, 2, 307),
        ("g/14", "v5p:8x8x8", 4096, 1, 1011),
        ("G/14", "v5p:8x8x8", 4096, 2, 1843),
    ],
)
def test_the_largest_rows_fit_with_room_without_any_flag(variant, where, batch, fsdp, million):
    dataset = "imagenet21k" if variant == "L/16" else "jft"
    found = plan(variant, where, ("data.batch_size", str(batch)), dataset=dataset)
    assert (found["fits"], found["fsdp"], found["estimated_cycles"]) == (True, fsdp, None)
    assert found["peak_bytes_per_chip"] < 0.5 * found["hbm_bytes_per_chip"]
    assert found["state_bytes_per_chip"] == pytest.approx(12e6 * million / fsdp, rel=0.1)
    settled = {key: value for key, value, _ in found["settled"]}
    assert (settled["model.scan"], settled["model.remat"]) == (True, "block")
    # The model of memory by which that was settled is within a sixth of the compiler's figure.
    why = next(why for key, _, why in found["settled"] if key == "model.remat")
    estimate = float(why.partition("about ")[2].partition(" of")[0]) * 1e9
    assert estimate == pytest.approx(found["peak_bytes_per_chip"], rel=1 / 6)


@pytest.mark.scale
def test_a_step_that_does_not_fit_says_what_is_missing_and_which_batch_would_fit():
    fixed = [("model.scan", "True"), ("model.remat", "none"), ("train.accumulation", "1")]
    found = plan("L/16", "v5e:4x4", *fixed, ("data.batch_size", "4096"), dataset="imagenet21k", largest=True)
    assert (found["fits"], found["fsdp"]) == (False, 2)
    # Of 256 images attention's weights alone are 24 layers x 16 heads x 197 x 197 x 256 x 2 bytes = 7.6 GB, the MLPs' hidden
    # units 24 x 197 x 4096 x 256 x 2 = 9.9 GB.
    assert found["hbm_bytes_per_chip"] == int(15.75 * GIB)
    assert found["missing_bytes_per_chip"] == found["peak_bytes_per_chip"] - found["hbm_bytes_per_chip"] > 2 * GIB
    # 64 images a device need 13.4 GiB of 15.75, 96 would need 18.
    assert 1024 <= found["largest_batch"] < 1536


@pytest.mark.scale
def test_a_whole_compilation_estimates_cycles_and_takes_the_memory_that_was_foreseen():
    spec = "configs/pretrain.py:variant=Ti/16,dataset=imagenet2012,smoke"
    options = [("data.batch_size", "64")], "v5e:2x2"
    quick, whole = (
        ahead.compile_for(spec, *options, num_classes=1000, model_flops=10**7, cycles=cycles)
        for cycles in (False, True)
    )
    assert (quick["estimated_cycles"], quick["peak_is"]) == (None, "the least that the compiler needs")
    assert whole["estimated_cycles"] == sum(whole["cycles_by_part"].values()) > 1000
    assert {"attention", "MLP", "norms", "optimizer"} <= set(whole["cycles_by_part"])
    assert whole["peak_is"] == "taken by the compiled program"
    # The compiler states what it lacks in hundredths of a GiB.
    assert quick["peak_bytes_per_chip"] == pytest.approx(whole["peak_bytes_per_chip"], abs=0.011 * GIB)
    # Gradients are averaged over the four chips.
    assert whole["collectives"][0]["kind"] == "all-reduce"
