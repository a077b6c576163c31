"""Models with options, compared with numpy: parameters are drawn for both, and outputs are the same."""

import numpy as np
import numpy_options
import numpy_vit
from tiny import model_shapes, random_images, run, shapes

ATTENTION = "MultiHeadDotProductAttention_1"
POSITIONS = "posembed_input/pos_embedding"


def draw(extra=(), leave_out=(), **sizes):
    """Parameters of the plain model and of an option: `extra` of every block ({} stands for its number) or of the model."""
    params = numpy_vit.draw_params(**sizes)
    of_option = {name.format(layer): shape for name, shape in dict(extra).items() for layer in range(2)}
    params = {name: x for name, x in params.items() if not any(part in name for part in leave_out)}
    return params | numpy_vit.draw(of_option, seed=1)


def same(model, params, images=None, pool="token", **reference):
    """Asserts that the model has these parameters and computes what numpy does; returns numpy's outputs."""
    images = random_images() if images is None else images
    assert model_shapes(model, images.shape[1:3]) == shapes(params)
    outputs = run(model, params, images)
    expected = numpy_options.forward(params, images, pool=pool, **reference)
    for name in ("tokens", "pooled", "logits"):
        np.testing.assert_allclose(getattr(outputs, name), expected[name], rtol=2e-5, atol=2e-5, err_msg=name)
    return expected


def apart(a, b, name="logits"):
    """Whether two outputs differ by more than rounding."""
    return np.abs(a[name] - b[name]).max() > 1e-2
