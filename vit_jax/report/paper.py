"""Figures of arXiv 2010.11929 for comparison with a sweep's results, table by table, in percent as printed."""

from __future__ import annotations

# Table 9: VTAB-1k. Groups and tasks in the order of its columns.
TABLE_9_COLUMNS = (
    ("Natural", ("Caltech101", "CIFAR-100", "DTD", "Flowers102", "Pets", "Sun397", "SVHN")),
    ("Specialized", ("Camelyon", "EuroSAT", "Resisc45", "Retinopathy")),
    (
        "Structured",
        (
            "Clevr-Count",
            "Clevr-Dist",
            "DMLab",
            "dSpr-Loc",
            "dSpr-Ori",
            "KITTI-Dist",
            "sNORB-Azim",
            "sNORB-Elev",
        ),
    ),
)
# Table 9: model (pre-training data) -> its 19 figures, Natural, Specialized, Structured, and the printed mean.
TABLE_9 = {
    "ViT-H/14 (JFT)": (
        (95.3, 85.5, 75.2, 99.7, 97.2, 65.0, 88.9),
        (83.3, 96.7, 91.4, 76.6),
        (91.7, 63.8, 53.1, 79.4, 63.3, 84.5, 33.2, 51.2),
        77.6,
    ),
    "ViT-L/16 (JFT)": (
        (95.4, 81.9, 74.3, 99.7, 96.7, 63.5, 87.4),
        (83.6, 96.5, 89.7, 77.1),
        (86.4, 63.1, 49.7, 74.5, 60.5, 82.2, 36.2, 51.1),
        76.3,
    ),
    "ViT-L/16 (I21k)": (
        (90.8, 84.1, 74.1, 99.3, 92.7, 61.0, 80.9),
        (82.5, 95.6, 85.2, 75.3),
        (70.3, 56.1, 41.9, 74.7, 64.9, 79.9, 30.5, 41.7),
        72.7,
    ),
}

# Table 2: mean of three fine-tuning runs. ImageNet at 512 pixels (L/16) and 518 (H/14) with Polyak averaging.
TABLE_2_MODELS = ("ViT-H/14 (JFT)", "ViT-L/16 (JFT)", "ViT-L/16 (I21k)", "BiT-L (ResNet152x4)")
TABLE_2 = {
    "ImageNet": (88.55, 87.76, 85.30, 87.54),
    "ImageNet ReaL": (90.72, 90.54, 88.62, 90.54),
    "CIFAR-10": (99.50, 99.42, 99.15, 99.37),
    "CIFAR-100": (94.55, 93.90, 93.25, 93.51),
    "Oxford-IIIT Pets": (97.56, 97.32, 94.67, 96.62),
    "Oxford Flowers-102": (99.68, 99.74, 99.61, 99.63),
    "VTAB (19 tasks)": (77.63, 76.28, 72.72, 76.29),
}
VTAB_ROW = "VTAB (19 tasks)"

# Table 5: fine-tuned at 384 pixels; pre-training data -> data set -> model. None where the paper has no figure.
TABLE_5_MODELS = ("ViT-B/16", "ViT-B/32", "ViT-L/16", "ViT-L/32", "ViT-H/14")
TABLE_5: dict[str, dict[str, tuple[float | None, ...]]] = {
    "ImageNet": {
        "CIFAR-10": (98.13, 97.77, 97.86, 97.94, None),
        "CIFAR-100": (87.13, 86.31, 86.35, 87.07, None),
        "ImageNet": (77.91, 73.38, 76.53, 71.16, None),
        "ImageNet ReaL": (83.57, 79.56, 82.19, 77.83, None),
        "Oxford Flowers-102": (89.49, 85.43, 89.66, 86.36, None),
        "Oxford-IIIT Pets": (93.81, 92.04, 93.64, 91.35, None),
    },
    "ImageNet-21k": {
        "CIFAR-10": (98.95, 98.79, 99.16, 99.13, 99.27),
        "CIFAR-100": (91.67, 91.97, 93.44, 93.04, 93.82),
        "ImageNet": (83.97, 81.28, 85.15, 80.99, 85.13),
        "ImageNet ReaL": (88.35, 86.63, 88.40, 85.65, 88.70),
        "Oxford Flowers-102": (99.38, 99.11, 99.61, 99.19, 99.51),
        "Oxford-IIIT Pets": (94.43, 93.02, 94.73, 93.09, 94.82),
    },
    "JFT-300M": {
        "CIFAR-10": (99.00, 98.61, 99.38, 99.19, 99.50),
        "CIFAR-100": (91.87, 90.49, 94.04, 92.52, 94.55),
        "ImageNet": (84.15, 80.73, 87.12, 84.37, 88.04),
        "ImageNet ReaL": (88.85, 86.27, 89.99, 88.28, 90.33),
        "Oxford Flowers-102": (99.56, 99.27, 99.56, 99.45, 99.68),
        "Oxford-IIIT Pets": (95.80, 93.40, 97.11, 95.83, 97.56),
    },
}

# Table 8: ImageNet 5-shot linear accuracy of ViT-B/16 by position embedding, each added to the stem's input.
TABLE_8_SET, TABLE_8_SHOTS = "ImageNet", 5
TABLE_8 = {
    "ViT-B/16, no position embedding": 61.382,
    "ViT-B/16, 1-D position embedding": 64.206,
    "ViT-B/16, 2-D position embedding": 64.001,
    "ViT-B/16, relative position embedding": 64.032,
}

# Appendix B.1.2 and table 5: ViT-B/16 fine-tuned on ImageNet from scratch, after masked prediction of mean colours on JFT, and
# after supervised pre-training on ImageNet-21k. Masked prediction is called by its objective, or by its target.
OBJECTIVES = {"scratch": 77.91, "patches": 79.9, "mean_colour": 79.9, "supervised": 83.97}

# Other names of the data sets in tables 2, 5 and 8: TFDS names, and shorter ones, in lower case without punctuation.
ALIASES = {
    "imagenet2012": "ImageNet",
    "imagenet1k": "ImageNet",
    "imagenet2012real": "ImageNet ReaL",
    "real": "ImageNet ReaL",
    "pets": "Oxford-IIIT Pets",
    "oxfordiiitpet": "Oxford-IIIT Pets",
    "flowers": "Oxford Flowers-102",
    "flowers102": "Oxford Flowers-102",
    "oxfordflowers102": "Oxford Flowers-102",
}


def row_of(title: str, dataset: str) -> str | None:
    """The data set of tables 2, 5 and 8 that a task uses, by its title or its data set's name; None for another."""
    known = {_plain(name): name for name in TABLE_2} | ALIASES
    return known.get(_plain(title)) or known.get(_plain(dataset.split(":")[0]))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
