"""The files of docs/extend.md, as they stand there: a model, a loss, an evaluator, a data format and an augmentation."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vit_jax import config as configs
from vit_jax.convert.load import load, load_model, resolution_of
from vit_jax.data.image.recipes import RECIPES, make_transform
from vit_jax.data.open import FORMATS
from vit_jax.evals.build import EVALUATORS
from vit_jax.models.build import MODELS
from vit_jax.predict import classify, read_images
from vit_jax.run import run
from vit_jax.run.job import build_job
from vit_jax.train.objectives import OBJECTIVES
from vit_jax.types import UserError

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "extend.md"
TABLES = (MODELS, OBJECTIVES, EVALUATORS, FORMATS, RECIPES)
CLASSES = ("dark", "middle", "light")


def draw(n, seed):
    """Images whose brightness is their class, and some noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    images = 40 + 70 * labels[:, None, None, None] + rng.integers(0, 40, (n, 8, 8, 3))
    return images.astype(np.uint8), labels


@pytest.fixture
def folder(tmp_path):
    """The files of the document in a folder of their own, with data; tables and modules are as before afterwards."""
    files = dict(
        re.findall(r"^## [^\n]*`(\w+\.py)`$.*?^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    )
    assert sorted(files) == [f"toy_{part}.py" for part in ("config", "evaluator", "format", "loss", "model", "recipe")]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    arrays = {"classes": np.array(CLASSES)}
    for seed, (split, n) in enumerate({"train": 40, "test": 21}.items()):  # 21: the last batch of 16 is padded
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = draw(n, seed)
    np.savez(tmp_path / "images.npz", **arrays)
    path, tables = list(sys.path), [dict(table) for table in TABLES]
    yield tmp_path
    sys.path[:] = path
    for name in files:
        sys.modules.pop(Path(name).stem, None)
    for table, before in zip(TABLES, tables, strict=True):
        table.clear()
        table.update(before)


def config_of(folder):
    return configs.load(f"{folder}/toy_config.py:data={folder}/images.npz")


@pytest.mark.slow
def test_a_toy_from_outside_trains_is_scored_saved_loaded_and_predicts(folder, capsys):
    workdir = folder / "run"
    result = run(config_of(folder), workdir)
    assert "model      toy of width 16, 259 parameters\n" in (
        said := capsys.readouterr().out
    )  # 2x2x3x16 + 16 + 16x3 + 3
    assert "images     8x8: 4x4 patches; " in said
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    first = next(record for record in records if "train/loss" in record)
    # Three equal logits: p = 1/3 for every class, and the focal loss of gamma 1 is (1 - 1/3) log 3.
    assert first["train/loss"] == pytest.approx(2 / 3 * np.log(3), rel=1e-5)
    assert first["train/confidence"] == pytest.approx(1 / 3, rel=1e-5)

    module, params = load_model(workdir)
    assert resolution_of(load(workdir)) == (8, 8)
    images, labels = draw(21, 1)
    outputs = module.apply({"params": params}, images.astype(np.float32) / 127.5 - 1)
    hit = np.asarray(outputs.logits).argmax(axis=1) == labels
    assert result.scores == {
        "eval/test/mean": pytest.approx(np.mean([hit[labels == c].mean() for c in range(3)])),
        "eval/test/least": pytest.approx(min(hit[labels == c].mean() for c in range(3))),
        "eval/test/num_examples": 21,
    }
    with np.load(workdir / "predictions" / "test.npz") as stored:
        assert (stored["hit"] == hit).all()

    PIL.Image.fromarray(images[0]).save(folder / "one.png")
    shown = module.apply({"params": params}, read_images([folder / "one.png"], (8, 8))).logits[0]
    (prediction,) = classify(str(workdir), [str(folder / "one.png")], top=1)
    assert prediction.classes[0][0] == CLASSES[int(np.argmax(shown))]

    del MODELS["toy"]
    with pytest.raises(
        UserError,
        match="there is no model 'toy'; expected one of vit, masked, mae, mixer, resnet, yolos, or import the module",
    ):
        load_model(workdir)


def test_a_recipe_from_outside_is_what_training_images_go_through(folder):
    job = build_job(config_of(folder))
    image, rng = draw(1, 2)[0][0], np.random.default_rng(5)
    image[..., 0], image[..., 1] = 0, 255
    expected = image[..., np.random.default_rng(5).permutation(3)]
    shuffled = make_transform(job.config.data.recipe, (8, 8))
    assert np.array_equal(shuffled.map_image(image, rng), expected)
    assert not np.array_equal(expected, image)
    batches = job.data.batches(job.source, seed=0, start_step=0, process_index=0, process_count=1, corrupt=())
    assert next(iter(batches)).image.shape == (16, 8, 8, 3)
    batches.close()


@pytest.mark.slow
def test_a_toys_checkpoint_is_where_another_run_starts(folder):
    workdir = folder / "run"
    run(config_of(folder), workdir, quiet=True)
    from vit_jax.run.initial import initial_params

    job = build_job(config_of(folder), [("init", str(workdir)), ("init.architecture", "source")])
    params, fates = initial_params(job.config, job.parts.model, job.init_source)
    assert np.array_equal(params["embedding"]["kernel"], load_model(workdir)[1]["embedding"]["kernel"])
    assert not np.any(params["head"]["kernel"])  # a new head
    assert {fate.name: fate.action for fate in fates} == {
        "embedding/kernel": "loaded", "embedding/bias": "loaded",
        "head/kernel": "fresh", "head/bias": "fresh",
    } | {fate.name: fate.action for fate in fates if fate.action == "dropped"}  # fmt: skip


def test_a_toy_is_held_to_the_rules_of_the_house(folder):
    with pytest.raises(UserError, match=r"objective.name=focal is not linear"):
        build_job(config_of(folder), [("train.mixup", "0.2")])
    mixer, misspelt = config_of(folder), config_of(folder)
    mixer.model = {"name": "mixer", "num_classes": 0, "patch_size": (4, 4), "width": 8, "depth": 1}
    with pytest.raises(UserError, match=r"reads confidence of the model's outputs, and config.model.name=mixer"):
        build_job(mixer)
    misspelt.model.widht = 3
    with pytest.raises(UserError, match=r"config.model.widht is read by nothing; did you mean 'width'"):
        build_job(misspelt)
    with pytest.raises(UserError, match=r"images.npz has no validation_images"):
        build_job(config_of(folder), [("data.split", "validation")])
