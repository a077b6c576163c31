"""The table of released weights, and downloading them once into the user's cache folder.

`init=augreg:B/16` or `load_model("imagenet21k:L/16")` name a row. Without a network, the error says which file to put
where.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from vit_jax.convert.download import describe, download_npz
from vit_jax.types import UserError

BUCKETS = "https://storage.googleapis.com"
# Another place with the same buckets: a mirror's address, or a folder.
MIRROR_VARIABLE = "VIT_JAX_WEIGHTS"


class Released(NamedTuple):
    """One file of released weights.

    Args:
      name: `group:variant`, as users write it.
      path: bucket and file.
      mib: size, 2^20 bytes; every value is stored in 4 bytes.
      variant: architecture, in the form that `models.variants.any_variant` parses.
      resolution: pixels per side in the last phase of training.
      classes: outputs of its head.
      representation: whether it has the tanh representation layer.
      top1: published ImageNet top-1, percent: of the file itself, or for `(i21k)` files after fine-tuning; None if unknown.
    """

    name: str
    path: str
    mib: float
    variant: str
    resolution: int
    classes: int
    representation: bool
    top1: float | None


def _rows(group: str, bucket: str, resolution: int, classes: int, representation: bool, rows: tuple) -> list[Released]:
    return [
        Released(f"{group}:{name}", f"{bucket}/{file}.npz", mib, variant, resolution, classes, representation, top1)
        for name, variant, file, mib, top1 in rows
    ]


# Accuracies after fine-tuning at 384: the releases' own tables. Sizes: as listed, else computed (tests recompute them).
TABLE = [
    # arXiv 2106.10270, recommended checkpoints.
    *_rows(
        "augreg",
        "vit_models/augreg",
        224,
        21843,
        False,
        (
            ("Ti/16", "Ti/16", "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", 37, 78.22),
            ("S/32", "S/32", "S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0", 118, 79.58),
            ("S/16", "S/16", "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0", 115, 83.73),
            ("B/32", "B/32", "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0", 398, 83.59),
            ("B/16", "B/16", "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", 391, 85.49),
            ("B/8", "B/8", "B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0", 391, None),
            ("L/16", "L/16", "L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0", 1243, 85.59),
            ("R+Ti/16", "R+Ti/16", "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", 40, 75.40),
            ("R26+S/32", "R26+S/32", "R26_S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0", 170, 83.85),
            ("R50+L/32", "R50+L/32", "R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1", 1337, 85.99),
        ),
    ),
    # arXiv 2010.11929.
    *_rows(
        "imagenet21k",
        "vit_models/imagenet21k",
        224,
        21843,
        True,
        (
            ("B/8", "B/8", "ViT-B_8", 393.72, None),
            ("B/16", "B/16", "ViT-B_16", 393.69, 84.53),
            ("B/32", "B/32", "ViT-B_32", 400.01, 81.66),
            ("L/16", "L/16", "ViT-L_16", 1246.4, 85.05),
            ("L/32", "L/32", "ViT-L_32", 1254.8, 81.89),
            ("H/14", "H/14", "ViT-H_14", 2519.2, None),
            ("R50+B/16", "R50+B/16", "R50+ViT-B_16", 439.85, 85.08),
            ("R26+B/32", "R26+B/32", "R26+ViT-B_32", 450.23, None),
        ),
    ),
    *_rows(
        "imagenet21k+imagenet2012",
        "vit_models/imagenet21k+imagenet2012",
        384,
        1000,
        False,
        (
            ("B/8", "B/8", "ViT-B_8", 334.78, None),
            ("B/16", "B/16", "ViT-B_16", 331.40, None),
            ("B/32", "B/32", "ViT-B_32", 336.8, None),
            ("L/16", "L/16", "ViT-L_16", 1162.4, None),
            ("L/32", "L/32", "ViT-L_32", 1169.7, None),
            ("R50+B/16", "R50+B/16", "R50+ViT-B_16", 377.57, None),
        ),
    ),
    *_rows(
        "imagenet21k+imagenet2012",
        "vit_models/imagenet21k+imagenet2012",
        224,
        1000,
        False,
        (("B/16-224", "B/16", "ViT-B_16-224", 330.29, None),),
    ),
    # arXiv 2106.01548: trained on ImageNet alone, with sharpness-aware minimisation.
    *_rows(
        "sam",
        "vit_models/sam",
        224,
        1000,
        False,
        (("B/16", "B/16", "ViT-B_16", 330.30, 79.9), ("B/32", "B/32", "ViT-B_32", 336.5, 73.6)),
    ),
    # arXiv 2105.01601.
    *_rows(
        "mixer-imagenet21k",
        "mixer_models/imagenet21k",
        224,
        21843,
        False,
        (("B/16", "Mixer-B/16", "Mixer-B_16", 289.5, 80.64), ("L/16", "Mixer-L/16", "Mixer-L_16", 875.6, 82.89)),
    ),
    *_rows(
        "mixer-imagenet1k",
        "mixer_models/imagenet1k",
        224,
        1000,
        False,
        (("B/16", "Mixer-B/16", "Mixer-B_16", 228.4, 76.44), ("L/16", "Mixer-L/16", "Mixer-L_16", 794.2, 71.76)),
    ),
    # arXiv 1912.11370, pre-trained on ImageNet-21k.
    *_rows(
        "bit-m",
        "bit_models",
        224,
        21843,
        False,
        tuple(
            (variant, variant, f"BiT-M-{variant}", mib, top1)
            for variant, mib, top1 in (
                ("R50x1", 260.4, None),
                ("R50x3", 1317.5, None),
                ("R101x1", 332.8, None),
                ("R101x3", 1968.4, None),
                ("R152x2", 1227.3, None),
                ("R152x4", 4224.4, 85.39),
            )
        ),
    ),
]
BY_NAME = {row.name: row for row in TABLE}
GROUPS = sorted({row.name.partition(":")[0] for row in TABLE})


def is_name(path: str) -> bool:
    """Whether a path has the form of a released model's name, `group:variant`, whether or not it is in the table."""
    match = re.fullmatch(r"([a-z][\w+-]+):(?!//)[^:]+", path)
    return bool(match) and not Path(path).exists()


def examples() -> str:
    """A few names, for messages."""
    return ", ".join(("augreg:B/16", "imagenet21k:L/16"))


def find(name: str) -> Released:
    """Returns the table's row for a name.

    Raises:
      UserError: there is no such row; the message lists the nearest names.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    near = difflib.get_close_matches(name, BY_NAME, n=3, cutoff=0.4) or [examples()]
    raise UserError(f"no released model {name!r}; did you mean {' or '.join(near)}? Groups: {', '.join(GROUPS)}")


def cache_folder() -> Path:
    """The folder of downloaded files: `vit_jax/released` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vit_jax" / "released"


def fetch(row: Released, folder: Path | None = None) -> Path:
    """Returns the local file for a row, downloading it if it is missing; an interrupted download resumes.

    Args:
      row: a row of `TABLE`.
      folder: where files are kept; `cache_folder()` if None.

    Raises:
      UserError: the download fails, or the file has another size than its weights need.
    """
    place = (folder or cache_folder()) / row.path
    url = f"{os.environ.get(MIRROR_VARIABLE) or BUCKETS}/{row.path}"
    sizes = int(0.99 * row.mib * 2**20), int(1.02 * row.mib * 2**20)
    if not place.exists():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            download_npz(url, place, sizes=sizes, title=f"{row.name} ({row.mib:,.0f} MiB)")
        except Exception as error:  # the transport raises many types; the remedy is the same
            raise UserError(
                f"{row.name} could not be fetched from {url}: {describe(error)}\nStart the same command again to "
                f"resume; or download the file elsewhere and put it at {place}"
            ) from error
    size = place.stat().st_size
    if not sizes[0] <= size <= sizes[1]:
        raise UserError(
            f"{place} has {size:,} bytes; expected about {row.mib:,.1f} MiB. It is not the file of {url}: remove it and "
            f"start again"
        )
    return place
