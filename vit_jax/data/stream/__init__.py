"""Which example when, and batches of them: order, reader, loader."""
