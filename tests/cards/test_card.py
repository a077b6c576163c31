"""The text of a card: its header parses as YAML, strangers' names are text, and nothing unknown is claimed."""

import json
import re

import yaml
from markdown_it import MarkdownIt

from vit_jax.cards.card import Facts, Score, Usage, escape, render, short_name

HOSTILE = "</details><img src=x onerror=alert(1)> [a](javascript:1) `b` | c\n---\n# d \x1b[0m \u202e"


TAGS = {
    *("h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"),
    *("strong", "pre", "code", "details", "summary"),
}


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_header_holds_data_metrics_licence_and_tags_as_the_hub_reads_them():
    facts = Facts(
        "mine",
        licence="mit",
        datasets=["/home/me/photos"],
        scores=[Score("/home/me/photos", "test", "top1", 0.25)],
        tags=["vit"],
    )
    assert header_of(render(facts)) == {
        "license": "mit",
        "library_name": "vit_jax",
        "pipeline_tag": "image-classification",
        "tags": ["vision", "vit_jax", "vit"],
        "datasets": ["photos"],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": "mine",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": "photos", "type": "photos", "split": "test"},
                        "metrics": [{"type": "accuracy", "value": 0.25, "name": "top1, raw weights"}],
                    }
                ],
            }
        ],
    }


def test_hostile_names_are_text_in_the_header_and_in_the_page():
    facts = Facts(
        HOSTILE,
        model=HOSTILE,
        classes=[HOSTILE] * 3,
        datasets=[HOSTILE],
        scores=[Score(HOSTILE, HOSTILE, HOSTILE, 0.5)],
        training={HOSTILE: HOSTILE},
        config={HOSTILE: HOSTILE, "fence": "\n```\n<b>"},
        usage=[Usage("timm", why_not=HOSTILE)],
    )
    text = render(facts)
    header = header_of(text)
    assert "onerror" in header["model-index"][0]["name"]
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text.split("\n---\n", 1)[1])
    assert set(re.findall(r"<(\w+)", page)) <= TAGS
    assert page.count("<details>") == page.count("</details>") == 1
    assert not re.search(r"href=|[\x1b\u202e]", page)
    assert page.count("alert(1)") >= 8


def test_only_what_is_known_is_said():
    text = render(Facts("mine"))
    assert "| licence | not stated" in text
    assert not re.search("Results|How|config|Classes|parameters|git commit", text)
    assert "git commit | abc, with uncommitted changes" in render(Facts("mine", commit="abc", modified=True))


def test_the_config_is_json_that_reads_back():
    config = {"model": {"width": 96}, "seed": 0}
    assert json.loads(re.search(r"```json\n(.*?)```", render(Facts("x", config=config)), re.DOTALL)[1]) == config


def test_a_hundred_classes_are_named_and_the_rest_counted():
    text = render(Facts("x", classes=[f"c{n}" for n in range(105)]))
    assert text.rstrip().endswith("c98, c99, and 5 more")


def test_a_name_says_nothing_of_the_folders_of_a_machine():
    names = {
        "/home/me/photos": "photos",
        "~/photos": "photos",
        "gs://bucket/run": "run",
        "vtab/dtd": "vtab/dtd",
        "cifar10": "cifar10",
    }
    assert {name: short_name(name) for name in names} == names


def test_escaped_text_shows_the_same_characters():
    for text in ("a*b_c", "<b>&amp;</b>", "1. x [y](z) `w` | v", "train[50%:]+test", "# x", "~~a~~"):
        (inline,) = [
            t for t in MarkdownIt("gfm-like", {"linkify": False}).parse(f"x {escape(text)}") if t.type == "inline"
        ]
        assert [child.type for child in inline.children if child.type not in ("text", "text_special")] == []
        assert inline.children[0].content == f"x {text}"
