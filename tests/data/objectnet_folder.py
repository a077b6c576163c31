"""A small ObjectNet in the layout of the archive: bordered images, and the four maps."""

import json

import numpy as np
import PIL.Image

RED = (255, 0, 0)


def write(root, images, titles, right, names, side=30, seed=0):
    """Writes a folder.

    Args:
      root: to be `objectnet-1.0`.
      images: {folder: count}.
      titles: {folder: title}.
      right: {title: "ImageNet name; ImageNet name"}, of the classes that are also ImageNet's.
      names: ImageNet's names, in the order of wordnet ids.
      side: pixels, border included.
      seed: of pixels and of the order of the names' lines.

    Returns:
      {path relative to root: image without its border, uint8 (side - 2, side - 2, 3)}.
    """
    rng = np.random.default_rng(seed)
    maps = root / "mappings"
    maps.mkdir(parents=True)
    lines = rng.permutation(len(names))  # ImageNet's own numbering is not that of the wordnet ids
    order = {str(c): int(line) for c, line in enumerate(lines)}
    text = [""] * len(names)
    for c, name in enumerate(names):
        text[order[str(c)]] = name
    (maps / "imagenet_to_label_2012_v2").write_text("\n".join(text) + "\n")
    (maps / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps(order))
    (maps / "folder_to_objectnet_label.json").write_text(json.dumps(titles))
    (maps / "objectnet_to_imagenet_1k.json").write_text(json.dumps(right))
    inner = {}
    for folder, count in images.items():
        place = root / "images" / folder
        place.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 200, (side - 2, side - 2, 3), np.uint8)
            image = np.empty((side, side, 3), np.uint8)
            image[:] = RED
            image[1:-1, 1:-1] = pixels
            PIL.Image.fromarray(image).save(place / f"{i:04}.png")
            inner[f"images/{folder}/{i:04}.png"] = pixels
    return inner
