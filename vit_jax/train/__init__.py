"""Training: objectives, the optimizer, the step on one page, checkpoints, the loop."""
