"""Resolving a config: defaults are filled in, overrides applied, and every mistake reported with the nearest right thing."""

import dataclasses

import ml_collections
import pytest
from section_schema import completed, schema, section

from vit_jax.resolve import Section, fill, resolve
from vit_jax.types import Duration, UserError

# fill


def test_defaults_are_written_in_and_values_take_their_types():
    made, errors = completed(size=[224, 192], rate=1)
    assert errors == []
    assert made.to_dict() == {
        "size": (224, 192),
        "rate": 1.0,
        "count": 3,
        "name": "adam",
        "flip": True,
        "every": "5%",
        "shots": (1, 5),
        "label": "",
    }
    assert type(made.rate) is float


def test_one_number_stands_for_a_pair():
    made, errors = completed(size=224, shots=5)
    assert (errors, made["size"], made.shots) == ([], (224, 224), (5,))


def test_a_misspelt_key_names_the_nearest():
    _, errors = completed(size=(1, 2), cuont=4)
    assert len(errors) == 1
    assert errors[0].startswith("config.part.cuont is read by nothing; did you mean 'count'? (known: count, every,")


def test_a_key_the_program_supplies_may_not_be_set():
    _, errors = completed(size=(1, 2), injected=1)
    assert [e.partition(";")[0] for e in errors] == ["config.part.injected is read by nothing"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rate", "fast", "a number"),
        ("rate", True, "a number"),
        ("count", 1.0, "an integer"),
        ("count", True, "an integer"),
        ("flip", 1, "true or false"),
        ("label", 7, "text"),
        ("name", "adamw", "one of 'adam', 'sgd'"),
        ("size", (1, 2, 3), "two integers, 4,6"),
        ("size", (1, 2.0), "two integers, 4,6"),
        ("size", 22.4, "two integers, 4,6"),
        ("shots", (1, "5"), "integers with commas, 1,5,10"),
        ("every", 0.5, 'a duration: steps as in 500, or "90 epochs", "5%"'),
        ("every", True, 'a duration: steps as in 500, or "90 epochs", "5%"'),
    ],
)
def test_a_value_of_another_type_says_what_was_expected(key, value, expected):
    _, errors = completed(**{"size": (1, 2), key: value})
    assert errors == [f"config.part.{key} is {value!r}; expected {expected}"]


def test_a_missing_key_is_an_error():
    _, errors = completed()
    assert errors == ["config.part.size is missing; expected two integers, 4,6"]


def test_all_mistakes_are_listed():
    _, errors = completed(rate="a", cuont=1, name="b")
    assert sorted(e.split()[0] for e in errors) == [f"config.part.{k}" for k in ("cuont", "name", "rate", "size")]


def test_a_class_and_a_dataclass_are_schemas_too():
    class Plain:
        def __init__(self, directory, *, every: Duration = 5):
            pass

    @dataclasses.dataclass(kw_only=True)
    class Data:
        split: str
        hidden: int = dataclasses.field(default=0, init=False)

    plain, data = section(), section(split=3)
    assert fill(plain, Plain, "a", ["directory"]) == []
    assert plain.every == 5
    assert fill(data, Data, "b") == ["config.b.split is 3; expected text"]
    assert "hidden" not in data


# override


def overridden(*assignments, **values):
    made, errors = completed(size=(224, 192), **values)
    assert errors == []
    config = ml_collections.ConfigDict({"part": made, "init": {"path": "", "head": "zeros"}, "seed": 0})
    described = {"part": Section(schema, ("injected",))}
    return resolve(config, described, assignments)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2.0),
        ("count", "12", 12),
        ("flip", "False", False),
        ("flip", "1", True),
        ("label", "12", "12"),
        ("size", "(96, 64)", (96, 64)),
        ("size", "[96,64]", (96, 64)),
        ("size", "96,64", (96, 64)),
        ("size", "96", (96, 96)),
        ("shots", "1,5,10", (1, 5, 10)),
        ("shots", "(10,)", (10,)),
        ("every", "90 epochs", "90 epochs"),
        ("every", "500", "500"),
        ("name", "sgd", "sgd"),
    ],
)
def test_text_is_read_as_the_type_of_what_it_replaces(key, text, value):
    config = overridden((f"part.{key}", text))
    assert config.part[key] == value
    assert type(config.part[key]) is type(value)


def test_a_number_of_steps_may_become_epochs():
    assert overridden(("part.every", "2 epochs"), every=500).part.every == "2 epochs"


def test_a_tuple_may_change_its_length_and_one_value_may_stand_for_it():
    assert overridden(("part.shots", "1,2,3,4"), shots=(1, 5, 10)).part.shots == (1, 2, 3, 4)
    assert overridden(("part.shots", "5"), shots=(1, 5, 10)).part.shots == (5,)
    assert overridden(("part.shots", "1,5"), shots=(10,)).part.shots == (1, 5)


def test_the_later_assignment_wins():
    assert overridden(("part.count", "1"), ("part.count", "2")).part.count == 2


def test_text_for_init_is_its_path():
    config = overridden(("init", "ViT-B_16.npz"))
    assert (config.init.path, config.init.head) == ("ViT-B_16.npz", "zeros")


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("part.cuont", "1", r"config.part.cuont does not exist; did you mean 'count'\?"),
        ("prat.count", "1", r"config.prat does not exist; did you mean 'part'\?"),
        ("part.count.x", "1", "config.part.count.x does not exist; its parent is not a section"),
        ("part.count.x.y", "1", "config.part.count.x does not exist; its parent is not a section"),
        ("part", "1", "config.part is a section; set one of its keys: "),
        ("part.rate", "fast", "config.part.rate=fast: expected a number, found 'fast'"),
        ("part.flip", "maybe", "expected true or false"),
        ("part.size", "a,b", "expected two integers, 4,6"),
    ],
)
def test_a_wrong_override_is_an_error(key, text, message):
    with pytest.raises(UserError, match=message):
        overridden((key, text))


def test_all_wrong_overrides_are_in_one_message():
    with pytest.raises(UserError) as caught:
        overridden(("part.cuont", "1"), ("part.count", "3"), ("part.rate", "fast"))
    assert len(str(caught.value).splitlines()) == 2


def test_text_for_a_number_is_judged_by_the_signature():
    with pytest.raises(UserError) as caught:
        overridden(("part.count", "many"), ("part.size", "1,2,3"))
    assert sorted(str(caught.value).splitlines()) == [
        "config.part.count=many: expected an integer, found 'many'",
        "config.part.size=1,2,3: expected two integers, 4,6, found '1,2,3'",
    ]


# resolve


def mean(*, weights: tuple[float, ...] = (1.0,), trim: int = 0):
    """One loss."""


def largest(*, least: int | None = None):
    """Another loss."""


SCHEMA = {
    "objective": Section({"mean": mean, "largest": largest}, left_open={"least": ("auto", 0)}),
    "evals": Section({"mean": mean, "largest": largest}, many=True),
}


def resolved(*overrides, **sections):
    draft = {"objective": {"name": "mean", "trim": 2}, "evals": {}, "seed": 0} | sections
    return resolve(ml_collections.ConfigDict(draft), SCHEMA, overrides)


def test_an_override_is_read_by_the_function_that_the_config_then_chooses():
    # In any order; and what belonged to the other function goes with it.
    for overrides in (
        [("objective.name", "largest"), ("objective.least", "3")],
        [
            ("objective.least", "3"),
            ("objective.name", "largest"),
        ],
    ):
        assert resolved(*overrides).objective.to_dict() == {"name": "largest", "least": 3}
    assert resolved(("objective.weights", "1,2")).objective.weights == (1.0, 2.0)  # a key that the file did not write
    found = resolved(("evals.a.weights", "3"), evals={"a": {"name": "mean"}, "b": {"name": "largest"}})
    assert (found.evals.a.weights, found.evals.b.least) == ((3.0,), None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([("objective.name", "larges")], r"config.objective.name is 'larges'; did you mean 'largest'\?"),
        ([("objective.least", "3")], r"config.objective.least does not exist; "),
        ([("trim", "3")], r"config.trim does not exist; did you mean config.objective.trim\?"),
        ([("seed", "-1")], r"config.seed is -1; expected an integer, 0 or more"),
        ([("evals.c.trim", "1")], r"config.evals.c does not exist; "),
    ],
)
def test_a_mistake_in_what_is_chosen_is_one_message(overrides, message):
    with pytest.raises(UserError, match=message):
        resolved(*overrides)


@pytest.mark.parametrize("spelt", [None, "auto", 0])
def test_a_key_that_is_left_open_is_none_however_older_files_spell_it(spelt):
    assert resolved(objective={"name": "largest", "least": spelt}).objective.least is None
    assert resolved(objective={"name": "largest"}).objective.least is None
    for text in ("auto", "None"):
        found = resolved(("objective.least", text), objective={"name": "largest", "least": 7})
        assert found.objective.least is None


def test_a_resolved_config_cannot_be_changed_and_the_draft_is_not():
    draft = ml_collections.ConfigDict({"objective": {"name": "mean"}, "evals": {"a": {"name": "mean"}}, "seed": 3})
    before = draft.to_dict()
    found = resolve(draft, SCHEMA, [("evals.a.trim", "4"), ("seed", "5")])
    assert draft.to_dict() == before
    assert (found.evals.a.trim, found.seed) == (4, 5)
    with pytest.raises(AttributeError):
        found.seed = 6
    assert resolve(found, SCHEMA) == found
