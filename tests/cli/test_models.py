"""`vit_jax models`: a table, lines of JSON, and the page of the documents."""

import json
from pathlib import Path

from vit_jax.cli.models import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_verb_prints_a_table_json_and_the_page(capsys):
    assert main(["sam"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:3]] == ["name", "sam:B/16", "sam:B/32"]
    assert main(["--json", "augreg:Ti/16"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["name"], line["parameters"], line["top1"]) == ("augreg:Ti/16", 9_740_115, 78.22)
    assert main(["--markdown"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "models.md").read_text()
    assert main(["none such"]) == 2
    assert "no released model's name contains 'none such'" in capsys.readouterr().err
