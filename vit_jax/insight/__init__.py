"""Insight into trained models: their representations of images, and the nearest neighbours among them."""
