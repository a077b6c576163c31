"""Reading a split for an evaluator: every example once, or an error."""

import pytest

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.evals import base
from vit_jax.types import UserError


def test_a_reader_that_ends_early_is_an_error_for_every_evaluator(folder, monkeypatch):
    whole = base.eval_batches

    class Short:
        def __init__(self, *args, **options):
            self._loader = whole(*args, **options)
            self.corrupt = self._loader.corrupt

        def __iter__(self):
            return iter(list(self._loader)[:1])

    monkeypatch.setattr(base, "eval_batches", Short)
    source = open_source(str(folder[0]), "test")
    options = {"recipe": "eval", "resolution": (8, 8), "batch_size": 8, "max_corrupt": 0}
    with pytest.raises(UserError, match="8 examples read and 0 corrupt, but the split has 13"):
        list(base.read_split(source, mesh=partition.make_mesh(), **options))
