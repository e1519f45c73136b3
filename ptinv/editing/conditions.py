"""Conditions: which two contexts guidance compares on each step, k -> (∅_k, c_k).

Sides are (1, 77, d), or (b, 77, d) with a row a branch.
"""

import torch
from torch import Tensor

from ..sampling import Condition


def constant(null: Tensor, cond: Tensor) -> Condition:
    """The same pair at every step: plain classifier-free guidance."""
    return lambda k: (null, cond)


def tuned(null: Tensor, embeddings: Tensor) -> Condition:
    """c_k from Prompt Tuning Inversion, (T', b, 77, d): the walk leads back to the picture."""
    return lambda k: (null, embeddings[k - 1])


def tuned_null(embeddings: Tensor, cond: Tensor) -> Condition:
    """∅_k from Null-Text Inversion, (T', b, 77, d), in the place of the empty prompt's."""
    return lambda k: (embeddings[k - 1], cond)


def interpolated(null: Tensor, tuned: Tensor, target: Tensor, eta: float) -> Condition:
    """Eq. 9: η·c* + (1-η)·c_t. η = 0 walks back to the picture, η = 1 is the target alone.

    tuned: c_1 … c_T', (T', b, 77, d). target: c*, (1, 77, d). Both ends are exact, and so is every
    η where the two are equal.
    """
    return lambda k: (null, torch.lerp(tuned[k - 1], target.expand_as(tuned[k - 1]), eta))


def side_by_side(*conditions: Condition) -> Condition:
    """A condition a branch, in the order of the latent's rows."""

    def at(k: int) -> tuple[Tensor, Tensor]:
        nulls, conds = zip(*(condition(k) for condition in conditions), strict=True)
        return torch.cat(nulls), torch.cat(conds)

    return at
