"""`vit_jax evaluate`: what it asks for, and how figures, intervals and packs are printed."""

import json

import pytest

from vit_jax.cli import evaluate as verb

SCORES = {"top1": 0.77912, "top1_low": 0.77553, "top1_high": 0.78274, "top5": 0.9, "nll": 0.91236, "ece": 0.0312}


@pytest.fixture
def asked(monkeypatch):
    """What the room is asked for, and the result that it gives, which a test may change."""
    import vit_jax.evaluate as room

    call = {"result": {"model": "m", "dataset": "d", "split": "test", **SCORES, "num_examples": 50_000}}

    def evaluate(model, **options):
        call.update(model=model, options=options)
        return call["result"]

    monkeypatch.setattr(room, "evaluate", evaluate)
    monkeypatch.setattr(verb, "set_up_process", lambda: None)
    return call


def test_a_figure_is_in_percent_with_its_interval_and_a_likelihood_in_nats():
    assert verb.describe("top1", SCORES) == "77.91% (95% interval 77.55 to 78.27)"
    assert verb.describe("top1", SCORES, interval="") == "77.91% (77.55 to 78.27)"
    assert verb.describe("ece", SCORES) == "3.12%"
    assert verb.describe("nll", SCORES | {"nll_low": 0.9, "nll_high": 1.0}) == "0.912 (95% interval 0.900 to 1.000)"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--dataset=d"],
        ["--split=test"],
        ["--dataset=d", "--split=test", "--pack=imagenet"],
        ["--pack=imagenet", "--split=x"],
    ],
)
def test_a_data_set_with_its_split_or_a_pack_is_asked_for(asked, capsys, words):
    with pytest.raises(SystemExit) as ended:
        verb.main(["--model=m", *words])
    assert ended.value.code == 2
    assert "give either --dataset and --split, or --pack" in capsys.readouterr().err
    assert "model" not in asked


def test_flags_are_the_rooms_arguments_and_set_may_change_any(asked, capsys):
    words = ["--model=m", "--dataset=d", "--split=test", "--data_dir=here", "--batch=8", "--resolution=384", "--set"]
    assert verb.main([*words, "channels=1", "--set=dtype=bfloat16", "--weights=average", "--exif=ignore"]) == 0
    options = asked["options"]
    assert asked["model"] == "m"
    assert (options["dataset"], options["split"], options["data_dir"]) == ("d", "test", "here")
    assert (options["batch_size"], options["resolution"], options["weights"], options["exif"]) == (
        8,
        384,
        "average",
        "ignore",
    )
    assert (options["channels"], options["dtype"], options["bootstrap"], options["recipe"]) == (
        1,
        "bfloat16",
        1000,
        "eval",
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == [
        "top1          77.91% (95% interval 77.55 to 78.27)",
        "top5          90.00%",
        "nll           0.912",
        "ece           3.12%",
        "num_examples  50000",
    ]


def test_a_pack_is_a_table_in_its_order_and_a_missing_set_is_the_exit_code(asked, capsys):
    sets = {"v2": SCORES | {"num_examples": 10_000}, "val": SCORES | {"num_examples": 50_000}}
    asked["result"] = {
        "model": "m",
        "resolution": [384, 224],
        "pack": "imagenet",
        "sets": sets,
        "missing": {"real": "?"},
    }
    assert verb.main(["--model=m", "--pack=imagenet"]) == 2
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "m at 384x224; 95% intervals in brackets"
    assert rows[1].split("  ")[0] == "ImageNet"
    assert "77.91% (77.55 to 78.27)  90.00%  0.912  3.12%  50,000" in rows[1]
    assert rows[2].split("  ")[0] == "ImageNet ReaL"
    assert rows[2].split()[2:] == ["-", "-", "-", "-", "missing"]
    assert rows[3].endswith("10,000")
    asked["result"]["missing"] = {}
    assert verb.main(["--model=m", "--pack=imagenet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == asked["result"]
