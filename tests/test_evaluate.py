"""vit_jax evaluate: the classes by name, and what it says beside the figures."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from checkpoints import copy_golden, golden_tensors, save_safetensors

from vit_jax import evaluate as evaluating
from vit_jax import load_model, read_images
from vit_jax.cli import evaluate as program
from vit_jax.convert.load import fit_head, load
from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.evals.base import Scores
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError

ROOT = Path(__file__).resolve().parents[1]
CLASSES = [f"class{i}" for i in range(7)]  # of the folder
WORDS = ("--split=test", "--bootstrap=20")


@pytest.fixture
def folder(tmp_path):
    """A folder of images of 8x8 in seven classes, 13 of them to test on, which 8 devices leave over."""
    rng = np.random.default_rng(1)
    for split, counts in (("train", [1] * 7), ("test", [3, 2, 2, 2, 2, 1, 1])):
        for label, count in zip(CLASSES, counts, strict=True):
            (tmp_path / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(tmp_path / split / label / f"{index:02}.png")
    return tmp_path


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    monkeypatch.setattr(program, "set_up_process", lambda: None)  # the process is the tests'


def run(capsys, *words):
    """(exit code, standard output, standard error)."""
    code = program.main([*map(str, words)])
    return code, *capsys.readouterr()


def named(tmp_path, names):
    """A golden checkpoint whose outputs have these names."""
    return copy_golden(
        "hf_classifier",
        tmp_path / f"hf{len(list(tmp_path.glob('hf*')))}",
        config={
            "id2label": {str(i): name for i, name in enumerate(names)},
        },
    )


def top1_by_name(model, folder, names):
    """Share of the test images whose likeliest class has the name of their folder."""
    module, params = load_model(model)
    files = sorted((folder / "test").glob("*/*.png"))
    best = np.asarray(module.apply({"params": params}, read_images(files, (16, 16))).logits).argmax(axis=1)
    return np.mean([names[i] == file.parent.name for i, file in zip(best, files, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("order", [range(7), [3, 6, 0, 1, 5, 2, 4]], ids=["the data's", "another"])
def test_a_prediction_is_right_by_its_name_whatever_the_heads_order(folder, tmp_path, capsys, order):
    names = [CLASSES[i] for i in order]
    model = named(tmp_path, names)
    code, out, err = run(capsys, f"--model={model}", f"--dataset={folder}", "--json", *WORDS)
    assert code == 0
    assert json.loads(out)["top1"] == pytest.approx(top1_by_name(model, folder, names))
    assert ("in another order; its head's outputs are put in the data's" in err) == (names != CLASSES)


@pytest.mark.slow
def test_other_classes_are_refused_and_no_names_are_told(folder, tmp_path, capsys):
    other = named(tmp_path, [*CLASSES[:6], "emu"])
    code, _, err = run(capsys, f"--model={other}", f"--dataset={folder}", *WORDS)
    assert code == 2
    assert "have other classes: only the checkpoint has 'emu'; only the data has 'class6'; score it on" in err
    nameless = ROOT / "tests" / "golden" / "timm_token"
    code, _, err = run(capsys, f"--model={nameless}", f"--dataset={folder}", *WORDS)
    assert code == 0
    assert err.count("note: ") == 2  # its pooling is assumed too
    assert "has no names of its classes" in err


@pytest.mark.slow
def test_figures_say_what_their_brackets_are_and_corrupt_images_are_counted_once(folder, capsys, tmp_path):
    path = folder
    (path / "test" / "class0" / "00.png").write_bytes(b"no image")
    words = (f"--model={named(tmp_path, CLASSES)}", f"--dataset={path}", *WORDS)
    _, out, _ = run(capsys, *words)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    for figure in ("top1", "top5", "ece"):
        assert lines[figure].count("% (95% interval ") == 1
    assert "(95% interval " in lines["nll"]
    assert (lines["num_examples"], lines["num_corrupt"]) == ("12", "1")
    assert "0x" not in out


@pytest.mark.slow
def test_what_the_checkpoint_was_changed_by_is_told(folder, tmp_path, capsys):
    tensors = golden_tensors("hf_classifier")
    name = "vit.embeddings.patch_embeddings.projection.weight"
    model = named(tmp_path, CLASSES)
    save_safetensors(Path(model) / "model.safetensors", tensors | {name: tensors[name][:, :1]})
    words = (f"--model={model}", f"--dataset={folder}", *WORDS)
    code, _, err = run(capsys, *words, "--resolution=24")
    assert code == 0
    assert "note: first layer: 1 -> 3 channels\n" in err
    assert "note: positions: 4x4 -> 6x6, bilinear_corners\n" in err
    code, _, err = run(capsys, *words, "--resolution=30")
    assert code == 2
    assert "error: image of 30x30 pixels is not divisible by the patch of 4x4; choose a resolution" in err
    code, _, err = run(capsys, *words, "--set", "channels=1")
    assert code == 2
    assert "have 3 channels, and this model takes 1" in err


def test_a_head_is_fitted_by_name_and_the_rest_is_left(folder, tmp_path):
    loaded = load(named(tmp_path, CLASSES[::-1]))
    params, note = fit_head(loaded, CLASSES, "DATA")
    assert np.array_equal(params["head"]["kernel"], loaded.params["head"]["kernel"][:, ::-1])
    assert params["Transformer"] is not None
    assert "in another order" in note
    with pytest.raises(UserError, match="other classes"):
        fit_head(loaded, [*CLASSES[:6], "x"], "DATA")


@pytest.mark.slow
def test_images_are_cropped_and_left_unturned_where_that_is_asked_for(folder, tmp_path, capsys):
    model, place = named(tmp_path, CLASSES), tmp_path / "photos"
    rng, exif = np.random.default_rng(0), PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    for split in ("train", "test"):
        for name in CLASSES:
            (place / split / name).mkdir(parents=True)
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(place / split / name / "0.png", exif=exif)
    module, params = load_model(model)
    labels, likelihood = np.arange(7), {}
    for recipe in ("eval", "eval_crop"):
        for turned in ("apply", "ignore"):
            images = [decode(f.read_bytes(), upright=turned == "apply") for f in sorted(place.glob("test/*/*.png"))]
            transform = make_transform(recipe, (16, 16))
            batch = np.stack([transform.map_image(image, rng) for image in images]).astype(np.float32) / 127.5 - 1
            logits = np.asarray(module.apply({"params": params}, batch).logits, np.float64)
            chosen = np.log(np.exp(logits).sum(axis=1)) - logits[labels, labels]
            likelihood[recipe, turned] = chosen.mean()
    assert len({round(value, 6) for value in likelihood.values()}) == 4
    for (recipe, turned), expected in likelihood.items():
        words = (f"--model={model}", f"--dataset={place}", *WORDS, "--json", f"--recipe={recipe}", f"--exif={turned}")
        code, out, _ = run(capsys, *words)
        assert code == 0
        assert json.loads(out)["nll"] == pytest.approx(expected, rel=1e-4)


class Fixed:
    """An evaluator whose score is known, or that fails when it scores."""

    def __init__(self, score=None):
        self.spec = DatasetSpec("fixed", "test", 1, ClassId(7), (), (None, None, 3))
        self._score = score

    def bind(self, model):
        assert model.num_classes == 7

        def score(params):
            if self._score is None:
                raise UserError("3 of 4 images could not be decoded")
            return Scores({"top1": self._score})

        return score


def test_a_set_of_a_pack_that_cannot_be_scored_is_named_and_does_not_stop_the_others(monkeypatch, capsys):
    made = {"val": Fixed(0.5), "real": Fixed(), "a": Fixed(0.25)}
    monkeypatch.setattr(evaluating, "open_pack", lambda name, classes, **options: (made, {"v2": "v2 is not prepared"}))
    found = evaluating.evaluate(str(ROOT / "tests" / "golden" / "timm_token"), pack="imagenet")
    assert found["sets"] == {"val": {"top1": 0.5}, "a": {"top1": 0.25}}
    assert found["missing"] == {"v2": "v2 is not prepared", "real": "3 of 4 images could not be decoded"}
    assert (found["pack"], found["resolution"]) == ("imagenet", [16, 16])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "v2 is missing; the reason follows at the end"
    assert lines[-2:] == [
        "v2 is left out: v2 is not prepared",
        "real is left out: 3 of 4 images could not be decoded",
    ]


def test_an_unknown_pack_and_a_batch_that_does_not_divide_are_refused(folder):
    with pytest.raises(UserError, match=r"no pack 'imagnet'; did you mean 'imagenet'\?"):
        evaluating.evaluate("no/such.npz", pack="imagnet")
    model = str(ROOT / "tests" / "golden" / "timm_token")
    with pytest.raises(UserError, match=r"--batch=12 is not divisible by 8 devices; use 8 or 16$"):
        evaluating.evaluate(model, str(folder), "test", batch_size=12)
