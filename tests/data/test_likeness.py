"""Processes of one run compare what they read."""

import numpy as np
from squares import Squares

from vit_jax.data.likeness import likeness
from vit_jax.data.open import open_source


def test_processes_tell_sources_apart_by_fingerprint_and_content():
    class Printed(Squares):
        def fingerprint(self):
            return b"other names"

    assert likeness(Squares()) == likeness(Squares()) != likeness(Printed())
    first, second = Squares().subset(np.arange(6)), Squares().subset(np.arange(6)[::-1])
    assert first.fingerprint() != second.fingerprint()


def test_the_likeness_of_data_depends_on_labels_names_and_pixels(tmp_path):
    def make(place, label="dark", pixel=0):
        for number in range(40):
            folder = tmp_path / place / "train" / (label if number == 7 else ("dark", "light")[number % 2])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(bytes([pixel if number in (0, 39) else number]))
        return likeness(open_source(str(tmp_path / place), "train"))

    same = make("a")
    assert make("b") == same  # where it lies does not matter
    assert make("c", label="light") != same
    assert make("d", pixel=1) != same
    assert likeness(open_source(str(tmp_path / "a"), "train[:50%]")) != same
