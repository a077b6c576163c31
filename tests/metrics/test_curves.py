"""vit_jax.metrics.curves: what is drawn from a metrics.jsonl, down to a single point."""

import json
import struct
import sys

import numpy as np
import pytest

from vit_jax.metrics import curves
from vit_jax.types import UserError


@pytest.fixture
def drawn(monkeypatch):
    """Collects the figures that plot_curves saves."""
    from matplotlib.figure import Figure

    figures, savefig = [], Figure.savefig

    def save(self, *args, **kwargs):
        figures.append(self)
        return savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def train(step, loss=1.0):
    return {"step": step, "train/loss": loss, "train/lr": 0.001}


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def png_size(path):
    """Returns (width, height) from a PNG's header."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) > 10_000
    return struct.unpack(">II", data[16:24])


def test_two_runs_stand_side_by_side_with_three_panels_each(tmp_path, drawn):
    evaluation = {"step": 20, "eval/digits_test/top1": 0.9, "eval_average/digits_test/top1": 0.95}
    a = jsonl(tmp_path / "a.jsonl", [train(10), train(20), evaluation])
    b = jsonl(tmp_path / "b.jsonl", [train(5), evaluation])
    curves.plot_curves({"pretrain": a, "finetune": b}, tmp_path / "new" / "curves.png")
    width, height = png_size(tmp_path / "new" / "curves.png")
    assert width == int(2 * 6.2 * 130)
    assert height == int((3.0 + 3.4 + 1.8 + 0.5) * 130)
    top1 = "Top-1 accuracy (solid: raw weights, dashed: averaged, ring: best)"
    assert titles(drawn[0]) == ["Training loss"] * 2 + [top1] * 2 + ["Learning rate"] * 2
    assert [t.get_text() for ax in drawn[0].axes[:2] for t in ax.texts] == ["pretrain", "finetune"]


def test_best_value_of_raw_and_averaged_weights_is_said_with_its_step(tmp_path, drawn):
    top1 = {10: (0.5, 0.4), 20: (0.975, 0.9), 30: (0.9, 0.98125)}
    records = [{"step": s, "eval/digits/top1": raw, "eval_average/digits/top1": avg} for s, (raw, avg) in top1.items()]
    curves.plot_curves({"run": jsonl(tmp_path / "m.jsonl", records)}, tmp_path / "c.png")
    ax = drawn[0].axes[1]
    (entry,) = ax.get_legend().get_texts()
    assert entry.get_text() == "digits: best 97.50% at step 20, averaged 98.12% at step 30"
    raw, ring, averaged, _, _ = ax.lines
    assert (raw.get_linestyle(), averaged.get_linestyle()) == ("-", "--")
    np.testing.assert_allclose(raw.get_ydata(), [50, 97.5, 90])
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (20, 97.5)


def test_five_evaluators_have_five_colours_and_a_legend_outside_the_axes(tmp_path, drawn):
    records = [{"step": s, **{f"eval/set_{i}/top1": s / 40 - i / 20 for i in range(5)}} for s in range(10, 40)]
    curves.plot_curves({"run": jsonl(tmp_path / "m.jsonl", records)}, tmp_path / "c.png")
    ax = drawn[0].axes[1]
    legend = ax.get_legend()
    assert [t.get_text().split(":")[0] for t in legend.get_texts()] == [f"set_{i}" for i in range(5)]
    assert len({line.get_color() for line in ax.lines}) == 5
    assert len({line.get_marker() for line in legend.get_lines()}) == 5
    inside, box = legend.get_window_extent(), ax.get_window_extent()
    assert inside.y1 < box.y0  # below the panel: it covers no data
    assert inside.y0 > drawn[0].axes[0].get_figure().bbox.y0
    assert ax.get_title() == "Top-1 accuracy (ring: best)"


def test_long_loss_is_smoothed_over_the_window_that_the_legend_states(tmp_path, drawn):
    # 400 records, 10 steps apart: a window of 400 // 40 = 10, made odd: 11 records, 110 steps.
    curves.plot_curves(
        {"run": jsonl(tmp_path / "m.jsonl", [train(10 * i, 1.0 + i % 2) for i in range(400)])}, tmp_path / "c.png"
    )
    ax = drawn[0].axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["each record", "mean over 11 records (110 steps)"]
    raw, smooth = ax.lines
    assert raw.get_alpha() == 0.3
    # Around an even record lie 6 odd ones' worth of 1.0 or 2.0: (6 * 1 + 5 * 2) / 11 and (5 * 1 + 6 * 2) / 11.
    assert sorted(set(smooth.get_ydata()[10:-10].round(6))) == [1.454545, 1.545455]
    assert smooth.get_ydata()[0] == 1.5  # records 0..5: three of each


def test_loss_axis_is_logarithmic_only_where_the_loss_falls_twentyfold(tmp_path, drawn):
    for losses in ([2.0, 0.2], [2.0, 0.02], [2.0, 0.0]):
        path = jsonl(tmp_path / "m.jsonl", [train(i, loss) for i, loss in enumerate(losses)])
        curves.plot_curves({"run": path}, tmp_path / "c.png")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["linear", "log", "linear"]


def test_a_single_point_is_visible(tmp_path, drawn):
    records = [train(1, 0.5), {"step": 1, "eval/digits/top1": 0.5}]
    curves.plot_curves({"run": jsonl(tmp_path / "m.jsonl", records)}, tmp_path / "c.png")
    png_size(tmp_path / "c.png")
    assert [ax.lines[0].get_marker() for ax in drawn[0].axes] == ["o", "o", "o"]
    assert [t.get_text() for t in drawn[0].axes[0].get_xticklabels()][1:-1] == ["0", "1"]  # no half steps


def test_without_an_evaluator_there_is_no_empty_panel(tmp_path, drawn):
    curves.plot_curves({"run": jsonl(tmp_path / "m.jsonl", [train(1), train(2)])}, tmp_path / "c.png")
    png_size(tmp_path / "c.png")
    assert titles(drawn[0]) == ["Training loss", "Learning rate"]


def test_a_run_that_lacks_what_another_has_says_so(tmp_path, drawn):
    a = jsonl(tmp_path / "a.jsonl", [train(1), {"step": 1, "eval/digits/top1": 0.5}])
    b = jsonl(tmp_path / "b.jsonl", [])
    curves.plot_curves({"a": a, "b": b}, tmp_path / "c.png")
    said = [[t.get_text() for t in ax.texts if t.get_text() != "b"] for ax in drawn[0].axes[1::2]]
    assert said == [["nothing was recorded"]] * 3


def test_values_that_are_not_finite_are_left_out(tmp_path, drawn):
    records = [train(1, 2.0), train(2, "nan"), train(3, "inf"), train(4, 1.0)]
    curves.plot_curves({"run": jsonl(tmp_path / "m.jsonl", records)}, tmp_path / "c.png")
    assert drawn[0].axes[0].lines[0].get_xdata().tolist() == [1, 4]


def test_missing_files_are_named_all_at_once(tmp_path):
    with pytest.raises(UserError, match=r"no file for a at .*x\.jsonl, b at .*y\.jsonl"):
        curves.plot_curves({"a": tmp_path / "x.jsonl", "b": tmp_path / "y.jsonl"}, tmp_path / "c.png")
    with pytest.raises(UserError, match="found no run"):
        curves.plot_curves({}, tmp_path / "c.png")


def test_axes_have_whole_steps_up_to_the_last_and_plain_numbers(tmp_path, drawn):
    records = [train(s, 3.0 * 0.995**s) for s in range(0, 1401, 10)]
    records += [{"step": s, "eval/digits/top1": 0.96 + s * 1e-6} for s in range(0, 1401, 10)]
    curves.plot_curves({"run": jsonl(tmp_path / "m.jsonl", records)}, tmp_path / "c.png")
    loss, top1, rate = drawn[0].axes
    assert [t.get_text() for t in loss.get_xticklabels()][1:-1] == [f"{s:,}" for s in range(0, 1401, 200)]
    assert {"0.01", "0.1", "1"} <= {t.get_text() for t in loss.get_yticklabels()}
    low, high = top1.get_ylim()
    assert high - low == pytest.approx(2)  # A change of 0.1 points does not look like a leap.
    assert top1.lines[0].get_markevery() == 6  # 141 points, at most 24 of them marked
    assert rate.get_ylim()[0] == 0


def test_pyplot_and_the_callers_settings_are_not_touched(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "font.size", 7.5)
    had = "matplotlib.pyplot" in sys.modules
    curves.plot_curves({"run": jsonl(tmp_path / "m.jsonl", [train(1)])}, tmp_path / "c.png")
    assert matplotlib.rcParams["font.size"] == 7.5
    assert ("matplotlib.pyplot" in sys.modules) == had
