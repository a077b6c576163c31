"""The files of a sweep: what is written is read back, and what is damaged is one message."""

import hashlib
import json

import pytest
from made import leave_result, result_of

from vit_jax.sweeps.results import hash_of, read_results, read_sweep, spread, write_sweep
from vit_jax.types import UserError


def test_results_are_read_back_as_written(grid, tmp_path):
    runs = grid.dev_runs("a")
    for run in reversed(runs):
        leave_result(tmp_path, run, 0.25, resolution=(384, 512))
    found = read_results(tmp_path)
    assert list(found) == [run.folder(tmp_path) for run in runs]
    assert list(found.values()) == [result_of(run, 0.25, resolution=(384, 512)) for run in runs]


def test_spread_is_the_sample_deviation():
    assert spread([0.1, 0.2, 0.3])[0] == pytest.approx(0.2)
    assert spread([0.1, 0.2, 0.3]).std == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert spread([0.5]).std != spread([0.5]).std  # nan: one value has none
    assert spread([]).num == 0


def test_a_hash_is_of_the_json_and_not_of_the_order_of_keys():
    by_hand = hashlib.sha256(b'{"a": 1, "b": [2, "x"]}').hexdigest()[:16]  # identities on disk stay what they are
    assert hash_of({"b": (2, "x"), "a": 1}) == hash_of({"a": 1, "b": [2, "x"]}) == by_hand


def test_the_score_is_that_of_the_averaged_weights_where_there_are_some(grid):
    run = grid.dev_runs("a")[0]
    assert result_of(run, 0.5).score("top1") == 0.5
    assert result_of(run, 0.5, average_scores={"top1": 0.75}).score("top1") == 0.75


def test_a_sweep_is_read_back_with_its_types_and_what_newer_versions_added(grid, tmp_path):
    write_sweep(tmp_path, grid.sweep)
    file = tmp_path / "sweep.json"
    assert read_sweep(tmp_path) == grid.sweep
    assert isinstance(read_sweep(tmp_path).candidates["optim.lr"], tuple)
    older = json.loads(file.read_text())
    del older["weights"], older["overrides"], older["tasks"][0]["missing"]
    file.write_text(json.dumps(older))
    assert (read_sweep(tmp_path).weights, read_sweep(tmp_path).tasks) == ("", grid.sweep.tasks)
    for key, value in (("seeds", [0, "1"]), ("layout", "table"), ("tasks", [{"name": "a"}]), ("newer", 1)):
        file.write_text(json.dumps(older | {key: value}))
        with pytest.raises(
            UserError, match=r"sweep\.json is damaged or of another version \(.*; start the sweep again"
        ):
            read_sweep(tmp_path)
