"""Copies of test images in a training set: hashes, their search, exclusion lists."""
