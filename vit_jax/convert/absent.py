"""Explains a missing checkpoint: the user may mean a name of another library, a released file or a similar path nearby."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from vit_jax.convert.released import TABLE, examples

# Names of timm models, with the tag of the weights: vit_base_patch16_224.augreg_in21k.
TIMM = re.compile(r"(timm/)?(vit_\w+_patch\d+\w*(\.\w+)?)")
# OWNER/MODEL on the hub.
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES = (".npz", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt", ".msgpack")
MOST_NEIGHBOURS = 1000  # names per folder that are compared


def explain_absent(path: str) -> str:
    """The message for a missing checkpoint: what was expected, what the user may have meant, and what to do."""
    hints = []
    if match := TIMM.fullmatch(path):
        hints.append(_fetch(f"timm/{match[2]}", "a timm name"))
    elif HUB.fullmatch(path) and not path.endswith(FILES) and not Path(path).parent.exists():
        hints.append(_fetch(path, "a Hugging Face name"))
    if same := [row.name for row in TABLE if Path(row.path).name == Path(path).name]:
        hints.append(f"released files of that name are fetched as {' or '.join(same)}")
    if near := _neighbours(Path(path).expanduser()):
        hints.append(f"nearby is {' and '.join(near)}")
    expected = (
        "expected an npz or safetensors file, a Hugging Face or timm folder, a vit_jax workdir, or a released model "
        f"({examples()})"
    )
    return f"{path} is neither a file nor a folder; " + "; ".join([*hints, expected])


def _fetch(name: str, what: str) -> str:
    folder = name.rpartition("/")[2]
    return (
        f"if it is {what}, `pip install huggingface_hub` and `hf download {name} --local-dir {folder}` fetch it into a folder; "
        f"then give {folder}"
    )


def _neighbours(place: Path) -> list[str]:
    """Up to three paths beside a missing one with nearly its name, or with its name one folder down."""
    folder = place.parent
    try:
        names = [p.name for p, _ in zip(folder.iterdir(), range(MOST_NEIGHBOURS), strict=False)]
        below = [str(folder / name / place.name) for name in names if (folder / name / place.name).exists()]
    except OSError:
        return []
    close = difflib.get_close_matches(place.name, names, n=3, cutoff=0.75)
    return [*(str(folder / name) for name in close), *below][:3]
