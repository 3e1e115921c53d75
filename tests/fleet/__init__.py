"""Batches of vmcores, the dataset, and clusters over it."""
