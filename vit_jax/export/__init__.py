"""A checkpoint as one file that runs without vit_jax: StableHLO for jax alone, ONNX for everything else."""
