"""What the SLURM executor makes of its options, of the queue and of what runs leave, without a SLURM.

squeue and sbatch are scripts here that print what SLURM 22.05 printed; tests/slurm has the real ones.
"""

import json
import os

import pytest

from vit_jax.sweeps import slurm
from vit_jax.sweeps.slurm import Place, SlurmExecutor, outside_job, parse_options, queued
from vit_jax.types import UserError


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Puts a shell script on PATH under a program's name; `$HERE` in it is its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def write(name, text):
        file = folder / name
        file.write_text(f"#!/bin/sh\nHERE={folder}\n{text}\n")
        file.chmod(0o755)
        return folder

    return write


@pytest.fixture
def executor(program, tmp_path):
    """One whose sbatch gives the job the id 7."""
    program("srun", "exit 1")
    program("sbatch", "echo Submitted batch job 7")
    return SlurmExecutor(tmp_path / "logs", parallel=3, minutes=60, cores=2, gpus=0, options={})


def test_options_are_sbatch_s_with_and_without_a_value():
    found = parse_options(["partition=gpu", "mem-per-cpu=4G", "exclusive", "--comment=a=b"])
    assert found == {"partition": "gpu", "mem_per_cpu": "4G", "exclusive": True, "comment": "a=b"}


@pytest.mark.parametrize("text", ["=gpu", "partition=", "Partition=gpu", "a b=c", ""])
def test_an_option_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="expected KEY=VALUE or KEY of sbatch"):
        parse_options([text])


@pytest.mark.parametrize(
    ("text", "instead"), [("time=10", "give --minutes"), ("cpus-per-task=2", "give --cores"), ("output=x", "itself$")]
)
def test_an_option_that_the_sweep_sets_is_refused_and_its_flag_named(text, instead):
    with pytest.raises(UserError, match=instead):
        parse_options([text])


@pytest.mark.parametrize("flag", ["parallel", "minutes", "cores", "gpus"])
def test_numbers_that_cannot_be_are_refused(tmp_path, flag):
    numbers = {"parallel": 1, "minutes": 1, "cores": 1, "gpus": 0, flag: -1}
    with pytest.raises(UserError, match=f"--{flag}=-1: expected"):
        SlurmExecutor(tmp_path, options={}, **numbers)


def test_a_machine_without_sbatch_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs sbatch, which is not on this machine"):
        SlurmExecutor(tmp_path, parallel=1, minutes=1, cores=1, gpus=0, options={})


def test_the_queue_is_read_by_names_for_arrays_and_single_jobs(program):
    folder = program("squeue", 'echo "$@" >$HERE/asked; printf "12_0|vit_jax-a\\n12_10|vit_jax-a\\n15|vit_jax-b\\n"')
    found = queued(["vit_jax-b", "vit_jax-a", "vit_jax-b"])
    assert found == {Place("vit_jax-a", 0): "12_0", Place("vit_jax-a", 10): "12_10", Place("vit_jax-b", 0): "15"}
    asked = (folder / "asked").read_text().split()
    assert "--array" in asked  # without it, 12_1 to 12_9 that wait are one line, 12_[1-9]
    assert "--name=vit_jax-a,vit_jax-b" in asked


def test_a_queue_that_fails_for_a_while_is_asked_again(program, monkeypatch, capsys):
    failing = "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1"
    program("squeue", f'if [ -e $HERE/failed ]; then echo "3|n"; else touch $HERE/failed; {failing}; fi')
    monkeypatch.setattr(slurm, "ASK_AGAIN_S", 0.0)
    assert queued(["n"]) == {Place("n", 0): "3"}
    assert capsys.readouterr().err.count("Unable to contact slurm controller; asking again") == 1


def test_a_queue_that_never_answers_ends_the_driver_and_says_that_jobs_stay(program, monkeypatch):
    program("squeue", "echo no controller >&2; exit 1")
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.0)
    with pytest.raises(UserError, match="squeue fails: no controller; the jobs stay"):
        queued(["n"])


def test_a_submission_is_named_in_its_runs_folders_before_sbatch_is_called(program, executor, tmp_path):
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        run.mkdir()
    program("sbatch", f'cat {runs[1]}/slurm.json >$HERE/noted; cp "$1" $HERE/script; echo Submitted batch job 7')
    executor.start(runs)
    noted = json.loads((tmp_path / "bin" / "noted").read_text())
    script = (tmp_path / "bin" / "script").read_text()
    assert noted["index"] == 1
    assert f"--job-name={noted['name']}\n" in script
    for line in ("--array=0-1%2", "--time=60", "--cpus-per-task=2", "--signal=USR2@120", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert executor.room() == 1
    assert executor.stop().count("`scancel 7` ends them") == 1


def test_a_refused_submission_leaves_nothing_to_watch(program, executor, tmp_path, capfd):
    program("sbatch", "echo 'sbatch: error: invalid account or partition' >&2; exit 1")
    with pytest.raises(
        UserError, match="sbatch took no jobs and said: sbatch: error: invalid account or partition; put"
    ):
        executor.start([tmp_path])
    assert executor.room() == 3
    assert executor.stop() == "no job was left in the queue"
    assert capfd.readouterr() == ("", "")  # it is told once, by who catches it


def test_only_runs_whose_jobs_are_in_the_queue_are_adopted(program, executor, tmp_path):
    folder = program("squeue", 'echo asked >>$HERE/asked; echo "12_1|vit_jax-a"')
    for index in range(3):
        (tmp_path / f"run{index}").mkdir()
        (tmp_path / f"run{index}" / "slurm.json").write_text(json.dumps({"name": "vit_jax-a", "index": index}))
    (tmp_path / "never").mkdir()
    found = [executor.adopt(tmp_path / name) for name in ("run0", "run1", "run2", "never")]
    assert found == [False, True, False, False]
    assert (folder / "asked").read_text() == "asked\n"  # once a submission
    assert executor.stop().count("scancel 12`") == 1


def test_a_run_has_ended_when_it_says_so_or_when_its_job_is_twice_gone(program, executor, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(slurm, "ASK_EVERY_S", 0.0)
    runs = [tmp_path / name for name in ("done", "mistaken", "requeued", "killed")]
    for run in runs:
        run.mkdir()
    executor.start(runs)
    name = json.loads((runs[0] / "slurm.json").read_text())["name"]
    program("squeue", f'printf "7_0|{name}\\n7_1|{name}\\n7_2|{name}\\n"')
    for run, code in zip(runs, (0, 2, 75), strict=False):
        (run / "outcome.json").write_text(json.dumps({"code": code, "message": ""}))
    assert executor.ended() == [runs[0], runs[1]]  # the queue still lists them
    assert executor.ended() == [runs[3]]
    assert executor.ended() == []
    assert executor.room() == 2
    # The third was stopped, and its job is cancelled before it starts again: a crash, that is no outcome.
    program("squeue", "")
    assert executor.ended() == []
    assert executor.ended() == [runs[2]]
    assert not (runs[2] / "outcome.json").exists()
    assert (runs[2] / "log.txt").read_text() == "job 7_2 was cancelled\n"


def test_the_job_that_a_driver_runs_in_is_hidden_from_sbatch_and_the_cluster_is_not(monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "/etc/here")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    with outside_job():
        assert os.environ["SLURM_MEM_PER_NODE"] == "100"  # no job: a setting of the user's
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    with outside_job():
        assert "SLURM_MEM_PER_NODE" not in os.environ
        assert "SLURM_JOB_ID" not in os.environ
        assert (os.environ["SLURM_CONF"], os.environ["SBATCH_ACCOUNT"]) == ("/etc/here", "mine")
    assert os.environ["SLURM_MEM_PER_NODE"] == "100"


def test_a_driver_stopped_while_sbatch_takes_the_jobs_says_that_some_may_be_queued(
    program, executor, tmp_path, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(executor._executor, "map_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        executor.start([tmp_path])
    assert "`squeue --me` may list them" in executor.stop()
