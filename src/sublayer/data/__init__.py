"""Parallel text in, batches of tensors out: corpora, sources, split, encoding, batching, loader."""
