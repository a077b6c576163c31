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
