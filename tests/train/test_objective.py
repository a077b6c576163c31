"""An objective's own rules: which outputs it needs, how examples weigh by default, and what is drawn for them."""

import jax.numpy as jnp
import pytest

from vit_jax.partition import make_mesh
from vit_jax.train.masking import Drawn
from vit_jax.train.objective import Objective
from vit_jax.types import Batch, Outputs, UserError

BATCH = Batch(image=jnp.zeros((2, 4, 4, 3), jnp.uint8), target=jnp.zeros(2, jnp.int32), mask=jnp.asarray([1.0, 0.0]))


def outputs(**extra):
    return Outputs(None, None, None, jnp.zeros((2, 3)), extra=extra)


def test_padding_weighs_nothing_and_a_batch_is_prepared_as_it_is():
    objective = Objective(lambda outputs, batch: {})
    assert objective.weight(BATCH).tolist() == [1.0, 0.0]
    assert objective.prepare(BATCH) is BATCH


def test_a_model_without_an_output_that_the_loss_reads_is_refused():
    objective = Objective(lambda outputs, batch: {}, reads=frozenset({"pixels"}))
    objective.check_reads(outputs(pixels=jnp.zeros(2)), objective="simmim", model="masked")
    with pytest.raises(UserError, match="pixels"):
        objective.check_reads(outputs(), objective="simmim", model="vit")


def test_what_is_drawn_goes_into_the_model_and_beside_its_outputs():
    seen = {}

    def forward(params, image, **options):
        seen.update(options)
        return outputs(pixels=1)

    drawn = Drawn({"hidden": "mask"}, {"hidden": "mask"})
    result = Objective(lambda outputs, batch: {}).run(forward, {}, BATCH.image, drawn, train=True)
    assert seen == {"hidden": "mask", "train": True}
    assert result.extra == {"pixels": 1, "hidden": "mask"}


def test_a_loss_with_values_for_a_mesh_uses_those_there():
    mesh = make_mesh(1)
    objective = Objective(lambda outputs, batch: {}, over=lambda mesh: lambda outputs, batch: {"loss": mesh.size})
    assert objective.on_mesh(mesh).values(None, None) == {"loss": mesh.size}
    assert objective.on_mesh(mesh).over is None
