"""What the end-to-end tests share: the program in processes of its own, on a model small enough for a run in seconds.

The compiled programs and the prepared digits lie in folders of the session, so only its first run compiles and prepares.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from forked import Forked, preload

ROOT = Path(__file__).parents[2]
PATIENCE_S = 180  # for whatever is waited for; a run takes seconds
STEPS = 16
TINY = {
    "model.width": 32,
    "model.depth": 1,
    "model.mlp_dim": 512,  # its kernels are just large enough to be split over devices
    "model.num_heads": 1,
    "model.representation_size": 32,
    "data.split": "train",
    "data.batch_size": 120,  # of 1,437 examples: step 12 holds the end of an epoch and the start of the next
    # Adam divides an element's gradient by its own size, so one that cancels to nearly zero (a class with exactly its share of
    # a batch, under a head of zeros) moves by its rounding, which differs between one and eight devices. This epsilon is of
    # the size of the gradients, and such elements stay still.
    "optim.eps": 1e-3,
    "train.duration": STEPS,
    "train.log_every": 5,  # with a checkpoint every 2 steps, records straddle checkpoints
    "checkpoint.every": 2,
    "checkpoint.keep_best": 1,  # an evaluation may ask for a save while another is being written
    "checkpoint.best_metric": "eval/digits/top1",
    "evals.digits.every": 3,
    "evals.digits.split": "test[:100]",
    "evals.fewshot.train_split": "train[:300]",
    "evals.fewshot.test_split": "test[:100]",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder starts processes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@dataclasses.dataclass
class Finished:
    """A process that ended.

    Args:
      code: exit code; negative for a signal.
      out, err: what it printed.
    """

    code: int
    out: str
    err: str

    @property
    def printed(self) -> str:
        """Both."""
        return self.out + self.err


class Running:
    """A process under way, in a process group of its own. It prints into pipes, which no limit on files can fill."""

    def __init__(self, process: subprocess.Popen[str] | Forked):
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        streams = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self._readers = [threading.Thread(target=lambda s=s, to=to: to.extend(s), daemon=True) for s, to in streams]
        for reader in self._readers:
            reader.start()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Polls every millisecond; fails if the process ends first."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert self.process.poll() is None, f"ended with {self.process.returncode} first:\n{self.printed()}"
            assert time.monotonic() < deadline, f"waited too long:\n{self.printed()}"
            time.sleep(0.001)

    def printed(self) -> str:
        """Standard output and error so far."""
        return "".join([*self.out, *self.err])

    def kill(self) -> None:
        """kill -9 of the whole group, as a machine that goes away."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader, stream in zip(self._readers, (self.process.stdout, self.process.stderr), strict=True):
            reader.join(PATIENCE_S)
            stream.close()

    def finish(self, patience_s: float = PATIENCE_S) -> Finished:
        """Waits for its end."""
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"not over after {patience_s:.0f} s; it printed:\n{self.printed()}") from error
        finally:
            self.kill()
        return Finished(code, "".join(self.out), "".join(self.err))


@dataclasses.dataclass
class Program:
    """`python -m vit_jax.main` on `configs/quickstart.py:pretrain,smoke` made smaller.

    Args:
      data_dir: where digits are prepared.
      env: the environment of every process.
    """

    data_dir: str
    env: dict[str, str]
    _started: list[Running] = dataclasses.field(default_factory=list)

    def start(self, workdir: Path, *words: str, devices: int = 1, **sections: dict[str, object]) -> Running:
        """Starts a run.

        Args:
          workdir: its folder.
          *words: further words of the command line.
          devices: fake CPU devices.
          **sections: overrides, `train={"log_every": 3}`.
        """
        return self.execute(["-m", "vit_jax.main", *self.command(workdir, **sections), *words], devices=devices)

    def command(self, workdir: Path, **sections: dict[str, object]) -> list[str]:
        """The words of a run's command line; see `start`."""
        given = {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}
        values = {"data.data_dir": self.data_dir, **TINY, **given}
        config = ["--config=configs/quickstart.py:pretrain,smoke", f"--workdir={workdir}"]
        return config + [f"--config.{key}={value}" for key, value in values.items()]

    def execute(self, words: list[str], *, devices: int = 1, **environment: str) -> Running:
        """Starts Python with these arguments and, besides the caller's, these environment variables.

        A module without such variables is forked; see `forked`.
        """
        # Models this small compile for longer than they run.
        flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
        env = self.env | {"XLA_FLAGS": flags} | environment
        started: subprocess.Popen[str] | Forked
        if words[0] == "-m" and not environment:
            started = Forked(words[1], words[2:], env)
        else:
            started = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        self._started.append(Running(started))
        return self._started[-1]

    def run(self, workdir: Path, *words: str, devices: int = 1, **sections: dict[str, object]) -> Finished:
        """Starts a run and waits for its end."""
        return self.start(workdir, *words, devices=devices, **sections).finish()

    def call(self, *words: str) -> Finished:
        """What `vit_jax VERB` answers in this process: for what ends before it trains, where a start costs more than the rest."""
        from vit_jax.cli import train
        from vit_jax.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(ROOT)
            patch.setattr(train, "set_up_process", lambda: None)  # the process is the tests'
            patch.setattr(logging.getLogger("vit_jax.data.vtab.source"), "filters", [])
            patch.setenv("TFDS_DATA_DIR", self.env["TFDS_DATA_DIR"])
            code = main([*words])
        return Finished(code, out.getvalue(), err.getvalue())

    def close(self) -> None:
        """Leaves no process behind."""
        for running in self._started:
            running.kill()


@pytest.fixture(scope="session")
def session_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The caller's environment, with compiled programs kept for the session and the user's own folders out of reach."""
    cache = tmp_path_factory.mktemp("compiled")
    ours = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache), "TFDS_DATA_DIR": str(cache / "no_data")}
    return {**os.environ, **ours, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in which `digits` is prepared."""
    from vit_jax.data.prepare.prepare import prepare

    folder = tmp_path_factory.mktemp("tfds")
    prepare("digits", data_dir=str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def program(session_env: dict[str, str], digits_dir: str) -> Iterator[Program]:
    """The program; what it started ends with the session."""
    preload(session_env)
    with contextlib.closing(Program(digits_dir, session_env)) as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that was never stopped, to compare with. Not to be written to."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    finished = program.run(workdir)
    assert finished.code == 0, finished.err
    return workdir


@dataclasses.dataclass(frozen=True)
class Reading:
    """How tests look at a workdir."""

    def steps(self, workdir: Path) -> list[int]:
        """Steps of the committed checkpoints."""
        folder = workdir / "checkpoints"
        return sorted(int(n) for n in os.listdir(folder) if n.isdigit()) if folder.exists() else []

    def unfinished(self, workdir: Path) -> list[str]:
        """Folders of saves that have not been committed."""
        folder = workdir / "checkpoints"
        return sorted(n for n in os.listdir(folder) if not n.isdigit()) if folder.exists() else []

    def arrays(self, workdir: Path, step: int) -> dict[str, np.ndarray]:
        """Every array of a checkpoint: parameters, average, optimizer state, step, random key."""
        import jax
        import orbax.checkpoint as ocp

        found = {}
        for item in ("params", "average", "opt_state", "scalars"):
            folder = (workdir / "checkpoints" / str(step) / item).absolute()
            with ocp.PyTreeCheckpointer() as checkpointer:
                shapes = checkpointer.metadata(folder).item_metadata.tree
                on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
                tree = checkpointer.restore(folder, restore_args=on_host)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
                found[item + jax.tree_util.keystr(path)] = leaf
        return found

    def records(self, workdir: Path) -> list[str]:
        """The lines of metrics.jsonl without what measures time."""
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return [json.dumps({k: v for k, v in line.items() if not k.startswith("time/")}) for line in lines]

    def hash_of(self, folder: Path) -> dict[str, str]:
        """Content hash of every file under a folder, and "" for every folder."""
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in sorted(folder.rglob("*"))
        }

    def assert_same_run(self, workdir: Path, reference: Path, step: int = STEPS) -> None:
        """Bit-identical arrays, and the same records line by line."""
        found, expected = self.arrays(workdir, step), self.arrays(reference, step)
        assert sorted(found) == sorted(expected)
        different = [name for name, value in expected.items() if value.tobytes() != found[name].tobytes()]
        assert different == []
        assert self.records(workdir) == self.records(reference)

    def assert_close_run(self, workdir: Path, reference: Path, step: int = STEPS) -> None:
        """Weights and averages equal to 1e-5 of the largest value in each, scores of the last step to 1e-5."""
        found, expected = self.arrays(workdir, step), self.arrays(reference, step)
        # The loss does not depend on the key's bias (softmax over keys): its gradient is rounding noise, which Adam scales.
        names = [n for n in expected if n.startswith(("params", "average")) and "['key']['bias']" not in n]
        assert len(names) > 30
        for name in names:
            limit = 1e-5 * np.abs(expected[name]).max()
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=limit, err_msg=name)
        scores, expected_scores = (json.loads(self.records(folder)[-1]) for folder in (workdir, reference))
        assert "eval/fewshot/10shot" in scores
        assert scores == pytest.approx(expected_scores, rel=1e-5)


@pytest.fixture
def reading() -> Reading:
    """How tests look at a workdir."""
    return Reading()
