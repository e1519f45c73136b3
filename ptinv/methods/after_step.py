"""Rules that hold an edit near the picture: those parts that are more than a cell of the table.

ILVR (Choi et al., arXiv 2108.02938) takes the low frequencies of the picture. Proximal guidance
(Han et al., arXiv 2306.05414) drops the small part of ω (ε_c - ε_∅), which belongs to no edit, by a
proximal operator whose threshold λ is a quantile of the absolute values:

    l0   what reaches λ stays as it is         (hard thresholding)
    l1   and comes λ closer to 0               (soft thresholding)

In the authors' code "l0" is soft as well; here the operators are the paper's. Each row of a batch
has its own λ, where the code takes one over source and target together: half of those differences
are 0 in negative-prompt inversion, so that its quantile of 0.75 is the target's 0.5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import ddim
from ..core.sampling import Guide, Step
from ..settings import Settings
from .edit import Edit

CLEAN = 400  # the timestep below which latents are pulled to the trajectory


def low_pass(z: Tensor, width: int) -> Tensor:
    """ILVR's φ: (b, c, h, w) averaged over squares of `width` cells and drawn smooth again."""
    height, breadth = (max(1, round(side / width)) for side in z.shape[-2:])
    small = F.interpolate(z, size=(height, breadth), mode="area")
    return F.interpolate(small, size=z.shape[-2:], mode="bilinear")


def limit(difference: Tensor, quantile: float) -> Tensor:
    """λ of each row: (b, c, h, w) -> (b, 1, 1, 1)."""
    return difference.abs().flatten(1).float().quantile(quantile, dim=1)[:, None, None, None]


def proximal(difference: Tensor, settings: Settings) -> Tensor:
    """The part of ε_c - ε_∅, (b, c, h, w), that the operator leaves; all of it at "l0" and 0."""
    size, least = difference.abs(), limit(difference, settings.proximal_quantile)
    if settings.proximal == "l1":
        return difference.sign() * (size - least).clamp(min=0)
    return torch.where(size >= least, difference, 0.0)


def proximal_guide(settings: Settings) -> Guide:
    """Eq. 5 with the part of the difference that the operator leaves."""
    return lambda eps_null, eps_cond, guidance: ddim.guide(
        eps_null, eps_null + proximal(eps_cond - eps_null, settings), guidance
    )


def pull_back(e: Edit, step: Step) -> Tensor:
    """The paper's inversion guidance: late in sampling, z*_{k-1} where guidance is dropped.

    Below timestep 400 the numbers of the latent whose difference is not above λ are taken from the
    pivot: the code's rate of 1.
    """
    if step.timestep.t >= CLEAN:
        return step.z
    difference = step.eps_cond - step.eps_null
    edited = difference.abs() > limit(difference, e.settings.proximal_quantile)
    return torch.where(edited, step.z, e.pivot(step))
