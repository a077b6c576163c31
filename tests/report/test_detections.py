"""Precision-recall curves from the files of runs."""

import numpy as np

from vit_jax.report.detections import precision_charts, read_curve


def write(folder, boxes):
    """A run with two images of one object each and one detection each, at `boxes`."""
    (folder / "predictions").mkdir(parents=True)
    true = np.array([[[0, 0, 10, 10]], [[0, 0, 10, 10]]], np.float32)
    ones = np.ones((2, 1), np.float32)
    arrays = {
        "score": np.array([[0.9], [0.8]]),
        "kind": np.zeros((2, 1), int),
        "box": np.array(boxes, np.float32)[:, None],
    }
    arrays |= {"true_box": true, "true_kind": np.zeros((2, 1), int), "true_valid": ones}
    np.savez(folder / "predictions" / "val.npz", **arrays, true_crowd=0 * ones, true_area=0 * ones)
    return folder


def test_the_curve_is_the_share_of_right_detections_down_to_each_recall(tmp_path):
    # The surer detection overlaps its object by 0.6 and the other one misses: at 0.5 half of the objects are found, at 0.75 none.
    file = write(tmp_path / "a", [[0, 0, 10, 6], [50, 50, 60, 60]]) / "predictions" / "val.npz"
    curve = read_curve(file)
    assert curve.shape == (10, 101)
    np.testing.assert_allclose(curve[0], np.where(np.arange(101) <= 50, 1.0, 0.0), atol=1e-12)
    assert curve[5].max() == 0


def test_there_is_a_chart_of_the_runs_that_have_detections(tmp_path):
    good = write(tmp_path / "good", [[0, 0, 10, 10], [0, 0, 10, 10]])
    other = tmp_path / "other"
    (other / "predictions").mkdir(parents=True)
    np.savez(other / "predictions" / "val.npz", label=np.zeros(3))
    broken = tmp_path / "broken"
    (broken / "predictions").mkdir(parents=True)
    (broken / "predictions" / "val.npz").write_bytes(b"no zip")
    (chart,) = precision_charts(
        [(0, "good", good), (1, "other", other), (2, "broken", broken), (3, "new", tmp_path / "new")]
    )
    assert "Precision at each recall on val" in chart.caption
    assert chart.svg.startswith("<svg")
    assert precision_charts([(1, "other", other)]) == []
