"""The function that reads each section of a run's config: its signature is the section's schema."""

from __future__ import annotations

from vit_jax.data.build import TrainData
from vit_jax.evals.build import EVALUATORS
from vit_jax.models.build import MODELS
from vit_jax.resolve import Schema, Section
from vit_jax.run.initial import Init
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.loop import TrainSettings
from vit_jax.train.objectives import OBJECTIVES
from vit_jax.train.optim import make_optimizer

# Keys that are None in a config until `settle` decides them, with the older spellings of None.
MODEL_OPEN = {"dtype": ("auto",), "scan": ("auto",), "remat": ("auto",), "attention": ("auto",), "num_classes": (0,)}
EVALS_OPEN = {"dataset": ("",), "data_dir": ("",), "exif": ("",), "resolution": ((0, 0),), "likelihood": ("",)}

SCHEMA: Schema = {
    "model": Section(MODELS, left_open=MODEL_OPEN, older={"remat": {"false": "none", "true": "block"}}),
    "data": Section(TrainData),
    "objective": Section(OBJECTIVES, injected=("grid",)),
    "optim": Section(make_optimizer, injected=("total_steps", "layers")),
    "train": Section(TrainSettings, left_open={"fsdp": (), "accumulation": ()}),
    "evals": Section(EVALUATORS, many=True, left_open=EVALS_OPEN),
    "checkpoint": Section(Checkpointer, injected=("directory",)),
    "init": Section(Init, left_open={"grid": ((0, 0),)}),
}
