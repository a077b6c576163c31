"""Scores and pictures of masked objectives over a whole split, on eight devices, against numpy."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.evals import base
from vit_jax.evals.reconstruction import Reconstruction, lay_out
from vit_jax.models.build import normalize
from vit_jax.train.masking import PatchGrid
from vit_jax.train.objectives import masked_autoencoding, masked_patch_prediction, simmim, softmax_cross_entropy
from vit_jax.types import Outputs, UserError

GRID = PatchGrid((2, 2), (4, 4))  # the folder's images have 8 x 8 pixels


def halved(params, images, *, hidden=None, other=None, noise=None):
    """Predicts half of each pixel, or always the class 0."""
    x = normalize(images) * params
    b = images.shape[0]
    extra = {"pixels": x, "mean_colour": jnp.zeros((b, 4, 512)).at[..., 0].set(50.0), "patches": jnp.zeros((b, 4, 48))}
    extra["hidden"] = jnp.ones((b, 4), bool) if hidden is None else hidden
    return Outputs(None, None, None, None, extra=extra)


def evaluate(folder, objective, devices=8, forward=halved, **options):
    evaluator = Reconstruction(split="test", dataset=str(folder), resolution=(8, 8), **{"batch_size": 8, **options})
    evaluator.open()
    mesh = partition.make_mesh(devices=jax.devices()[:devices])
    return evaluator.bind(base.Bound(forward, objective, mesh, 0))(jnp.float32(0.5))


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 8), (5, 1)])
def test_a_score_is_the_mean_over_all_images_whatever_the_batch(folder, batch_size, devices):
    path, _, (images, _) = folder
    objective = simmim(grid=GRID, mask_patch=(4, 4), ratio=0.5)
    scores = evaluate(path, objective, devices, batch_size=batch_size)
    assert scores.values["num_examples"] == 13
    assert scores.picture is None
    again = evaluate(path, objective, 1, batch_size=13)
    assert scores.values == pytest.approx(again.values, rel=1e-6)
    # Half of each hidden pixel is missing: the loss is half of the mean absolute value, over some half of the pixels.
    x = np.abs(images / 127.5 - 1).mean() / 2
    assert scores.values["loss"] == pytest.approx(x, rel=0.2)


def test_colours_have_the_entropy_and_the_commonest_of_the_whole_split_beside_them(folder):
    path, _, (images, _) = folder
    scores = evaluate(path, masked_patch_prediction(grid=GRID)).values
    patches = images.reshape(13, 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(-1, 3)
    counts = np.bincount(np.floor(patches / 32).astype(int) @ [64, 8, 1], minlength=512)
    shares = counts[counts > 0] / counts.sum()
    assert scores["entropy"] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-6)
    assert scores["commonest"] == pytest.approx(shares.max())
    assert counts[0] == 0  # so the model, which names class 0, is never right
    assert (scores["accuracy"], scores["num_examples"]) == (0, 13)
    assert scores["loss"] == pytest.approx(50, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "caption"),
    [
        (simmim(grid=GRID, mask_patch=(4, 4)), "reconstructed"),
        (masked_autoencoding(grid=GRID), "reconstructed, given each patch's own mean and deviation"),
        (masked_patch_prediction(grid=GRID), "reconstructed"),
    ],
    ids=["simmim", "mae", "patches"],
)
def test_pictures_are_of_the_first_images(folder, monkeypatch, objective, caption):
    path, sheets = folder[0], []
    monkeypatch.setattr("vit_jax.evals.reconstruction.lay_out", lambda columns: sheets.append(columns) or 7)
    scores = evaluate(path, objective, pictures=3)
    assert scores.picture == 7
    (columns,) = sheets
    assert list(columns) == ["original", "masked", caption]
    source = open_source(str(path), "test", "")  # a folder's order is its own
    first = [np.asarray(PIL.Image.open(io.BytesIO(source.read(i)[0]))) for i in range(3)]
    np.testing.assert_allclose(columns["original"], np.stack(first) / 127.5 - 1, atol=1e-6)
    assert (columns["masked"] != columns["original"]).any()
    assert columns[caption].shape == (3, 8, 8, 3)


def test_a_sheet_has_a_row_for_each_image_and_a_column_for_each_caption():
    columns = {
        "original": np.full((2, 8, 8, 3), -1.0),
        "masked": np.ones((2, 8, 8, 1)),
        "third": np.zeros((2, 8, 8, 3)),
    }
    sheet = lay_out(columns)
    assert sheet.shape == (14 + 2 * 100, 3 * 100, 3)  # pictures of 96 pixels, 4 apart, under a caption of 14
    assert sheet[20, 50].tolist() == [0, 0, 0]
    assert sheet[20, 150].tolist() == [255, 255, 255]
    assert sheet[120, 250].tolist() == [128, 128, 128]
    assert (sheet[:14] < 128).any()  # the caption's letters


def test_an_objective_that_hides_nothing_is_refused(folder):
    with pytest.raises(UserError, match="scored for objectives that hide patches: simmim, mae or patches"):
        evaluate(folder[0], softmax_cross_entropy())
