"""Configs: what they accept, what they make of it, and what they say of mistakes."""

import dataclasses
import json
from typing import Any, Literal

import ml_collections
import pytest

from vit_jax import config as configs
from vit_jax.resolve import Section, complete, resolve
from vit_jax.types import Duration, UserError


def section(**values):
    return ml_collections.ConfigDict(values)


def schema(
    *,
    size: tuple[int, int],
    rate: float = 0.5,
    count: int = 3,
    name: Literal["adam", "sgd"] = "adam",
    flip: bool = True,
    every: Duration = "5%",
    shots: tuple[int, ...] = (1, 5),
    label: str = "",
    injected: Any = None,
):
    """Returns its arguments."""
    return dict(locals())


def completed(**values):
    """(completed section, errors)."""
    made = section(**values)
    return made, complete(made, schema, "part", ["injected"])


# parse_arg


def test_arguments_take_the_types_of_their_defaults():
    defaults = {"variant": "B/16", "lr": 0.1, "epochs": 7, "smoke": False, "init": ""}
    arg = configs.parse_arg("variant=L/16,lr=3e-4,smoke,init=a=b", **defaults)
    assert vars(arg) == {"variant": "L/16", "lr": 0.0003, "epochs": 7, "smoke": True, "init": "a=b"}
    assert vars(configs.parse_arg(None, **defaults)) == vars(configs.parse_arg("", **defaults)) == defaults
    assert configs.parse_arg("lr=1", **defaults).lr == 1.0
    assert configs.parse_arg("smoke=false", **defaults).smoke is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("varient=B/16", r"'varient' is unknown; did you mean 'variant'\?"),
        ("epochs=two", "argument epochs=two: expected an integer, found 'two'"),
        ("epochs=1.5", "expected an integer, found '1.5'"),
        ("smoke=maybe", "expected true or false, found 'maybe'"),
        ("epochs", "argument epochs=True: expected an integer"),
    ],
)
def test_wrong_arguments_name_the_right_ones(text, message):
    with pytest.raises(UserError, match=message):
        configs.parse_arg(text, variant="B/16", epochs=7, smoke=False)


# load

CONFIG = """
from ml_collections import ConfigDict
def get_config(arg=None):
    names = "model data objective optim train evals checkpoint init".split()
    return ConfigDict({**{name: {} for name in names}, "seed": arg or 0, "model": {"sizes": [1, 2]}})
"""


def test_a_file_is_loaded_with_what_follows_the_colon(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG)
    assert configs.load(str(path)).seed == 0
    assert configs.load(f"{path}:a=1,b:c").seed == "a=1,b:c"


def test_a_missing_file_names_the_configs_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pretrain.py").write_text(CONFIG)
    with pytest.raises(UserError, match=r"configs/pretain.py does not exist; did you mean 'pretrain'\?"):
        configs.load("configs/pretain.py:variant=B/16")


def test_a_file_without_get_config_or_with_other_sections_is_an_error(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    with pytest.raises(UserError, match=r"no function get_config\(arg\)"):
        configs.load(str(path))
    path.write_text(CONFIG.replace("objective optim", "objective optimizer"))
    with pytest.raises(UserError, match=r"'optimizer'.*expected exactly .*'optim'"):
        configs.load(str(path))


# complete


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
    assert complete(plain, Plain, "a", ["directory"]) == []
    assert plain.every == 5
    assert complete(data, Data, "b") == ["config.b.split is 3; expected text"]
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


# steps


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (500, 500),
        (0, 0),
        ("500", 500),
        ("500 steps", 500),
        ("1 step", 1),
        ("2.5e3 steps", 2500),
        ("1e4", 10_000),
        ("90 epochs", 2250),
        ("1 epoch", 25),
        ("0.5 epochs", 12),  # 12.5, rounded half to even
        ("5%", 50),
        ("100%", 1000),
        ("0.1 %", 1),
        (" 7  steps ", 7),
    ],
)
def test_every_form_of_a_duration(duration, expected):
    assert configs.steps(duration, steps_per_epoch=25, total=1000) == expected


@pytest.mark.parametrize(("total", "fifth"), [(103, 21), (100, 20), (99, 20), (3, 1)])
def test_a_share_is_rounded_up_so_that_the_last_one_ends_with_the_run(total, fifth):
    assert configs.steps("20%", steps_per_epoch=25, total=total) == fifth
    assert configs.steps("100%", steps_per_epoch=25, total=total) == total


@pytest.mark.parametrize("duration", ["soon", "5 days", "-5", "steps", "", "5 % steps", "1.2.3", 1.5j, None, "1e"])
def test_what_is_no_duration_says_what_is(duration):
    with pytest.raises(UserError, match=r'optim.warmup is .*; expected steps as in 500, or "90 epochs"'):
        configs.steps(duration, steps_per_epoch=25, total=1000, path="optim.warmup")


@pytest.mark.parametrize(("duration", "known"), [("5%", {"steps_per_epoch": 25}), ("5 epochs", {"steps_per_epoch": 0})])
def test_a_unit_that_cannot_be_converted_asks_for_steps(duration, known):
    with pytest.raises(UserError, match="cannot be converted here; give it in steps"):
        configs.steps(duration, **known)


# differences, build, to_dict


def test_differences_are_listed_by_key():
    old = {"data": {"batch": 512, "size": [1, 2]}, "seed": 0, "gone": 1}
    new = {"data": {"batch": 256, "size": [1, 2]}, "seed": 0, "new": {"a": 1}}
    assert configs.differences(old, new) == [
        "data.batch: 512 -> 256",
        "gone: 1 -> '(absent)'",
        "new: '(absent)' -> {'a': 1}",
    ]
    assert configs.differences(old, old) == []


def test_a_resolved_config_is_its_own_json():
    made, _ = completed(size=(1, 2))
    as_json = configs.to_dict(made)
    assert as_json["size"] == [1, 2]
    assert configs.differences(as_json, json.loads(json.dumps(as_json))) == []


def test_build_calls_with_the_section_and_turns_durations_into_steps():
    made, _ = completed(size=(1, 2), every="10%", label="10%")
    to_steps = lambda d: configs.steps(d, steps_per_epoch=1, total=70)  # noqa: E731
    made["name"] = "sgd"
    result = configs.build(schema, made, to_steps, injected="given")
    assert (result["every"], result["label"], result["injected"]) == (7, "10%", "given")
    assert (result["size"], result["name"]) == ((1, 2), "sgd")
    assert configs.build(schema, made, injected=0)["every"] == "10%"


def test_the_name_that_chose_a_function_is_not_passed_to_it():
    def chosen(*, rate: float):
        return rate

    made = section(name="chosen", rate=0.5)
    assert complete(made, chosen, "objective") == []
    assert configs.build(chosen, made) == 0.5
