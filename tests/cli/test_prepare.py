"""`vit_jax prepare`: what it prints of each data set, which flags go together, and its exit code."""

import numpy as np
import PIL.Image
import pytest

from vit_jax.cli import prepare
from vit_jax.data.open import open_source


@pytest.fixture
def photos(tmp_path):
    """Three images of two classes, and one that is none."""
    for number, name in enumerate(("cat/0", "cat/1", "dog/0")):
        file = tmp_path / "photos" / "train" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(file)
    (tmp_path / "photos" / "train" / "dog" / "1.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_a_data_set_is_prepared_once(tmp_path, capsys):
    assert prepare.main(["digits", f"--data_dir={tmp_path}"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("digits/1.0.0 prepared: train 1,437, test 360; in ")
    assert prepare.main(["digits", f"--data-dir={tmp_path}"]) == 0
    assert capsys.readouterr().out.startswith("digits/1.0.0 was already prepared: train 1,437, test 360; in ")


def test_own_images_are_packed_and_corrupt_ones_are_listed(photos, tmp_path, capsys):
    to = tmp_path / "packed"
    assert prepare.main([str(photos), f"--to={to}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{photos} packed: train 3; train on it with dataset={to}"
    assert lines[1] == f"1 corrupt images were left out, listed in {to}/corrupt.txt:"
    assert "train/dog/1.png" in lines[2]
    assert len(open_source(str(to), "train")) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "--to=x"], "error: --to=x takes one folder or list at a time, found 2"),
        (["a", "--beam"], "error: --beam packs your own images: name the folder to write, `a --to=DIR --beam`"),
        (["no/such/folder", "--to=x"], "error: image folder no/such/folder: expected "),
    ],
)
def test_a_mistake_is_one_message_and_writes_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("error: ") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a data set, or --check"),
        (["--split-ids=export"], "--split-ids=export wants --to=FILE"),
        (["--split-ids=import"], "--split-ids=import wants --source=FILE"),
    ],
)
def test_a_flag_that_is_missing_is_named(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        prepare.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_check_has_a_line_for_each_set_with_the_command_that_is_missing(tmp_path, capsys):
    prepare.main(["digits", f"--data-dir={tmp_path}"])
    capsys.readouterr()
    assert prepare.main(["--check", "digits", "cifar10", f"--data-dir={tmp_path}"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"looked in {tmp_path}"
    assert lines[1].startswith("digits   ready ")
    assert lines[2].startswith("cifar10  missing ")
    assert "-> vit_jax prepare cifar10" in lines[3]
    assert lines[-1] == "1 of 2 are ready"
    assert prepare.main(["--check", "digits", f"--data-dir={tmp_path}"]) == 0
