"""Fuzz of COCO's annotations: a damaged file is a data set whose boxes lie in their images, or one error."""

import json

import mutations
import numpy as np
import PIL.Image

from vit_jax.data.open import open_source
from vit_jax.targets import Boxes
from vit_jax.types import UserError

GOOD = {
    "images": [{"id": 3 * i, "file_name": f"{i}.png", "height": 8, "width": 6 + i} for i in range(4)],
    "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}],
    "annotations": [
        {"id": i, "image_id": 3 * (i % 4), "category_id": 7, "bbox": [1, 0.5, 3, 2 + i], "area": 4.5, "iscrowd": i % 2}
        for i in range(6)
    ],
}


def test_damaged_annotations_are_a_data_set_or_one_error(tmp_path):
    for i in range(4):
        PIL.Image.fromarray(np.zeros((8, 6 + i, 3), np.uint8)).save(tmp_path / f"{i}.png")
    for number, rng in mutations.cases():
        damaged = (
            mutations.mutate(json.dumps(GOOD).encode(), rng)
            if number % 2
            else json.dumps(mutations.mutate_json(GOOD, rng)).encode()
        )
        (tmp_path / "instances_train.json").write_bytes(damaged)
        with mutations.judged(number, UserError):
            source = open_source(str(tmp_path), "train", boxes=True)
            target = source.spec.target
            assert isinstance(target, Boxes)
            arrays = target.empty(len(source))
            for row in range(len(source)):
                assert target.put(arrays, row, source.read(row)[1]) == ""
            assert np.isfinite(arrays.box).all()
            assert (arrays.box[..., 2:] > arrays.box[..., :2]).all()
