"""Processes of one run compare what they read."""

import numpy as np
from squares import Squares

from vit_jax.data.likeness import likeness


def test_processes_tell_sources_apart_by_fingerprint_and_content():
    class Printed(Squares):
        def fingerprint(self):
            return b"other names"

    assert likeness(Squares()) == likeness(Squares()) != likeness(Printed())
    first, second = Squares().subset(np.arange(6)), Squares().subset(np.arange(6)[::-1])
    assert first.fingerprint() != second.fingerprint()
