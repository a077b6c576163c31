"""The shared part of all verbs: how a command line is read."""

import pytest

from vit_jax.cli.flags import Parser, parse_command_line
from vit_jax.types import UserError


def parser():
    found = Parser("test", "vit_jax test", None, old={"--from": "--model"})
    found.add_argument("--model")
    found.add_argument("--data-dir")
    found.add_argument("--num-processes", type=int)
    return found


def test_flags_with_underscores_and_those_of_older_versions_are_accepted():
    words = ["--from=a_b", "--data_dir", "c_d", "--num_processes=2", "--config.data.data_dir=e_f"]
    flags, overrides = parse_command_line(words, parser())
    assert (flags.model, flags.data_dir, flags.num_processes) == ("a_b", "c_d", 2)
    assert overrides == [("data.data_dir", "e_f")]
    with pytest.raises(UserError, match=r"argument '--modle=x' is unknown.*did you mean '--model'"):
        parse_command_line(["--modle=x"], parser())


def run_parser():
    found = parser()
    found.add_argument("--workdir", required=True)
    found.add_argument("--config", required=True)
    return found


def test_a_misspelt_flag_is_reported_before_the_required_one_that_it_should_have_been():
    with pytest.raises(UserError, match=r"argument '--wrokdir=x' is unknown; .*did you mean '--workdir'"):
        parse_command_line(["--wrokdir=x", "--config=c"], run_parser())
    with pytest.raises(UserError, match=r"^--workdir and --config must be given; usage: vit_jax test "):
        parse_command_line([], run_parser())
    words = ["--config.a.b-c=1=2", "--workdir=w", "--config=c", "--config.d="]
    flags, overrides = parse_command_line(words, run_parser())
    assert (flags.workdir, flags.config) == ("w", "c")
    assert overrides == [("a.b-c", "1=2"), ("d", "")]


def test_an_override_without_a_value_says_how_to_write_one():
    with pytest.raises(
        UserError, match=r"'--config\.optim\.lr' has no value; write --config\.optim\.lr=VALUE, in one word"
    ):
        parse_command_line(["--config.optim.lr", "0.1"], parser())


def test_no_flag_is_guessed_from_its_beginning():
    with pytest.raises(UserError, match="argument '--mod=x' is unknown"):
        parse_command_line(["--mod=x"], parser())


def test_help_begins_with_the_examples_and_works_without_a_docstring(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    assert capsys.readouterr().out.startswith("  vit_jax test\n\nusage: vit_jax test ")
