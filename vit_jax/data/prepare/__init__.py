"""Writes and checks data: TFDS's own preparation, packing, fingerprints."""
