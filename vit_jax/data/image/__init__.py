"""From the bytes of an image to what a model sees: decode, crop, augment, as recipes."""
