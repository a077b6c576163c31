"""The data room: from a data set's name to batches of uint8 images. numpy only: nothing here imports jax or TensorFlow."""
