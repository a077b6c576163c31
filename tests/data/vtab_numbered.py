"""VTAB's data sets with numbered examples, whose names, images and labels say their number; for the tests of ids."""

import io

import numpy as np
import PIL.Image

COUNTS = {"train": 24, "test": 24, "validation": 24}


def picture(split, number):
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 4, 3), [number, list(COUNTS).index(split), 0], np.uint8)).save(file, "PNG")
    return file.getvalue()


def numbered(shift, step):
    """The generator's example `index` is number `shift + step * index`: its name, image and labels say so."""

    def change(example, split, index):
        number = (shift + step * index) % 24
        example["image"] = picture(split, number)
        for key in {"image/file_name", "file_name", "filename", "id", "name"} & set(example):
            example[key] = f"{split}_{number:03d}"
        if "label" in example:
            example["label"] = number % 2
        if "label_lighting" in example:  # smallNORB
            example |= {"label_category": 0, "instance": list(COUNTS).index(split), "label_lighting": 5}
            example |= {"label_elevation": number // 6, "label_azimuth": number % 6}
        if "label_shape" in example:  # dSprites
            example |= {"label_shape": list(COUNTS).index(split), "label_scale": 0, "label_y_position": 0}
            example |= {"label_orientation": number, "label_x_position": number}
        if "question_answer" in example:  # CLEVR
            plain = {"color": 0, "material": 0, "shape": 0, "size": 0, "rotation": np.float32(0)}
            thing = plain | {"3d_coords": np.zeros(3, np.float32), "pixel_coords": np.float32([0, 0, 8 + number / 9])}
            example |= {"question_answer": [], "objects": [thing] * (3 + number % 8)}
        elif "objects" in example:
            example["objects"] = []

    return change
