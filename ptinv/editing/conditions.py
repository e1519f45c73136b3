"""Conditions: which two contexts guidance compares on each step, k -> (∅_k, c_k)."""

import torch
from torch import Tensor

from ..sampling import Condition


def constant(null: Tensor, cond: Tensor) -> Condition:
    """The same pair at every step: plain classifier-free guidance."""
    return lambda k: (null, cond)


def interpolated(null: Tensor, tuned: Tensor, target: Tensor, eta: float) -> Condition:
    """Eq. 9: η·c* + (1-η)·c_t. η = 0 walks back to the picture, η = 1 is the target alone.

    tuned: c_1 … c_T', (T', b, 77, d). target: c*, (1, 77, d). Both ends are exact, and so is every
    η where the two are equal.
    """
    return lambda k: (null, torch.lerp(tuned[k - 1], target.expand_as(tuned[k - 1]), eta))
