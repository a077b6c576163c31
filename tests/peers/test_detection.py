"""Live comparison of YOLOS with transformers: scores, boxes and the loss, both ways, to 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_models as peers
import transformers

from vit_jax.convert.load import load
from vit_jax.convert.save import save_model
from vit_jax.targets import Boxes
from vit_jax.train.objectives import set_prediction
from vit_jax.types import Batch

pytestmark = pytest.mark.filterwarnings("default")


def batch(images):
    target = Boxes(6, 4).empty(2)
    for row, (kinds, boxes) in enumerate(peers.OBJECTS):
        for k, (kind, (x, y, w, h)) in enumerate(zip(kinds, boxes, strict=True)):
            target.box[row, k] = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            target.kind[row, k], target.valid[row, k] = kind, 1
    return jax.tree.map(jnp.asarray, Batch(images, target, np.ones(2, np.float32)))


@pytest.mark.parametrize("mid", [True, False])
@pytest.mark.parametrize(
    "size", [(16, 24), (24, 16), (12, 32)]
)  # the native one; its transpose, with as many patches; another
def test_scores_boxes_and_losses_are_those_of_transformers(tmp_path, mid, size):
    model = peers.yolos(3, mid=mid)
    model.save_pretrained(tmp_path / "hf")
    x = peers.images(size)
    with torch.no_grad():
        theirs = model(peers.nchw(x), labels=peers.labels())
    loaded = load(str(tmp_path / "hf"))
    assert loaded.settings["position_grid"] == (4, 6)
    outputs = jax.jit(loaded.module.apply)({"params": loaded.params}, x)
    np.testing.assert_allclose(outputs.extra["class_logits"], theirs.logits.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs.extra["boxes"], theirs.pred_boxes.numpy(), rtol=1e-5, atol=1e-5)
    objective = set_prediction()
    values = jax.jit(lambda outputs, batch: objective.values(outputs, objective.prepare(batch)))(outputs, batch(x))
    found = {name: float(value.mean()) for name, value in values.items()}
    named = {"loss_ce": "loss_class", "loss_bbox": "loss_box", "loss_giou": "loss_giou"}
    for theirs_name, ours in named.items():
        assert found[ours] == pytest.approx(float(theirs.loss_dict[theirs_name]), rel=1e-5, abs=1e-5)
    assert found["loss"] == pytest.approx(float(theirs.loss), rel=1e-5)


@pytest.mark.parametrize("mid", [True, False])
def test_transformers_reads_what_we_write(tmp_path, mid):
    model = peers.yolos(4, mid=mid)
    model.save_pretrained(tmp_path / "hf")
    loaded = load(str(tmp_path / "hf"))
    save_model(loaded, str(tmp_path / "written"), "hf")
    again = transformers.YolosForObjectDetection.from_pretrained(tmp_path / "written").eval()
    x = peers.nchw(peers.images((16, 24)))
    with torch.no_grad():
        for name in ("logits", "pred_boxes"):
            np.testing.assert_allclose(getattr(again(x), name), getattr(model(x), name), rtol=1e-6, atol=1e-6)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "written")
    assert type(processor).__name__.startswith("Yolos")
    ours = load(str(tmp_path / "written"))
    jax.tree.map(np.testing.assert_array_equal, ours.params, loaded.params)
