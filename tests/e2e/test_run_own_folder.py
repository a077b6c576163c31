"""A folder of class folders, and nothing else, is enough to fine-tune on."""

import json

import numpy as np
from PIL import Image


def test_class_folders_alone_are_split_by_class_trained_on_and_described(program, tmp_path):
    rng = np.random.default_rng(0)
    for label in ("anemone", "begonia"):
        for i in range(20):
            place = tmp_path / "photos" / label / ("more" if i % 2 else "")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(
                place / f"{i:02d}.{('webp', 'gif')[i % 2]}"
            )
        (tmp_path / "photos" / label / "notes.txt").write_text("")
    photos = tmp_path / "photos"
    config = f"--config=configs/finetune.py:variant=Ti/16,smoke,dataset={photos}"
    finished = program.execute(["-m", "vit_jax.main", config, f"--workdir={tmp_path / 'run'}"]).finish()
    assert finished.code == 0, finished.err
    notes = [
        f"{photos}: 2 files of train are no images by their names: 2 .txt",
        f"{photos} is split by class: 4 of its 40 training images, a tenth of each class, are held out (train_held_out), and 36 "
        "train (train_kept)",
    ]
    printed = " ".join(finished.out.split())
    for note in notes:
        assert printed.count(f"note: {note}") == 1
    assert "train_kept: 36 examples, 2 classes: anemone 18, begonia 18" in printed
    assert "train_held_out: 4 examples, 2 classes: anemone 2, begonia 2" in printed
    assert [spec["notes"] for spec in json.loads((tmp_path / "run" / "run.json").read_text())["data"]] == [notes, notes]
