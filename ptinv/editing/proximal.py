"""Proximal guidance (Han et al., arXiv 2306.05414): an edit changes what it must, and no more.

Guidance adds ω (ε_c - ε_∅). Most of that difference is small and belongs to no edit; a proximal
operator drops it, with a threshold λ that is a quantile of its absolute values:

    l0   what reaches λ stays as it is         (hard thresholding)
    l1   and comes λ closer to 0               (soft thresholding)

In the authors' code "l0" is soft as well; here the operators are the paper's. Each row of a batch
has its own λ, where the code takes one over source and target together: half of those differences
are 0 in negative-prompt inversion, so that its quantile of 0.75 is the target's 0.5.
"""

import torch
from torch import Tensor

from .. import ddim
from ..sampling import After, Guide, Step
from ..settings import Norm

CLEAN = 400  # the timestep below which latents are pulled to the trajectory


def limit(difference: Tensor, quantile: float) -> Tensor:
    """λ of each row: (b, c, h, w) -> (b, 1, 1, 1)."""
    return difference.abs().flatten(1).float().quantile(quantile, dim=1)[:, None, None, None]


def proximal(difference: Tensor, quantile: float, norm: Norm) -> Tensor:
    """What the operator leaves of ε_c - ε_∅, (b, c, h, w); all of it at quantile 0 of "l0"."""
    size, least = difference.abs(), limit(difference, quantile)
    if norm == "l1":
        return difference.sign() * (size - least).clamp(min=0)
    return torch.where(size >= least, difference, 0.0)


def proximal_guide(quantile: float, norm: Norm) -> Guide:
    """Eq. 5 with what the operator leaves of the difference."""

    def guide(eps_null: Tensor, eps_cond: Tensor, guidance: float) -> Tensor:
        kept = proximal(eps_cond - eps_null, quantile, norm)
        return ddim.guide(eps_null, eps_null + kept, guidance)

    return guide


def pulled_back(trajectory: Tensor, quantile: float) -> After:
    """The paper's inversion guidance: late in the walk, z*_{k-1} where guidance is dropped.

    Below timestep 400 the numbers of the latent whose difference is not above λ are taken from the
    trajectory (T'+1, 1, c, h, w): the code's rate of 1.
    """

    def rule(step: Step) -> Tensor:
        if step.rung.t >= CLEAN:
            return step.z
        difference = step.eps_cond - step.eps_null
        edited = difference.abs() > limit(difference, quantile)
        return torch.where(edited, step.z, trajectory[step.rung.k - 1])

    return rule
