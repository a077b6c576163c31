"""Configs: what they accept, what they make of it, and what they say of mistakes."""

import json

import pytest
from section_schema import completed, schema, section

from vit_jax import config as configs
from vit_jax.resolve import fill
from vit_jax.types import UserError

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
    assert fill(made, chosen, "objective") == []
    assert configs.build(chosen, made) == 0.5
