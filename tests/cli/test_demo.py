"""`vit_jax demo` without what it needs; tests/share has it in a real browser."""

import sys

from vit_jax.cli.demo import main


def test_without_gradio_the_message_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["runs/none"]) == 2
    assert "pip install 'vit_jax[demo]'" in capsys.readouterr().err
