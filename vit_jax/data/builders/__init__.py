"""TFDS builders of our own, for data that ships with a package and needs no download."""
