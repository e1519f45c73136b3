"""DDIM inversion (Eq. 6): the trajectory z*_0, …, z*_T' that the paper calls the pivot.

The paper walks up without a prompt (ω = 0), so it needs no description of the picture, one call of
the UNet a step, and the trajectory serves every later prompt. With a prompt and any ω it is what
the paper's Table 1 varies.
"""

import torch
from torch import Tensor

from ..ddim import Rung
from ..editing.conditions import constant
from ..model import StableDiffusion
from ..sampling import Condition, Progress, silent, walk_up


@torch.no_grad()
def ddim_inversion(
    model: StableDiffusion,
    z0: Tensor,
    rungs: list[Rung],
    condition: Condition | None = None,
    guidance: float = 0.0,
    progress: Progress = silent,
) -> Tensor:
    """z_0 (b, c, h, w) -> the trajectory (T'+1, b, c, h, w), z*_0 first.

    condition: the contexts of guidance's two sides; without one both are the empty prompt's.
    Raises FloatingPointError if a latent is not finite.
    """
    if condition is None:
        null = model.embed("")
        condition = constant(null, null)
    loop = progress(rungs, "inverting")
    trajectory = torch.stack([z0, *walk_up(model, z0, loop, condition, guidance)])
    if not trajectory.isfinite().all():
        raise FloatingPointError(
            "the inversion is not finite (NaN or infinity): the checkpoint may be damaged, "
            "or try --dtype float32 or bfloat16"
        )
    return trajectory
