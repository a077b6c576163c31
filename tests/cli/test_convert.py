"""`vit_jax convert`: what it says of a checkpoint, what it writes, and what it leaves alone."""

from pathlib import Path

import numpy as np
import pytest

from vit_jax import load_model
from vit_jax.cli.convert import main

MODEL = Path(__file__).resolve().parents[1] / "golden" / "timm_token"


@pytest.mark.slow
def test_a_checkpoint_is_described_and_written_and_is_the_same_model(tmp_path, capsys):
    to = tmp_path / "released.npz"
    assert main([f"--from={MODEL}", f"--to={to}", "--format=npz"]) == 0  # --from: of older versions
    first, *_, last = capsys.readouterr().out.splitlines()
    module, params = load_model(to)
    count = sum(np.size(leaf) for block in np.load(to).values() for leaf in [block])
    assert first == f"{MODEL} (timm), {count:,} parameters"
    assert last == "the npz has no place for settings: keep the .json beside it"
    image = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    logits = [m.apply({"params": p}, image).logits for m, p in (load_model(MODEL), (module, params))]
    np.testing.assert_allclose(*logits, atol=1e-6)


def test_every_tensor_is_listed_on_request_and_every_file_that_was_written(tmp_path, capsys):
    to = tmp_path / "hf"
    assert main([f"--model={MODEL}", f"--to={to}", "--format=hf", "--report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "head/kernel" in line]
    written = {Path(line.removeprefix("wrote ")) for line in lines if line.startswith("wrote ")}
    assert written == set(to.iterdir())


def test_what_exists_is_not_written_over_and_a_mistake_is_one_message(tmp_path, capsys):
    (tmp_path / "there.npz").write_bytes(b"precious")
    for words in (
        [f"--model={MODEL}", f"--to={tmp_path}/there.npz"],
        ["--model=no/such.npz", f"--to={tmp_path}/new.npz"],
    ):
        assert main([*words, "--format=npz"]) == 2
        assert capsys.readouterr().err.count("error: ") == 1
    assert (tmp_path / "there.npz").read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [tmp_path / "there.npz"]
