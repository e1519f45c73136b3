"""Prompt Tuning Inversion, stage 1: the tuning of the paper's Algorithm 1, and Eqs. 7-8.

Guided sampling (ω = 7.5) leaves the trajectory of an unguided inversion at once. Tuning brings it
back: at each step the conditional embedding c_t is moved until the guided step lands on the
trajectory. The networks stay frozen, so whatever the prompt cannot say is written into c_t.

Where the paper is silent: c starts at c*, the target's embedding, because only then does "β = 0
reverts to DDIM-Edit" hold; Adam is made anew at each timestep; the loss is the mean over the latent
of the squared error. With N = 1 Adam's step is β·g / (|g| + 10⁻⁸): every coordinate of c whose
gradient is well above 10⁻⁸ moves by nearly β, the sign deciding and not the size.

Which side of guidance is learned is an argument of the loop: Null-Text Inversion (`null_text.py`)
is the same loop about the other one.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from einops import reduce
from torch import Tensor

from .. import ddim
from ..model import StableDiffusion
from ..sampling import Progress, silent

Side = Literal["null", "cond"]


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
    lr_decay: float = 0.0,
    stop_below: float = 0.0,
) -> Tuning:
    """Tunes c_t for every step of the trajectory z*_0 … z*_T', (T'+1, b, c, h, w).

    start: c*, or another embedding (b or 1, 77, d) to begin from. inner_steps: N. lr: β.
    guidance: ω. The last two are Null-Text Inversion's, and off in the paper's algorithm; see
    `tune`, also for what is raised.
    """
    null = model.embed("")
    return tune(
        model,
        trajectory,
        rungs,
        side="cond",
        start=start,
        other=null,
        inner_steps=inner_steps,
        lr=lr,
        lr_decay=lr_decay,
        stop_below=stop_below,
        guidance=guidance,
        progress=progress,
    )


def tune(
    model: StableDiffusion,
    trajectory: Tensor,
    rungs: list[ddim.Rung],
    side: Side,
    start: Tensor,
    other: Tensor,
    *,
    inner_steps: int,
    lr: float,
    lr_decay: float,
    stop_below: float,
    guidance: float,
    progress: Progress,
) -> Tuning:
    """The loop of Algorithm 1 for an embedding c_t on one side of guidance; each row by itself.

    start: where c_T' begins. other: the context of the side that stays; both (b or 1, 77, d).
    lr_decay: the share of β that is lost with each step, i being the steps done: β·(1 - i·decay).
    stop_below: tuning a step ends once every row's loss is below stop_below·(1 + 2i).
    Raises FloatingPointError as `gradient`.
    """
    z = trajectory[-1]  # z̄_T' = z*_T'
    other = other.expand(len(z), -1, -1)
    c = start.detach().expand(len(z), -1, -1)
    # float16 gradients of a small loss vanish unless it is scaled up
    scale = 2.0**12 if model.dtype == torch.float16 else 1.0
    embeddings, losses = [], []

    for i, rung in enumerate(progress(rungs[::-1], "tuning")):  # t = T', …, 1
        pivot = trajectory[rung.k - 1]  # z*_{t-1}
        with torch.no_grad():
            eps_other = model.predict_noise(z, rung.t, other)  # once a step: c doesn't change it

        land = partial(guided_step, model, z, rung, eps_other, guidance, side=side)

        c = c.detach().clone().requires_grad_()  # begins where c_{t+1} ended; Adam changes it
        adam = torch.optim.Adam([c], lr=lr * max(0.0, 1 - i * lr_decay))
        for _ in range(inner_steps):  # N times
            c.grad, loss, scale = gradient(land, c, pivot, scale)
            adam.step()  # c_t moves by β along Adam's mean of ∇‖z*_{t-1} - z̄_{t-1}‖², downhill
            if loss.max() < stop_below * (1 + 2 * i):
                break
        c = c.detach()
        with torch.no_grad():
            z = land(c)  # z̄_{t-1}
        embeddings.append(c)
        losses.append((z - pivot).square().mean(dim=(1, 2, 3)))

    return Tuning(torch.stack(embeddings[::-1]), torch.stack(losses[::-1]).cpu())


def guided_step(
    model: StableDiffusion,
    z: Tensor,
    rung: ddim.Rung,
    eps_other: Tensor,
    guidance: float,
    c: Tensor,
    side: Side = "cond",
) -> Tensor:
    """z̄_{t-1}: where the guided step from z̄_t lands with the embedding c on a side (Eqs. 5, 4)."""
    eps = model.predict_noise(z, rung.t, c)
    both = (eps_other, eps) if side == "cond" else (eps, eps_other)
    return ddim.step(z, ddim.guide(*both, guidance), rung.alpha, rung.alpha_prev)


def gradient(
    land: Callable[[Tensor], Tensor], c: Tensor, pivot: Tensor, scale: float
) -> tuple[Tensor, Tensor, float]:
    """∂/∂c of each row's mean squared distance between land(c) and the pivot, in float32.

    Backpropagation runs on the loss times `scale`, which is halved for as long as the gradient is
    not finite. Returns the (unscaled) gradient, each row's loss (b,), and the scale that served.
    Raises FloatingPointError if the loss itself is not finite, or the gradient at no scale.
    """
    while scale >= 2.0**-12:
        with torch.enable_grad():
            losses = reduce((land(c) - pivot).square(), "b ... -> b", "mean")
            if not losses.isfinite().all():
                break
            (scaled,) = torch.autograd.grad(losses.sum() * scale, c)  # no row sees another
        if scaled.isfinite().all():
            return scaled / scale, losses.detach(), scale
        scale /= 2
    raise FloatingPointError(
        "the tuning is not finite (NaN or infinity): the checkpoint may be damaged, "
        "or try --dtype float32 or bfloat16"
    )
