"""The table of released models: its costs are counted from the models, its commands resolve, and it is complete."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from vit_jax import config as configs
from vit_jax.cards.released import COSTS, MADE, count_tokens, describe, markdown, models
from vit_jax.convert.released import BY_NAME, TABLE
from vit_jax.flops import count_flops
from vit_jax.models import build
from vit_jax.models.variants import any_variant
from vit_jax.resolve import resolve
from vit_jax.run.schema import SCHEMA
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[2]


def abstract(row):
    """The module of a released file, and the shapes of its parameters."""
    sizes = any_variant(row.variant)
    name = sizes.pop("name")
    if name == "vit":
        sizes |= {"representation_size": sizes["width"] if row.representation else 0, "scan": True}
    model = build.MODELS[name](num_classes=row.classes, **sizes)
    return model, build.abstract_params(model, (row.resolution, row.resolution), 3)


def test_every_released_file_has_a_line_whose_parameters_fill_the_file():
    assert list(COSTS) == list(BY_NAME) == [model.released.name for model in models()]
    for name, (parameters, _) in COSTS.items():
        assert 0.98 < parameters * 4 / 2**20 / BY_NAME[name].mib < 1.01, name


def test_numbers_of_the_papers_stand_in_their_lines():
    (line,) = (model for model in models("imagenet21k:B/16"))
    assert line.cells == ("imagenet21k:B/16", "394", "103,186,515", "224", "197", "35.2", "21,843", "84.53", "83.97")
    assert [model.paper for model in models("imagenet21k:H/14")] == [85.13]
    assert [model.paper for model in models("augreg")] == [None] * 10


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in TABLE if "R101" not in row.name], ids=lambda row: row.name)
def test_costs_are_those_of_the_model_traced_with_abstract_shapes(row):
    model, shapes = abstract(row)
    image = jax.ShapeDtypeStruct((1, row.resolution, row.resolution, 3), jnp.float32)
    traced = jax.make_jaxpr(lambda params, x: model.apply({"params": params}, x).logits)(shapes, image)
    assert COSTS[row.name] == (build.count_params(shapes), count_flops(traced))
    gh, gw = model.grid((row.resolution, row.resolution))
    assert count_tokens(row) == gh * gw + (any_variant(row.variant)["name"] == "vit")


def test_the_flops_of_a_vit_are_those_of_its_matrix_products_by_hand():
    n, d, mlp, patches, classes = 197, 768, 3072, 196, 1000
    layer = 2 * n * (4 * d * d + 2 * d * mlp) + 2 * 2 * n * n * d
    assert COSTS["sam:B/16"][1] == 12 * layer + 2 * patches * 16 * 16 * 3 * d + 2 * d * classes


def test_the_config_of_each_group_resolves(monkeypatch):
    monkeypatch.chdir(ROOT)
    for group in MADE:
        model = [model for model in models(f"{group}:") if model.released.name.startswith(f"{group}:")][-1]
        spec, *overrides = model.config.split(" --config.")
        if spec:
            config = resolve(configs.load(spec), SCHEMA, [tuple(text.split("=")) for text in overrides])
            assert config.data.resolution == (model.released.resolution,) * 2, model.released.name
        else:
            assert model.remark


def test_a_name_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'augreg:B/16'"):
        models("augreg:B/61")


def test_few_models_are_shown_with_their_commands_and_all_without():
    assert "configs/augreg.py:variant=S/32,dataset=imagenet21k" in describe(models("augreg:S/32"))
    assert "vit_jax train" not in describe(models())
    assert markdown().count("\n| `") == len(TABLE)
