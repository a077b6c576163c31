"""A plan for devices that are not here, for a person to read."""

import PIL.Image
import pytest

from vit_jax.bench.ahead_view import describe, plot

PLAN = {
    "config": "configs/pretrain.py:variant=H/14,dataset=jft",
    "model": "vit",
    "resolution": [224, 224],
    "params": 655_835_251,
    "tokens": 257,
    "train_flops_per_image": 1_003_500_000_000,
    "topology": "v3:8x8",
    "devices": "128 x TPU v3 (data 32 x fsdp 4), 1 process",
    "batch_size": 4096,
    "settled": [["model.scan", True, "memory"], ["model.remat", "block", "memory"], ["train.fsdp", 4, "state"]],
    "fits": True,
    "hbm_bytes_per_chip": 16 * 2**30,
    "peak_bytes_per_chip": 4 * 2**30,
    "peak_is": "the least that the compiler needs",
    "memory_by_kind": {"state": 2**30, "gradients": 2**30, "activations": 2**30, "temporaries": 2**30},
    "largest_batch": None,
    "flops_per_device": 39_360_000_000_000,
}
WHOLE = PLAN | {
    "largest_batch": 8192,
    "collectives": [{"kind": "all-gather", "dtype": "bf16", "runs": 64, "bytes": 3_000_000, "hidden": True}],
    "estimated_cycles": 1_000_000_000,
    "cycles_by_part": {"MLP": 750_000_000, "attention": 250_000_000},
    "estimated_step_s": 1.0664,
    "estimated_mfu": 0.49,
    "steps": 1_035_645,
    "estimated_chip_hours": 19_634.2,
    "estimated_core_days": 1_636.2,
    "paper_tpuv3_core_days": 2500,
}


def test_decisions_with_one_reason_share_a_line_and_memory_comes_with_its_share():
    lines = describe(PLAN).splitlines()
    assert "  settled     model.scan True, model.remat block: memory" in lines
    assert "  memory      fits: 4.0 of a device's 16.0 GiB, 25% (the least that the compiler needs)" in lines
    assert "              state 1.0, gradients 1.0, activations 1.0, temporaries 1.0 GiB" in lines
    assert not [line for line in lines if "schedule" in line or "largest" in line]


def test_what_is_missing_is_said_first():
    text = describe(PLAN | {"fits": False, "peak_bytes_per_chip": 20 * 2**30})
    assert "  memory      does not fit, 4.0 GiB are missing: 20.0 of a device's 16.0 GiB, 125%" in text


def test_a_whole_compilation_adds_parts_collectives_time_and_the_schedule():
    text = describe(WHOLE)
    assert "largest     batch 8,192 fits with the same settings" in text
    assert "collectives all-gather of 3.0 MB in bf16, 64 runs, while the device computes" in text
    assert "MLP                                   750.0 million   75%" in text
    assert "time        about 1,066.4 ms a step, 49.0% of the peak: an estimate from cycles" in text
    schedule = "1,035,645 steps in about 19,634 chip-hours or 1,636 core-days (estimates); the paper's took 2,500 TPUv3-core-days"
    assert schedule in text


@pytest.mark.slow
def test_a_picture_has_a_panel_for_each_kind_of_figure(tmp_path):
    widths = []
    for number, each in enumerate((PLAN, WHOLE)):
        plot(each, tmp_path / f"{number}.png")
        with PIL.Image.open(tmp_path / f"{number}.png") as picture:
            widths.append(picture.width)
    assert widths[1] == pytest.approx(3 * widths[0], rel=0.01)
