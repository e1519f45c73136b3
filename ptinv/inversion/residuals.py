"""What a step misses the trajectory by, kept so that it can be put back: exact by construction.

Every step of a walk is made from the trajectory itself, and

    r_k = z*_{k-1} - step(z*_k)

is stored. A walk that adds r_k after each step returns to z*_0 to rounding, whatever guided it.
Two methods are this one idea:

    edit-friendly DDPM inversion (arXiv 2304.06140)   the trajectory is noised with independent
        noises and the step is the mean of the ancestral one; r_k = σ_k z_k is the noise map, and
        the target prompt's walk adds it to its own means
    Direct (PnP) inversion (arXiv 2310.01506)         the trajectory is DDIM's and the step DDIM's;
        r_k is added on the source branch alone
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..ddim import Rung
from ..model import StableDiffusion
from ..sampling import Progress, Step, Walk, silent, walk_down


def residuals(
    model: StableDiffusion,
    trajectory: Tensor,
    rungs: list[Rung],
    walk: Walk,
    progress: Progress = silent,
) -> Tensor:
    """r_1 … r_T', (T', b, c, h, w), of a walk down the trajectory (T'+1, b, c, h, w)."""
    missed: list[Tensor] = []

    def return_to_the_trajectory(step: Step) -> Tensor:
        pivot = trajectory[step.rung.k - 1]
        missed.append(pivot - step.z)
        return pivot

    walk = replace(walk, after=(*walk.after, return_to_the_trajectory))
    loop = progress(rungs[::-1], "residuals")
    for _ in walk_down(model, trajectory[-1], loop, walk):
        pass
    return torch.stack(missed[::-1])
