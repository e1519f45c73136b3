"""Tensors for tests that need no model."""

import torch


def normal(*shape, seed=0):
    """The same standard normals for the same shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def row_of(*cells):
    """A mask of one row of cells."""
    return torch.tensor(cells, dtype=torch.float32).reshape(1, 1, 1, -1)
