"""The table of released models: size, tokens, FLOPs, published accuracy, and the command that would reproduce each.

`vit_jax models` prints it, and docs/models.md is its page. Parameters and FLOPs are literals, so that the verb traces nothing; a
slow test counts them again from the models.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from vit_jax.convert.released import TABLE, Released
from vit_jax.models.variants import any_variant
from vit_jax.types import UserError, nearest

# {name: (parameters, FLOPs of a forward pass on one image)}, by `flops.count_flops` from abstract shapes.
COSTS: dict[str, tuple[int, int]] = {
    "augreg:Ti/16": (9_740_115, 2_515_370_112),
    "augreg:S/32": (30_903_507, 2_301_827_328),
    "augreg:S/16": (30_075_219, 9_213_772_032),
    "augreg:B/32": (104_252_499, 8_850_387_456),
    "augreg:B/16": (102_595_923, 35_159_671_296),
    "augreg:B/8": (102_605_139, 156_328_690_176),
    "augreg:L/16": (325_690_707, 123_152_111_616),
    "augreg:R+Ti/16": (10_360_403, 875_367_552),
    "augreg:R26+S/32": (44_456_467, 6_943_709_440),
    "augreg:R50+L/32": (350_358_931, 38_869_276_672),
    "imagenet21k:B/8": (103_195_731, 156_329_869_824),
    "imagenet21k:B/16": (103_186_515, 35_160_850_944),
    "imagenet21k:B/32": (104_843_091, 8_851_567_104),
    "imagenet21k:L/16": (326_740_307, 123_154_208_768),
    "imagenet21k:L/32": (328_949_075, 30_799_861_760),
    "imagenet21k:H/14": (660_385_363, 334_646_853_120),
    "imagenet21k:R50+B/16": (115_277_971, 43_103_912_448),
    "imagenet21k:R26+B/32": (118_002_835, 13_454_914_048),
    "imagenet21k+imagenet2012:B/8": (87_744_232, 588_089_131_008),
    "imagenet21k+imagenet2012:B/16": (86_859_496, 110_968_700_928),
    "imagenet21k+imagenet2012:B/32": (88_297_192, 26_087_129_088),
    "imagenet21k+imagenet2012:L/16": (304_715_752, 382_132_600_832),
    "imagenet21k+imagenet2012:L/32": (306_632_680, 90_551_926_784),
    "imagenet21k+imagenet2012:R50+B/16": (98_950_952, 134_311_575_552),
    "imagenet21k+imagenet2012:B/16-224": (86_567_656, 35_127_656_448),
    "sam:B/16": (86_567_656, 35_127_656_448),
    "sam:B/32": (88_224_232, 8_818_372_608),
    "mixer-imagenet21k:B/16": (75_908_739, 25_235_550_720),
    "mixer-imagenet21k:L/16": (229_560_243, 89_138_042_880),
    "mixer-imagenet1k:B/16": (59_880_472, 25_203_535_872),
    "mixer-imagenet1k:L/16": (208_196_168, 89_095_356_416),
    "bit-m:R50x1": (68_256_659, 8_263_741_440),
    "bit-m:R50x3": (345_399_315, 72_420_691_968),
    "bit-m:R101x1": (87_248_787, 15_688_183_808),
    "bit-m:R101x3": (516_015_123, 139_240_673_280),
    "bit-m:R152x2": (321_728_979, 91_799_511_040),
    "bit-m:R152x4": (1_107_299_923, 365_896_056_832),
}
# Top-1 on ImageNet after fine-tuning at 384 pixels: arXiv 2010.11929 table 5, pre-training on ImageNet-21k.
PAPER = {"B/16": 83.97, "B/32": 81.28, "L/16": 85.15, "L/32": 80.99, "H/14": 85.13}

# {group: (paper, config that trains such a file, what differs from the release)}; VARIANT is the row's.
MADE = {
    "augreg": ("2106.10270", "configs/augreg.py:variant=VARIANT,dataset=imagenet21k", ""),
    "imagenet21k": ("2010.11929", "configs/pretrain.py:variant=VARIANT,dataset=imagenet21k", ""),
    "imagenet21k+imagenet2012": (
        "2010.11929",
        "configs/finetune.py:variant=VARIANT,dataset=imagenet2012,init=imagenet21k:VARIANT",
        "",
    ),
    "sam": ("2106.01548", "", "sharpness-aware minimisation is not implemented here"),
    "mixer-imagenet21k": (
        "2105.01601",
        "configs/pretrain.py:variant=VARIANT,dataset=imagenet21k",
        "with the ViT paper's settings, and not with Mixer's own",
    ),
    "mixer-imagenet1k": (
        "2105.01601",
        "configs/pretrain.py:variant=VARIANT,dataset=imagenet2012",
        "with the ViT paper's settings, and not with Mixer's own",
    ),
    "bit-m": ("1912.11370", "configs/bit.py:variant=VARIANT,dataset=imagenet21k,optimizer=sgd", ""),
}
INTRODUCTION = """# Released models

Each name is one file of the releases, and is accepted wherever a checkpoint is: `--model=augreg:B/16`,
`--config.init=augreg:B/16` ([weights.md](weights.md)). `vit_jax models --markdown` writes this page, and a test compares them.

Parameters include the head. Tokens are those of one image at the file's resolution, class token included; for Mixers patches, for
ResNets positions of the last features. FLOPs are those of a forward pass on one image, with a multiply and an add as two.
Published top-1 is ImageNet's as the releases give it, not measured here: of the file itself where it has 1,000 classes, and after
the release's fine-tuning where it has 21,843. "Paper" is table 5 of [arXiv 2010.11929](https://arxiv.org/abs/2010.11929), after
fine-tuning at 384 pixels. `-` where nothing was published with the release.

The commands train such a file. The accuracy of one with 21,843 classes is that of fine-tuning from it:

```
vit_jax train --config=configs/finetune.py:variant=B/16,dataset=imagenet2012,init=augreg:B/16 --workdir=runs/augreg_b16_i1k
```"""
HEAD = ("name", "MiB", "parameters", "pixels", "tokens", "GFLOPs", "classes", "top-1, %", "paper, %")


class Model(NamedTuple):
    """A line of the table: a released file, its costs, accuracy in the paper (None if not there), config that would train it
    ("" if there is none) and a remark."""

    released: Released
    parameters: int
    tokens: int
    flops: int
    paper: float | None
    config: str
    remark: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of HEAD."""
        row = self.released
        numbers = f"{row.mib:,.0f}", f"{self.parameters:,}", f"{row.resolution}", f"{self.tokens:,}"
        accuracies = (f"{x:.2f}" if x else "-" for x in (row.top1, self.paper))
        return (row.name, *numbers, f"{self.flops / 1e9:,.1f}", f"{row.classes:,}", *accuracies)


def models(pattern: str = "") -> list[Model]:
    """The model of a name, or all whose names contain a text, in the order of the releases.

    Raises:
      UserError: no name contains it.
    """
    chosen = [_model(row) for row in TABLE if (row.name == pattern if pattern in COSTS else pattern in row.name)]
    if not chosen:
        names = [row.name for row in TABLE]
        raise UserError(f"no released model's name contains {pattern!r}; {nearest(pattern, names)}")
    return chosen


def _model(row: Released) -> Model:
    group = row.name.partition(":")[0]
    _, config, remark = MADE[group]
    config = config.replace("VARIANT", row.variant)
    if group == "imagenet21k" and "+" in row.variant:
        config = config.replace("pretrain", "hybrid")
    fine_tuned = group == "imagenet21k+imagenet2012"
    if fine_tuned and row.resolution != 384:
        config += f" --config.data.resolution={row.resolution}"
    in_paper = group == "imagenet21k" or (fine_tuned and row.resolution == 384)
    paper = PAPER.get(row.variant) if in_paper else None
    parameters, flops = COSTS[row.name]
    return Model(row, parameters, count_tokens(row), flops, paper, config, remark)


def count_tokens(row: Released) -> int:
    """Tokens of an image at the file's resolution; positions of the last features of a ResNet, which has stride 32."""
    sizes: dict[str, Any] = any_variant(row.variant)
    if sizes["name"] == "resnet":
        return math.ceil(row.resolution / 32) ** 2
    stride = sizes["patch_size"][0]
    if sizes.get("stem", "none") != "none":
        stride *= 4 * 2 ** max(len(sizes["stem_depths"]) - 1, 0)
    return (row.resolution // stride) ** 2 + (sizes["name"] == "vit")


def markdown() -> str:
    """The text of docs/models.md."""
    parts = [INTRODUCTION]
    for group, (paper, _, remark) in MADE.items():
        rows = [model for model in models(f"{group}:") if model.released.name.startswith(f"{group}:")]
        parts.append(f"## {group}\n\n[arXiv {paper}](https://arxiv.org/abs/{paper})")
        named = [(f"`{model.cells[0]}`", *model.cells[1:]) for model in rows]
        lines = [HEAD, ["---", *["--:"] * (len(HEAD) - 1)], *named]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        made = [f"vit_jax train --config={model.config} --workdir={_workdir(model)}" for model in rows if model.config]
        parts.append(
            f"To train such a file{f', {remark}' if remark else ''}:" if made else f"Not to be trained here: {remark}."
        )
        if made:
            parts.append("\n".join(["```", *dict.fromkeys(made), "```"]))
    return "\n\n".join(parts) + "\n"


def describe(chosen: list[Model]) -> str:
    """The table for a terminal; for few models, with the commands that would reproduce them."""
    lines = [HEAD, *(model.cells for model in chosen)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    text = [
        f"{line[0]:<{widths[0]}}" + "".join(f"  {x:>{w}}" for x, w in zip(line[1:], widths[1:], strict=True))
        for line in lines
    ]
    for model in chosen if len(chosen) <= 10 else []:
        command = f"vit_jax train --config={model.config} --workdir={_workdir(model)}" if model.config else ""
        text += ["", f"{model.released.name}: {'; '.join(filter(None, (command, model.remark)))}"]
    return "\n".join(text)


def _workdir(model: Model) -> str:
    return "runs/" + re.sub(r"\W+", "_", model.released.name.lower())
