"""Training: objectives, the optimizer, one page of step, checkpoints, the loop."""
