"""Deterministic weights by name, so two implementations can be filled alike without any checkpoint.

Each tensor is drawn from NumPy's legacy RandomState (its stream is frozen by NumPy's policy) seeded
with crc32 of the tensor's name: the name it has in the diffusers-layout checkpoint.
"""

import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch


def draw(name: str, shape) -> np.ndarray:
    """float32 array of the given shape; the same for the same name and shape everywhere."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    n = rng.standard_normal(size=tuple(shape))
    if name.startswith("golden/"):  # inputs: plain standard normals
        return n.astype(np.float32)
    if len(shape) >= 2:  # kernels and embeddings: unit-variance fan-in
        return (n / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if name.endswith("weight"):  # norms' scales
        return (1 + 0.1 * n).astype(np.float32)
    return (0.1 * n).astype(np.float32)  # biases


def filled(shapes: dict) -> dict:
    with ThreadPoolExecutor(2) as pool:  # NumPy lets go of the interpreter while it draws
        arrays = pool.map(draw, shapes, shapes.values())
        return {name: torch.from_numpy(array) for name, array in zip(shapes, arrays, strict=True)}
