"""Prompt Tuning Inversion, stage 1: lines 4-13 of the paper's Algorithm 1, and Eqs. 7-8.

Guided sampling (ω = 7.5) leaves the trajectory of an unguided inversion at once. Tuning brings it
back: at each step the conditional embedding c_t is moved until the guided step lands on the
trajectory. The networks stay frozen, so whatever the prompt cannot say is written into c_t.

Where the paper is silent: c starts at c*, the target's embedding, because only then does "β = 0
reverts to DDIM-Edit" hold; Adam is made anew at each timestep; the loss is the mean over the latent
of the squared error. With N = 1 Adam's step is β·g / (|g| + 10⁻⁸): every coordinate of c whose
gradient is well above 10⁻⁸ moves by nearly β, the sign deciding and not the size.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ddim
from ..model import StableDiffusion
from ..sampling import Progress, silent


class Tuning(NamedTuple):
    """What stage 1 leaves: c_1 … c_T', and the loss after each step's tuning, in the same order."""

    embeddings: Tensor  # (T', b, 77, d); embeddings[k - 1] takes z_k to z_{k-1}
    losses: Tensor  # (T', b)


def tune_prompt(
    model: StableDiffusion,
    trajectory: Tensor,
    rungs: list[ddim.Rung],
    start: Tensor,
    inner_steps: int = 1,
    lr: float = 0.1,
    guidance: float = 7.5,
    progress: Progress = silent,
) -> Tuning:
    """Tunes c_t for every step of the trajectory z*_0 … z*_T', (T'+1, b, c, h, w).

    Each row is tuned by itself. start: c*, or another embedding (b or 1, 77, d) to begin from.
    inner_steps: N. lr: β. guidance: ω.
    Raises FloatingPointError as `gradient`.
    """
    z = trajectory[-1]  # z̄_T' = z*_T'
    null = model.embed("").expand(len(z), -1, -1)
    c = start.detach().expand(len(z), -1, -1)
    # float16 gradients of a small loss vanish unless it is scaled up
    scale = 2.0**12 if model.dtype == torch.float16 else 1.0
    embeddings, losses = [], []

    for rung in progress(rungs[::-1], "tuning"):
        pivot = trajectory[rung.k - 1]  # z*_{t-1}
        with torch.no_grad():
            eps_null = model.predict_noise(z, rung.t, null)  # once a step: it doesn't depend on c

        land = partial(guided_step, model, z, rung, eps_null, guidance)

        c = c.detach().clone().requires_grad_()  # Adam changes it in place
        adam = torch.optim.Adam([c], lr=lr)
        for _ in range(inner_steps):
            c.grad, scale = gradient(land, c, pivot, scale)
            adam.step()  # c_t <- c_t - β ∇ ‖z*_{t-1} - z̄_{t-1}‖²
        c = c.detach()
        with torch.no_grad():
            z = land(c)
        embeddings.append(c)
        losses.append((z - pivot).square().mean(dim=(1, 2, 3)))

    return Tuning(torch.stack(embeddings[::-1]), torch.stack(losses[::-1]).cpu())


def guided_step(
    model: StableDiffusion, z: Tensor, rung: ddim.Rung, eps_null: Tensor, guidance: float, c: Tensor
) -> Tensor:
    """z̄_{t-1}: where the guided step from z̄_t lands under the embedding c (Eqs. 5 and 4)."""
    eps = ddim.guide(eps_null, model.predict_noise(z, rung.t, c), guidance)
    return ddim.step(z, eps, rung.alpha, rung.alpha_prev)


def gradient(
    land: Callable[[Tensor], Tensor], c: Tensor, pivot: Tensor, scale: float
) -> tuple[Tensor, float]:
    """∂/∂c of each row's mean squared distance between land(c) and the pivot, in float32.

    Backpropagation runs on the loss times `scale`, which is halved for as long as the gradient is
    not finite; the scale that served is returned with the (unscaled) gradient.
    Raises FloatingPointError if the loss itself is not finite, or the gradient at no scale.
    """
    while scale >= 2.0**-12:
        with torch.enable_grad():
            loss = len(pivot) * F.mse_loss(land(c), pivot)  # a mean a row, so no row sees another
            if not loss.isfinite():
                break
            (scaled,) = torch.autograd.grad(loss * scale, c)
        if scaled.isfinite().all():
            return scaled / scale, scale
        scale /= 2
    raise FloatingPointError(
        "the tuning is not finite (NaN or infinity): the checkpoint may be damaged, "
        "or try --dtype float32 or bfloat16"
    )
