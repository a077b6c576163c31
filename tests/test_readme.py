"""The commands of README.md and docs/ are executed: every one must resolve, and those a CPU can run are run."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_jax import config as configs
from vit_jax.cli.main import VERBS
from vit_jax.evals import stored
from vit_jax.resolve import resolve
from vit_jax.run.schema import SCHEMA
from vit_jax.sweeps.grid import load_grid

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
WEIGHTS = (ROOT / "docs" / "weights.md").read_text()
DOCUMENTS = "\n".join([README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))])


def commands(start: str) -> list[list[str]]:
    """The command lines of the documents' code blocks that begin with `start`, continuation lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", DOCUMENTS, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith(start)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of JPEGs that a model can tell apart: dark and bright noise, 24 to train on and 8 to test."""
    root, rng = tmp_path_factory.mktemp("own") / "images", np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label, low in (("bright", 150), ("dark", 0)):
            place = root / split / label
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(low, low + 100, (40 + i, 60, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.jpg")
    return root


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # one device, as a user has
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


def python_blocks(text: str) -> list[str]:
    """The blocks of Python of a document, in order."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_every_run_in_the_documents_resolves(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = [command for command in commands("vit_jax train") if "toy_config" not in command[2]]  # see test_extend
    assert len(found) >= 10
    for command in found:
        flags = dict(item.removeprefix("--").split("=", 1) for item in command[2:] if "=" in item)
        config = configs.load(flags["config"].replace("FOLDER", str(folder)))
        overrides = [(k.removeprefix("config."), v) for k, v in flags.items() if k.startswith("config.")]
        config = resolve(config, SCHEMA, overrides)
        for key, value in overrides:
            section, _, name = key.partition(".")
            if section == "init":
                assert config.init[name or "path"] == value
                continue
            found_value = config[section][name]
            words = ",".join(map(str, found_value)) if isinstance(found_value, tuple) else str(found_value)
            assert words in (value, f"{value},{value}")


def test_every_config_in_the_table_resolves():
    found = re.findall(r"^\| `(configs/[^`]+)`", README, re.MULTILINE)
    assert len(found) >= 10
    for spec in found:
        if "get_sweep" in (ROOT / spec.partition(":")[0]).read_text() and "PATH" in spec:
            assert load_grid(str(ROOT / spec), []).num_runs > 0
        else:
            resolve(configs.load(str(ROOT / spec)), SCHEMA)


def test_every_sweep_in_the_documents_has_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands("vit_jax sweep")
    assert len(found) >= 5
    for command in found:
        flags = dict(item.removeprefix("--").split("=", 1) for item in command[2:] if "=" in item)
        assert load_grid(flags["config"], []).num_runs > 0


def test_every_verb_in_the_documents_takes_the_flags_it_is_shown_with():
    found = commands("vit_jax ")
    assert {command[1] for command in found} >= set(VERBS) - {"quickstart", "completion"}
    for command in found:
        verb = importlib.import_module(f"vit_jax.cli.{command[1]}")
        words = [word for word in command[2:] if not word.startswith("--config.")]
        verb.make_parser().parse_args(words)


@pytest.mark.slow
def test_predict_and_evaluate_from_python_as_the_readme_says(tmp_path, monkeypatch):
    """In a folder with a checkpoint of seven classes named runs/mine, images of seven classes, and a photo."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/mine").symlink_to(ROOT / "tests" / "golden" / "timm_token")
    rng = np.random.default_rng(0)
    parts = [f"FOLDER/{part}/c{label}/{i}.jpg" for part in ("train", "test") for label in range(7) for i in range(2)]
    for file in ["photo.jpg", *parts]:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(file)
    predict, evaluate = python_blocks(README)
    names: dict = {}
    exec(predict, names)
    assert names["probabilities"].shape == (1, 7) == (1, len(names["predictor"].classes))
    np.testing.assert_allclose(names["probabilities"].sum(), 1, rtol=1e-5)
    used: dict = {}
    exec(python_blocks((ROOT / "docs" / "use.md").read_text())[0].replace("(32, 32)", "(16, 16)"), used)
    np.testing.assert_allclose(used["probabilities"], np.repeat(names["probabilities"], 2, axis=0), rtol=1e-5)
    exec(evaluate, names)
    assert names["scores"]["num_examples"] == 14
    assert names["scores"]["top1"] * 14 == pytest.approx(round(names["scores"]["top1"] * 14))


@pytest.mark.slow
def test_the_model_from_python_is_as_the_weights_page_says(tmp_path):
    (block,) = python_blocks(WEIGHTS)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "photo.jpg")
    block = block.replace("ViT-B_16.npz", str(ROOT / "tests" / "golden" / "timm_token"))
    names: dict = {}
    exec(block.replace("photo.jpg", str(tmp_path / "photo.jpg")).replace("(224, 224)", "(16, 16)"), names)
    assert names["probabilities"].shape == (1, 7)
    np.testing.assert_allclose(names["probabilities"].sum(), 1, rtol=1e-5)
    outputs = names["outputs"]
    assert [x.shape for x in outputs.attention] == [(1, 3, 17, 17)] * 2
    assert [x.shape for x in (outputs.pre_logits, outputs.pooled, outputs.tokens, *outputs.layers)] == [
        *((1, 24), (1, 24), (1, 17, 24)),
        *((1, 17, 24), (1, 17, 24)),
    ]


@pytest.mark.slow
def test_a_folder_of_jpegs_is_fine_tuned_from_the_command_line_alone(folder, tmp_path):
    done = run_python(
        *("-m", "vit_jax.main"),
        f"--config=configs/finetune.py:variant=Ti/16,dataset={folder}",
        f"--workdir={tmp_path}/run",
        "--config.data.resolution=32",
        "--config.data.batch_size=8",
        "--config.train.duration=12",
        "--config.optim.lr=0.03",
        "--config.model.depth=2",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "run.json").read_text())
    assert result["data"][0]["class_names"] == ["bright", "dark"]
    assert [spec["num_examples"] for spec in result["data"]] == [24, 8]
    assert result["scores"]["eval/test/num_examples"] == 8
    assert result["scores"]["eval/test/top1"] == 1.0  # dark and bright are told apart by their mean
    assert (tmp_path / "run" / "curves.png").stat().st_size > 5_000


SMOKE = [
    "pretrain.py:variant=B/16,dataset=imagenet21k,smoke",
    "finetune.py:variant=R50+B/16,dataset=cifar10,smoke",
    "bit.py:variant=R50x1,dataset=imagenet21k,optimizer=sgd,smoke",
    "pretrain.py:variant=Mixer-B/16,dataset=imagenet21k,smoke",
    "ablation_posemb.py:positions=relative,smoke",
    "ablation_axial.py:variant=B/32,smoke",
    "quickstart.py:finetune,smoke",
]
RUN_EACH = """
import sys
from vit_jax.main import main
for number, config in enumerate(sys.argv[2:]):
    print(number, "ended with", main([f"--config=configs/{config}", f"--workdir={sys.argv[1]}/{number}"]))
"""


@pytest.fixture(scope="module")
def smoked(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A folder with a workdir for each of SMOKE, by its number, and the one process that trained them: a start costs seconds."""
    folder = tmp_path_factory.mktemp("smoked")
    return folder, run_python("-c", RUN_EACH, str(folder), *SMOKE)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SMOKE)), ids=SMOKE)
def test_smoke_variants_run_to_their_end(smoked, number):
    folder, done = smoked
    assert f"{number} ended with 0\n" in done.stdout, done.stderr
    scores = json.loads((folder / str(number) / "run.json").read_text())["scores"]
    assert {v for k, v in scores.items() if k.endswith("num_examples")} == {
        1079 if SMOKE[number].startswith("quickstart") else 360
    }


@pytest.mark.slow
def test_features_are_read_again_as_the_use_page_says(tmp_path, monkeypatch, capsys):
    """From folders of 12 features of three classes, the second image nearly the first."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, format in (("photos", "npz"), ("train", "safetensors"), ("test", "npz")):
        place, labels = tmp_path / "features" / name, np.arange(12, dtype=np.int32) % 3
        place.mkdir(parents=True)
        features = rng.standard_normal((12, 4)).astype(np.float32)
        features[1] = features[0] * 2
        facts = {"num_examples": 12, "shard_size": 12, "format": format, "classes": ["a", "b", "c"]}
        (place / stored.DESCRIPTION).write_text(json.dumps(facts))
        arrays = {"features": features, "labels": labels, "index": np.arange(12)}
        stored.write_shard(stored.shard_path(place, facts, 0), arrays, [f"{i}.jpg" for i in range(12)])
    _, search, probes = python_blocks((ROOT / "docs" / "use.md").read_text())
    names: dict = {}
    exec(search, names)
    assert sorted(names["ids"][names["nearest"]][:2]) == ["0.jpg", "1.jpg"]
    names["shards"].clear()
    exec(probes, {})
    assert "'num_examples': 12" in capsys.readouterr().out
