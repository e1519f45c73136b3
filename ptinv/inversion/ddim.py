"""DDIM inversion (Eq. 6): the trajectory z*_0, …, z*_T' that the paper calls the pivot.

The paper walks up without a prompt (ω = 0), so it needs no description of the picture, one call of
the UNet a step, and the trajectory serves every later prompt.
"""

import torch
from torch import Tensor

from ..ddim import Rung
from ..model import StableDiffusion
from ..sampling import Progress, silent, walk_up


@torch.no_grad()
def ddim_inversion(
    model: StableDiffusion, z0: Tensor, rungs: list[Rung], progress: Progress = silent
) -> Tensor:
    """z_0 (1, c, h, w) -> the trajectory (T'+1, c, h, w), z*_0 first.

    Raises FloatingPointError if a latent is not finite.
    """
    null = model.embed("")
    loop = progress(rungs, "inverting")
    trajectory = torch.cat([z0, *walk_up(model, z0, loop, lambda k: (null, null), guidance=0.0)])
    if not trajectory.isfinite().all():
        raise FloatingPointError(
            "the inversion is not finite (NaN or infinity): the checkpoint may be damaged, "
            "or try --dtype float32 or bfloat16"
        )
    return trajectory
