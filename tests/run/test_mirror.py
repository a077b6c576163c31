"""A workdir at a URL, on fsspec's store in memory. Most stages here are filled by hand; the last tests train."""

import json
import os
import shutil
import threading
from pathlib import Path

import fsspec
import jax
import pytest

from vit_jax import config as configs
from vit_jax.convert.load import load
from vit_jax.data.prepare.prepare import prepare as prepare_data
from vit_jax.remote import Remote
from vit_jax.run import dry_run, lease, mirror, run
from vit_jax.run.mirror import looked_at, mirrored
from vit_jax.train import loop
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.types import UserError

URL = "memory://mirror/run"
MEMORY = fsspec.filesystem("memory")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """A cache folder of the test's own, no pauses, and an empty store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "PAUSES_S", (0.0,))
    monkeypatch.setattr(lease, "POLL_S", 0.01)
    yield
    MEMORY.store.clear()


def write_step(folder, step, content="x"):
    """A checkpoint, as far as a mirror looks at it."""
    for item in ("params", "opt_state", "meta"):
        place = Path(folder) / "checkpoints" / str(step) / item
        place.mkdir(parents=True)
        (place / "data").write_text(f"{content} {step} {item}")


def upload(folder):
    """Copies a folder to the URL, as any other tool would."""
    for path in folder.rglob("*"):
        if path.is_file():
            MEMORY.pipe(f"/mirror/run/{path.relative_to(folder).as_posix()}", path.read_bytes())


def mirror_two_steps(between):
    """A run that saves steps 2 and 4, with something happening in between."""
    with mirrored(URL) as copy:
        write_step(copy.folder, 2)
        copy.send()
        between()
        write_step(copy.folder, 4)
        copy.send()


def there():
    """What is at the URL, but the lease: {name: content}."""
    found = {path.removeprefix("/mirror/run/"): MEMORY.cat(path) for path in MEMORY.find("/mirror/run")}
    return {name: content for name, content in found.items() if name != ".lease"}


def stages(tmp_path):
    return [path for path in (tmp_path / "cache" / "vit_jax").rglob("*") if path.is_file()]


def step_files(*steps):
    return {f"checkpoints/{step}/{item}/data" for step in steps for item in ("params", "opt_state", "meta")}


def test_everything_is_at_the_url_in_the_end_and_nothing_is_left_here(tmp_path):
    with mirrored(URL) as copy:
        (copy.folder / "config.json").write_text("{}")
        (copy.folder / "predictions").mkdir()
        (copy.folder / "predictions" / "test.npz").write_bytes(b"\x00")
        write_step(copy.folder, 2)
        copy.send()
        assert there().keys() == {"config.json", "predictions/test.npz", *step_files(2)}
        write_step(copy.folder, 4)
        (copy.folder / "config.json").write_text('{"new": 1}')
        (copy.folder / "half.partial").write_text("never sent")
        for item in (copy.folder / "checkpoints" / "2").iterdir():
            (item / "data").unlink()
            item.rmdir()
        (copy.folder / "checkpoints" / "2").rmdir()
    assert there().keys() == {"config.json", "predictions/test.npz", *step_files(4)}
    assert there()["config.json"] == b'{"new": 1}'
    assert there()["checkpoints/4/params/data"] == b"x 4 params"
    assert stages(tmp_path) == []


def test_records_are_there_before_the_checkpoint_and_run_json_is_the_last_of_them(monkeypatch):
    order = []
    for name, act in (("replace", Remote.replace), ("remove", Remote.remove)):

        def noting(self, place, *words, name=name, act=act, **options):
            order.append((name, place))
            return act(self, place, *words, **options)

        monkeypatch.setattr(Remote, name, noting)
    with mirrored(URL) as copy:
        order.clear()
        for name in ("run.json", "metrics.jsonl", "settled.json"):
            (copy.folder / name).write_text(name)
        write_step(copy.folder, 2)
        copy.send()
        assert order == [
            *(("replace", name) for name in ("metrics.jsonl", "settled.json", "run.json", "checkpoints/2.uploading")),
            ("remove", "checkpoints/2.uploading"),
        ]


def test_a_start_fetches_records_and_what_describes_checkpoints_and_their_arrays_only_when_asked(tmp_path):
    write_step(tmp_path / "old", 2)
    write_step(tmp_path / "old", 4)
    (tmp_path / "old" / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "old" / "time.json").write_text("[]\n")
    (tmp_path / "old" / "large.bin").write_text("not read by a run")
    upload(tmp_path / "old")
    with mirrored(URL) as copy:
        found = {path.relative_to(copy.folder).as_posix() for path in copy.folder.rglob("*") if path.is_file()}
        assert found == {"metrics.jsonl", "time.json", "checkpoints/2/meta/data", "checkpoints/4/meta/data"}
        copy.fetch_arrays(4)
        assert (copy.folder / "checkpoints/4/opt_state/data").read_text() == "x 4 opt_state"
        assert not (copy.folder / "checkpoints/2/params").exists()
    assert there().keys() == {"metrics.jsonl", "time.json", "large.bin", *step_files(2, 4)}


def test_a_checkpoint_that_was_being_written_does_not_count_and_is_removed_by_the_next_start(tmp_path):
    for step in (2, 4, 6):
        write_step(tmp_path / "old", step)
    upload(tmp_path / "old")
    MEMORY.pipe({"/mirror/run/checkpoints/6.uploading": b"", "/mirror/run/checkpoints/8.uploading": b""})
    MEMORY.pipe("/mirror/run/metrics.jsonl.partial", b"half")
    with looked_at(URL) as folder:
        assert sorted(os.listdir(folder / "checkpoints")) == ["2", "4"]
    assert "checkpoints/6.uploading" in there()  # a look writes nothing
    with mirrored(URL) as copy:
        assert sorted(os.listdir(copy.folder / "checkpoints")) == ["2", "4"]
        assert there().keys() == step_files(2, 4)


def test_a_kill_in_the_middle_of_a_copy_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def put(self, folder, names):
        real(self, folder, list(names)[:1])
        raise Killed

    real = Remote.put
    with pytest.raises(Killed):
        mirror_two_steps(lambda: monkeypatch.setattr(Remote, "put", put))
    assert {"checkpoints/4.uploading", *step_files(2)} < there().keys()
    monkeypatch.setattr(Remote, "put", real)
    with mirrored(URL):
        assert there().keys() == step_files(2)


def test_a_copy_that_fails_is_tried_again_and_then_says_what_is_safe_and_where_the_rest_is(tmp_path, monkeypatch):
    tries = []

    def put(self, folder, names):
        tries.append(names)
        raise ConnectionError("the network is down")

    real = Remote.put
    with pytest.raises(UserError) as caught:
        mirror_two_steps(lambda: monkeypatch.setattr(Remote, "put", put))
    assert len(tries) == 2
    message = str(caught.value)
    assert message.startswith(f"{URL} could not be written: ConnectionError: the network is down\n")
    assert f"the last good checkpoint is {URL}/checkpoints/2; fix the cause and start the same command again" in message
    kept = Path(message.partition("step 4 is kept on this machine, in ")[2].partition(",")[0])
    assert (kept / "checkpoints/4/params/data").read_text() == "x 4 params"
    monkeypatch.setattr(Remote, "put", real)
    with mirrored(URL) as copy:
        assert copy.steps == {2}
    assert kept.exists()


def test_a_copy_that_fails_once_succeeds_when_tried_again(monkeypatch):
    failing = [OSError("busy")]

    def put(self, folder, names):
        if failing:
            raise failing.pop()
        real(self, folder, names)

    real = Remote.put
    monkeypatch.setattr(Remote, "put", put)
    with mirrored(URL) as copy:
        write_step(copy.folder, 2)
    assert there().keys() == step_files(2)


def test_a_file_that_arrives_short_is_no_checkpoint(monkeypatch):
    def put(self, folder, names):
        real(self, folder, names)
        MEMORY.pipe("/mirror/run/checkpoints/2/params/data", b"x")

    real = Remote.put
    monkeypatch.setattr(Remote, "put", put)
    with (
        pytest.raises(UserError, match=r"params/data did not arrive whole\nno checkpoint is at .* yet"),
        mirrored(URL) as copy,
    ):
        write_step(copy.folder, 2)
    assert "checkpoints/2.uploading" in there()


def test_an_error_of_the_run_names_the_url_and_what_was_written_is_copied():
    def fail():
        with mirrored(URL) as copy:
            (copy.folder / "config.json").write_text("{}")
            raise UserError(f"{copy.folder / 'metrics.jsonl'} is damaged")

    with pytest.raises(UserError, match=rf"^{URL}/metrics\.jsonl is damaged$"):
        fail()
    assert there() == {"config.json": b"{}"}


def test_who_has_lost_the_lease_copies_nothing_more():
    with pytest.raises(UserError, match=f"{URL} is now used by process 7; .* kept in"):
        mirror_two_steps(lambda: MEMORY.pipe("/mirror/run/.lease", b'{"id": "x", "who": "process 7"}'))
    assert there().keys() == step_files(2)


def test_a_save_returns_while_it_is_copied_and_the_next_one_waits_for_the_copy(monkeypatch):
    monkeypatch.setattr(Checkpointer, "save", lambda self, step, *_: write_step(self.mirror.folder, step))
    monkeypatch.setattr(Checkpointer, "wait", lambda self: None)
    let_go, real, during = threading.Event(), Remote.put, []

    def put(self, folder, names):
        during.append(sorted(os.listdir(folder / "checkpoints")))
        assert let_go.wait(20)
        real(self, folder, names)

    monkeypatch.setattr(Remote, "put", put)
    with mirrored(URL) as copy:
        checkpointer = copy.checkpointer()(copy.folder, every=2)
        checkpointer.save(2, {})  # returns though the copy cannot end
        assert not there().keys() & step_files(2)
        threading.Timer(0.1, let_go.set).start()
        checkpointer.save(4, {})
        assert step_files(2) <= there().keys()
        checkpointer.wait()
        assert there().keys() == step_files(2, 4)
        checkpointer.close()
    assert during == [["2"], ["2", "4"]]


def test_a_full_disk_names_the_stage_and_what_is_at_the_url():
    with mirrored(URL) as copy:
        write_step(copy.folder, 2)
        copy.send()
        checkpointer = copy.checkpointer()(copy.folder, every=2)
        message = str(checkpointer.failure("a checkpoint", OSError(28, "No space left on device")))
        assert f"a checkpoint (written below {copy.folder.parent} first) could not be written: " in message
        assert f"the last good checkpoint is {URL}/checkpoints/2; free disk space" in message


def test_a_second_start_on_this_machine_names_the_url_and_the_first_process(tmp_path):
    from vit_jax import locks

    with mirrored(URL):
        held = set(locks._held)
        locks._held.clear()  # as another process
        try:
            with pytest.raises(UserError, match=f"^workdir {URL} is used by process {os.getpid()} on "), mirrored(URL):
                pass
        finally:
            locks._held.update(held)


def test_a_run_of_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    config = configs.load("configs/quickstart.py:pretrain,smoke")
    with pytest.raises(
        UserError, match=f"^workdir {URL}: a run of several processes needs a folder .* mount the bucket"
    ):
        run(config, URL)


TINY = {
    **{"model.width": 16, "model.depth": 1, "model.mlp_dim": 16, "model.num_heads": 1, "model.representation_size": 8},
    **{"data.batch_size": 64, "data.split": "train[:256]", "train.duration": 6, "train.log_every": 1},
    **{"checkpoint.every": 2, "checkpoint.keep_best": 1, "checkpoint.best_metric": "eval/test/top1"},
    **{"evals.test.split": "test[:64]", "evals.test.batch_size": 64, "evals.test.every": 2},
}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A config and the overrides that make it tiny."""
    data = str(tmp_path_factory.mktemp("tfds"))
    prepare_data("digits", data_dir=data)
    config = configs.load("configs/pretrain.py:variant=Nano/4,dataset=digits")
    return config, [(key, str(value)) for key, value in {**TINY, "data.data_dir": data}.items()]


def records(content):
    lines = [json.loads(line) for line in content.splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


@pytest.mark.slow
def test_a_run_at_a_url_that_fails_stops_and_resumes_equals_a_local_one_to_the_bit(
    arguments, tmp_path, monkeypatch, capsys
):
    config, overrides = arguments
    devices = jax.devices()[:1]  # which compiles faster than for eight
    monkeypatch.setattr(jax, "devices", lambda *_: devices)
    local = tmp_path / "run"
    run(config, local, overrides=overrides)

    def put(self, folder, names):
        if "checkpoints/4/" in next(iter(names)):
            raise ConnectionError("the network is down")
        real(self, folder, names)

    real = Remote.put
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "put", put)
        with pytest.raises(
            UserError, match=f"the last good checkpoint is {URL}/checkpoints/2; fix the cause"
        ) as caught:
            run(config, URL, overrides=overrides)
    kept = Path(str(caught.value).partition("is kept on this machine, in ")[2].partition(",")[0])
    assert (kept / "checkpoints" / "4" / "params").is_dir()
    shutil.rmtree(kept)

    monkeypatch.setattr(loop.StopSignal, "asked", lambda self, step: step == 3)
    with pytest.raises(loop.Interrupted):
        run(config, URL, overrides=overrides)
    assert {name.split("/")[1] for name in there() if name.startswith("checkpoints/")} == {"2", "3"}
    assert stages(tmp_path) == []
    assert f"resuming {URL} from step 2" in capsys.readouterr().out

    result = run(config, URL, overrides=overrides)
    assert f"resuming {URL} from step 3" in capsys.readouterr().out
    assert (result.workdir, result.step) == (URL, 6)
    assert records(there()["metrics.jsonl"]) == records((local / "metrics.jsonl").read_bytes())
    for name in ("", "@best", "@4"):
        pairs = zip(*(jax.tree.leaves(load(f"{place}{name}").params) for place in (local, URL)), strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs), name
    files = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    assert {name for name in files if "/d/" not in name and "tensorboard" not in name} <= there().keys()

    run(config, URL, overrides=overrides)
    assert f"{URL} holds this run already, finished at step 6" in capsys.readouterr().out
    assert "length     6 steps" in dry_run(config, URL, overrides=overrides)
    with pytest.raises(UserError, match=rf"^workdir {URL} holds a different run; .* with --config\.init={URL}\."):
        run(config, URL, overrides=[*overrides, ("seed", "5")])
