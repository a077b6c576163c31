"""The command line: `vit_jax VERB`, one module per verb. Each turns flags into one call of a room and prints the result."""
