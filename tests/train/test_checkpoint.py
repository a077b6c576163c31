"""Checkpoints that were damaged or put together: one message that says what to remove and what is left, and old ones load."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from vit_jax import partition
from vit_jax.convert.open import open_checkpoint
from vit_jax.train.checkpoint import Checkpointer, read_params
from vit_jax.train.loop import examine_state
from vit_jax.types import TrainState, UserError


def state_of(step, mesh):
    """A state whose arrays are all of `step`."""
    params = {"a": {"kernel": np.full((8, 4), step, np.float32)}, "b": np.arange(6, dtype=np.float32) + step}
    state = TrainState(
        step=np.int32(step),
        params=params,
        opt_state=(params, np.int32(step)),
        average=jax.tree.map(lambda x: x / 2, params),
        rng=jax.random.fold_in(jax.random.key(0), step),
    )
    return partition.put_tree(state, jax.tree.map(lambda _: partition.replicated(mesh), state))


def abstract_of(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The workdir of three saves, the last two of which are kept."""
    workdir, mesh = tmp_path_factory.mktemp("made") / "run", partition.make_mesh()
    saver = Checkpointer(workdir, every=1, best_metric="eval/x/top1", keep_best=1)
    for step in (2, 4, 6):
        state = state_of(step, mesh)
        meta = {"step": step, "grid": [1, 1], "config": {}, "checksums": examine_state(state, mesh)}
        saver.save(state, meta, {"eval/x/top1": step / 10})
    saver.close()
    return workdir


@pytest.fixture
def workdir(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def restore(workdir, mesh=None):
    mesh = mesh or partition.make_mesh()
    reader = Checkpointer(workdir, every=1, best_metric="eval/x/top1", keep_best=1)
    try:
        return reader.restore(abstract_of(state_of(0, mesh)), reader.latest_step())
    finally:
        reader.close()


@pytest.mark.slow
def test_a_checkpoint_comes_back_to_the_bit_on_any_mesh(workdir):
    for mesh in (partition.make_mesh(), partition.make_mesh(8), partition.make_mesh(1, jax.devices()[:1])):
        state, meta = restore(workdir, mesh)
        assert (int(state.step), meta["step"]) == (6, 6)
        expected = state_of(6, mesh)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
            a, b = (jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("item", ["params", "opt_state", "average", "scalars", "meta"])
def test_an_item_of_another_step_is_refused(workdir, item):
    steps = workdir / "checkpoints"
    shutil.rmtree(steps / "6" / item)
    shutil.copytree(steps / "4" / item, steps / "6" / item)
    with pytest.raises(UserError, match=r"(are not what was saved|parts of several steps|meta is damaged)") as caught:
        restore(workdir)
    assert str(caught.value).startswith(f"checkpoint {steps / '6'} cannot be restored into this run's state: it")
    assert str(caught.value).endswith(
        f"\nIf the folder is damaged, remove {steps / '6'}: the run then resumes from step 4"
    )
    shutil.rmtree(steps / "6")
    assert restore(workdir)[1]["step"] == 4


@pytest.mark.parametrize("damage", ["removed", "empty", "cut"])
@pytest.mark.parametrize("item", ["params", "scalars", "meta"])
def test_a_file_that_is_damaged_is_one_message_with_the_remedy(workdir, damage, item):
    for step in ("4", "6"):
        (file,) = (workdir / "checkpoints" / step / item).glob("metadata" if item == "meta" else "d/*")
        data = file.read_bytes()
        file.unlink()
        if damage != "removed":
            file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with pytest.raises(UserError, match=r"If the folder is damaged, remove .*/6: the run then resumes from step 4$"):
        restore(workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    with pytest.raises(UserError, match=r"remove .*/4: the run then starts over$"):
        restore(workdir)
    if item != "scalars":  # which init does not read
        with pytest.raises(UserError, match=r"/4 cannot be read as a vit_jax checkpoint .*; copy it again"):
            open_checkpoint(str(workdir))


@pytest.mark.parametrize("text", [b"", b"\xff{", b"[1]", b'{"eval/x/top1": "high"}', b'{"eval/x/top1": 0.4'])
def test_scores_that_cannot_be_read_are_one_message_and_name_their_checkpoint(workdir, text):
    (workdir / "checkpoints" / "4" / "metrics" / "metrics").write_bytes(text)
    with pytest.raises(
        UserError, match=r"cannot be (listed|restored).*\n.*remove .*/4: the run then resumes from step 6$"
    ):
        restore(workdir)


def test_a_flipped_bit_of_the_arrays_is_found_by_resuming_and_by_init(workdir, monkeypatch):
    """A flip inside a compressed chunk: what is read is made to differ where it is read."""
    import orbax.checkpoint as ocp

    real = ocp.PyTreeCheckpointer.restore

    def flipped(self, place, *args, **options):
        tree = real(self, place, *args, **options)
        tree["a"]["kernel"] = tree["a"]["kernel"].copy()
        tree["a"]["kernel"].view(np.uint8)[3, 5] ^= 1
        return tree

    place = epath.Path(workdir / "checkpoints" / "6")
    tensors, _ = read_params(place, average=True)
    np.testing.assert_array_equal(tensors["a/kernel"], 3.0)
    monkeypatch.setattr(ocp.PyTreeCheckpointer, "restore", flipped)
    with pytest.raises(ValueError, match=r"its average are not what was saved \(checksum of \['a'\]\['kernel'\]\)"):
        read_params(place, average=True)


def test_a_checkpoint_of_a_version_without_checksums_loads_as_before(workdir):
    for step in ("4", "6"):
        file = workdir / "checkpoints" / step / "meta" / "metadata"
        meta = json.loads(file.read_text())
        del meta["checksums"], meta["crc"]
        file.write_text(json.dumps(meta))
    assert restore(workdir)[1]["step"] == 6
    assert read_params(epath.Path(workdir / "checkpoints" / "6"), average=False)[0]["b"][0] == 6.0


def test_what_a_kill_before_the_clean_up_left_is_removed(workdir):
    steps = workdir / "checkpoints"
    assert sorted(path.name for path in steps.iterdir()) == ["4", "6"]
    shutil.copytree(steps / "4", steps / "3")  # of the best, 6 is one already
    tidying = Checkpointer(workdir, every=1, best_metric="eval/x/top1", keep_best=1, keep_last=1)
    tidying.tidy()
    tidying.close()
    assert [path.name for path in steps.iterdir()] == ["6"]
    assert restore(workdir)[1]["step"] == 6


def test_the_best_is_kept_besides_the_newest(workdir):
    steps = workdir / "checkpoints"
    file = steps / "4" / "metrics" / "metrics"
    shutil.copytree(steps / "4", steps / "2")
    (steps / "2" / "metrics" / "metrics").write_text('{"eval/x/top1": 0.9}')
    file.write_text('{"eval/x/top1": 0.1}')
    tidying = Checkpointer(workdir, every=1, best_metric="eval/x/top1", keep_best=1, keep_last=1)
    tidying.tidy()
    tidying.close()
    assert sorted(path.name for path in steps.iterdir()) == ["2", "6"]
