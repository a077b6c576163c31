"""The command line: `vit_jax VERB`, a module a verb. Each turns flags into one call of a room and prints what it returns."""
