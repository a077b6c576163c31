"""From image files to classes: what the model is fed, which files are found, and what becomes of those that cannot be read."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from vit_jax import Predictor, classify, load_model, read_images
from vit_jax.convert.load import load
from vit_jax.convert.save import save_model
from vit_jax.data.image.crops import resize_small
from vit_jax.data.image.recipes import make_transform
from vit_jax.predict import find_images
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five images in a folder and below it, hidden ones besides, a file that is no image and one that is not an image's."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    names = ("a.png", "b.JPG", "sub/c.png", "sub/deep/d.jpeg", "z.png", ".hidden.png", "sub/.git/e.png")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("no image either")
    return root


def test_images_are_read_as_the_released_models_want_them(photos):
    found = read_images([photos / "a.png", str(photos / "z.png")], (16, 16))
    stored = np.stack([np.asarray(PIL.Image.open(photos / name)) for name in ("a.png", "z.png")])
    assert (found.dtype, found.shape) == (np.float32, (2, 16, 16, 3))
    np.testing.assert_allclose(found, (stored.astype(np.float64) - 127.5) / 127.5, atol=1e-6)
    assert read_images([photos / "a.png"], (8, 24)).shape == (1, 8, 24, 3)


def test_files_that_are_no_images_are_named_all_at_once(photos):
    with pytest.raises(UserError) as told:
        read_images([photos / "a.png", photos / "broken.png", "nowhere.jpg", photos / "sub"], (16, 16))
    first, *lines = str(told.value).splitlines()
    assert first == "these files cannot be read as images:"
    assert [line.split(":")[0] for line in lines] == [
        f"  {photos / 'broken.png'}",
        "  nowhere.jpg",
        f"  {photos / 'sub'}",
    ]
    assert "object at 0x" not in str(told.value)
    with pytest.raises(UserError, match="none was given"):
        read_images([], (16, 16))


def test_a_folder_is_all_images_in_it_and_below(photos):
    below = [str(photos / name) for name in ("a.png", "b.JPG", "broken.png", "sub/c.png", "sub/deep/d.jpeg", "z.png")]
    assert find_images([str(photos)]) == below
    assert find_images(["nowhere.gif", str(photos / "sub")]) == ["nowhere.gif", *below[3:5]]
    with pytest.raises(UserError, match=r"no file in it or below matches \*\.jpg"):
        find_images([str(ROOT / "scripts")])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_file_gets_the_models_classes_whatever_the_batch(photos, batch_size):
    model = str(GOLDEN / "timm_token")
    module, params = load_model(model)
    found = list(classify(model, [str(photos)], batch_size=batch_size, top=3))
    assert [entry.file for entry in found] == find_images([str(photos)])
    for entry in found:
        if entry.file.endswith("broken.png"):
            assert entry.classes == ()
            assert entry.error.endswith("it begins with b'no image'")
            continue
        logits = np.asarray(module.apply({"params": params}, read_images([entry.file], (16, 16))).logits, np.float64)[0]
        shares = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-shares)[:3]
        assert [name for name, _ in entry.classes] == [f"class {i}" for i in best]
        assert [share for _, share in entry.classes] == pytest.approx(shares[best].tolist(), rel=1e-3)


@pytest.mark.slow
def test_a_predictor_takes_files_and_arrays_and_stays_loaded(photos):
    model, files = str(GOLDEN / "timm_token"), [photos / "a.png", photos / "z.png"]
    predictor = Predictor.load(model, batch_size=2)
    found = predictor(files)
    module, params = load_model(model)
    logits = np.asarray(module.apply({"params": params}, read_images(files, (16, 16))).logits, np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    arrays = [np.asarray(PIL.Image.open(file)) for file in files]
    assert predictor(arrays).tobytes() == found.tobytes()
    assert predictor.classes == tuple(f"class {i}" for i in range(7))
    with pytest.raises(UserError, match=r"cannot be read as images:\n.*broken.png"):
        predictor([*files, photos / "broken.png"])
    with pytest.raises(UserError, match="none was given"):
        predictor([])


@pytest.mark.slow
def test_images_are_prepared_as_the_run_was_scored(photos, tmp_path):
    PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 40, 3), np.uint8)).save(tmp_path / "wide.png")
    given = {}
    for recipe in ("eval", "eval_crop", "pretrain"):  # the last draws, and nothing is scored with it
        loaded = load(str(GOLDEN / "timm_token"))
        loaded.source.meta["preprocessing"] = {"recipe": recipe}
        save_model(loaded, str(tmp_path / recipe), "orbax")
        (entry,) = classify(str(tmp_path / recipe), [str(tmp_path / "wide.png")])
        given[recipe] = entry.classes
    assert given["eval"] == given["pretrain"] != given["eval_crop"]
    module, params = load_model(str(GOLDEN / "timm_token"))
    # 20x40 to a shorter side of 18, by areas, and the middle 16x16 of that
    with PIL.Image.open(tmp_path / "wide.png") as wide:
        image = resize_small(np.asarray(wide), (18, 18))[1:17, 10:26]
    logits = module.apply({"params": params}, image[None].astype(np.float32) / 127.5 - 1).logits[0]
    best, share = given["eval_crop"][0]
    assert best == f"class {int(np.argmax(logits))}"
    assert share == pytest.approx(float(np.exp(logits).max() / np.exp(logits).sum()), rel=1e-3)


def test_a_pipe_among_the_files_is_told_and_not_waited_for(photos, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (entry,) = classify(str(GOLDEN / "timm_token"), [str(tmp_path)])
    assert "is a named pipe; expected a regular file" in entry.error


def test_a_model_of_sets_gives_each_class_its_own_probability_and_one_of_numbers_the_numbers(photos):
    logits = np.array([[2.0, -1.0, 3.0, 0.0]])
    transform = make_transform("eval", (16, 16))
    made = Predictor(("a", "b", "c", "d"), transform, 1, lambda batch: SimpleNamespace(logits=logits), "ClassSet")
    p = 1 / (1 + np.exp(-logits[0]))
    np.testing.assert_allclose(made([photos / "a.png"])[0], p, rtol=1e-5)
    ((_, classes, _),) = made.files([str(photos / "a.png")], top=2)
    assert [name for name, _ in classes] == ["c", "a"]
    ((_, numbers, _),) = dataclasses.replace(made, target="Values").files([str(photos / "a.png")], top=2)
    assert numbers == (("a", 2.0), ("b", -1.0), ("c", 3.0), ("d", 0.0))  # all, in the order of the columns


def test_pil_images_and_gray_arrays_are_taken_and_others_named():
    seen = []

    def forward(batch):
        seen.append(batch.copy())
        return SimpleNamespace(logits=np.zeros((len(batch), 2), np.float32))

    made = Predictor(("a", "b"), make_transform("eval", (4, 4)), 2, forward)
    gray = np.arange(16, dtype=np.uint8).reshape(4, 4)
    turned = PIL.Image.fromarray(gray)
    turned.getexif()[274] = 3  # upside down
    assert made([PIL.Image.fromarray(gray), gray, gray[..., None], turned]).tolist() == [[0.5, 0.5]] * 4
    whole = np.repeat(gray[..., None], 3, axis=2)
    expected = [whole, whole, whole, whole[::-1, ::-1]]
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    with pytest.raises(UserError, match=r"image 1: an array of float32 \(4, 4, 3\); expected uint8 \(h, w, 3\)"):
        made([gray, whole.astype(np.float32)])
