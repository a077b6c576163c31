"""The cost of a sweep before it runs, and what is found then that would stop a run."""

from vit_jax.sweeps.cost import describe_state


def test_a_half_done_run_says_how_far_it_came(grid, tmp_path):
    run = grid.dev_runs("a")[0]
    assert describe_state(run, tmp_path, done=False) == "to do"
    for step in ("8", "16", "24.orbax-checkpoint-tmp"):
        (run.folder(tmp_path) / "checkpoints" / step).mkdir(parents=True)
    assert describe_state(run, tmp_path, done=False) == "half done, step 16"
    assert describe_state(run, tmp_path, done=True) == "done"
