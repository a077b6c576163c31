"""The order of examples, and batches of them: order, reader, loader."""
