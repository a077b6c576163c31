"""SIGTERM and Ctrl-C: the step is finished, the state saved, and the exit code says that the same command resumes."""

import os
import shlex
import signal
import sys
import textwrap
import time

EXIT_INTERRUPTED = 75


def test_sigterm_and_ctrl_c_save_and_the_same_command_ends_bit_identical(program, reading, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    far_apart = {"every": 7}  # so what is saved in between is saved because of the signal

    run = program.start(workdir, checkpoint=far_apart)
    run.wait_until(lambda: "step  5/16" in run.printed())
    run.process.send_signal(signal.SIGTERM)
    stopped = run.finish()
    assert stopped.code == EXIT_INTERRUPTED, stopped.err
    step = reading.steps(workdir)[-1]
    assert f"stopped after step {step} of 16 and saved; the same command resumes" in stopped.out
    assert 5 <= step < 16
    assert stopped.err == ""
    lines = stopped.out.splitlines()
    assert lines[0] == "compiling the training step"
    assert [line for line in lines if line.startswith("first step done in ")]
    acknowledged = lines.index("stopping: the step ends and the run is saved; a second Ctrl-C ends it at once")
    assert acknowledged < len(lines) - 1
    assert stopped.out.count("stopping: ") == 1

    # Ctrl-C reaches the worker processes too.
    run = program.start(workdir, checkpoint=far_apart, data={"workers": 2})
    run.wait_until(lambda: max(reading.steps(workdir)) > step or "step 10/16" in run.printed())
    os.killpg(run.process.pid, signal.SIGINT)
    stopped = run.finish()
    assert stopped.code == EXIT_INTERRUPTED, stopped.err
    assert "saved; the same command resumes" in stopped.out
    assert step < reading.steps(workdir)[-1] < 16
    assert "Traceback" not in stopped.err

    # Its lines are worth nothing: one reader leaves after the first, the other's disk is full.
    words = [sys.executable, "-m", "vit_jax.main", *program.command(workdir, checkpoint=far_apart)]
    piped = f"{shlex.join(words)} 2>/dev/full <&- | head -1; exit ${{PIPESTATUS[0]}}"
    bash = "import os, sys; os.execvp('bash', ['bash', '-c', sys.argv[1]])"
    finished = program.execute(["-c", bash, piped]).finish()
    assert finished.code == 0
    assert finished.out == "compiling the training step\n"
    reading.assert_same_run(workdir, undisturbed)


def test_sigterm_while_it_compiles_ends_within_seconds_and_leaves_nothing(program, tmp_path):
    workdir = tmp_path / "run"
    words = ["-m", "vit_jax.main", *program.command(workdir)]
    run = program.execute(words, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cold"))
    run.wait_until((workdir / ".lock").exists)
    time.sleep(1.5)  # it opens data, or compiles
    sent = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    stopped = run.finish(30)
    assert time.monotonic() - sent < 20  # on a busy machine; it takes a second
    assert (stopped.code, stopped.err) == (EXIT_INTERRUPTED, "")
    assert stopped.out.endswith("stopped at once; the same command resumes from the last checkpoint, if there is one\n")
    assert not workdir.exists()


def test_sigterm_before_training_ends_at_once_with_the_same_code_and_no_traceback(program, tmp_path):
    config = tmp_path / "terminated.py"
    config.write_text(
        textwrap.dedent("""
            import os, signal

            def get_config(arg):
                os.kill(os.getpid(), signal.SIGTERM)
        """)
    )
    run = program.execute(["-m", "vit_jax.main", f"--config={config}", f"--workdir={tmp_path / 'run'}"])
    stopped = run.finish()
    assert (stopped.code, stopped.err) == (EXIT_INTERRUPTED, "")
    assert "the same command" in stopped.out
    assert not (tmp_path / "run").exists()
