"""Examples whose labels a VTAB task computes, for the argument `amend` of `generated.prepare`."""

import generated
import numpy as np


def clevr_objects(index):
    """CLEVR's objects, as many as `index` says, the nearest at 8.2."""
    plain = {"color": 0, "material": 0, "shape": 0, "size": 0, "rotation": np.float32(0)}
    return [
        plain | {"3d_coords": np.zeros(3, np.float32), "pixel_coords": np.float32([1, 2, 8.2 + i])}
        for i in range(3 + index % 8)
    ]


def amend(name):
    def change(example, split, index):
        if name == "clevr":
            example["objects"] = clevr_objects(index)
            example["question_answer"] = []
        if name == "dsprites":
            example["image"] = generated.encode(np.random.default_rng(index), (64, 64, 1), high=2)
            example["label_x_position"], example["label_orientation"] = index % 32, index % 40
        if name == "kitti":
            for i, thing in enumerate(example["objects"]):
                thing["type"], thing["location"] = i % 2, np.float32([0, 0, 9 + index + i])
        if name.startswith("smallnorb"):
            example["label_azimuth"], example["label_elevation"] = index % 18, index % 9

    return change
