"""Proximal guidance (Han et al., arXiv 2306.05414): an edit is guided only where it is strong.

The small part of d = ε_c - ε_∅ belongs to no edit. A proximal operator drops it, whose limit λ is a
quantile of |d|, and below timestep 400 the latent's numbers that are not guided go back to z*_{k-1}
(the paper's inversion guidance, at the code's rate of 1):

    l0, l1             what reaches λ stays as it is, or comes λ closer to 0; guided is |d| > λ
    code-l0, code-l1   what the authors' code calls so: l1, and λ off a second time by sign; guided
                       is what is then still above λ, and the cells around it

In the paper's each row of a batch has its own λ; the code's is one over source and target, half of
whose differences are 0 in negative-prompt inversion: its quantile of 0.75 is the target's 0.5.
"""

import torch
from torch import Tensor

from ..core.sampling import Step
from ..settings import Settings
from .edit import Edit
from .masks import dilated

CLEAN = 400  # the timestep below which latents are pulled to the trajectory


def limit(difference: Tensor, settings: Settings) -> Tensor:
    """λ of each row, (b, c, h, w) -> (b or 1, 1, 1, 1); in the code's way one for all."""
    rows = difference.abs().float().flatten(0 if settings.proximal.startswith("code") else 1)
    return rows.quantile(settings.proximal_quantile, dim=-1).view(-1, 1, 1, 1)


def proximal(difference: Tensor, settings: Settings) -> Tensor:
    """The part of ε_c - ε_∅, (b, c, h, w), that the operator leaves; all of it at "l0" and 0."""
    size, least = difference.abs(), limit(difference, settings)
    if settings.proximal == "l0":
        return torch.where(size >= least, difference, 0.0)
    left = difference.sign() * (size - least).clamp(min=0)
    if settings.proximal == "code-l1":  # where what is from -λ to 0 comes out positive
        left = torch.where(left > 0, left - least, left)
        left = torch.where(left < 0, left + least, left)
    return left


def pull_back(e: Edit, step: Step) -> Tensor:
    """The step's latent, the numbers that are not guided taken from the trajectory late on."""
    if step.timestep.t >= CLEAN:
        return step.z
    d, settings = step.eps_cond - step.eps_null, e.settings
    if settings.proximal.startswith("code"):
        guided = dilated((proximal(d, settings).abs() > limit(d, settings)).float(), 1) > 0
    else:
        guided = d.abs() > limit(d, settings)
    return torch.where(guided, step.z, e.pivot(step))
