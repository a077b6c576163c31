"""Checkpoints in: `npz` reads released files, `names` maps their names to ours, `adapt` fits them to a model."""
