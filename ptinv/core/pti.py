"""Prompt Tuning Inversion (Dong et al., arXiv 2305.04441): the paper on one page.

    stage 1   z*_0 … z*_T'   DDIM inversion without a prompt (Eq. 6): the trajectory
              c_1 … c_T'     Algorithm 1: tuned so that guided sampling walks back along it
    stage 2   sample from z*_T' under η·c* + (1-η)·c_t (Eq. 9), blending with z*_t (§3.4)

`edit_latent` is both stages. The paper's t = 1 … T' is `k` here; the UNet is given `t`, up to 981.

Why tuning is needed: unguided (ω = 0), sampling retraces its inversion but for ε's change between a
step's two ends. Guided at ω = 7.5 it moves along ε_∅ + 7.5 (ε_c - ε_∅), which is another ε than the
inversion's at every step: it leaves the trajectory at once, and each later step starts from a
latent that the inversion never visited. The tuned c_t makes the guided ε̃ the one that leads back.
The networks stay frozen, so whatever the prompt cannot say is written into c_t.

Where the paper is silent: c starts at c*, because only then does "β = 0 reverts to DDIM-Edit" hold;
Adam is made anew at each timestep; the loss is the mean over the latent. With N = 1 Adam's step is
β·g / (|g| + 10⁻⁸): most numbers of c move by nearly β, and only their gradient's sign decides.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from einops import reduce
from torch import Tensor

from ..errors import not_finite
from . import ddim
from .ddim import Timestep
from .model import StableDiffusion
from .sampling import Condition, Guidance, Schedule, Step, constant, invert, last, sample

Side = Literal["null", "cond"]
Land = Callable[[Tensor], Tensor]  # an embedding -> where the guided step lands with it


def ddim_inversion(
    model: StableDiffusion, z0: Tensor, schedule: Schedule, condition: Condition, guidance: Guidance
) -> Tensor:
    """z_0 (b, c, h, w) -> the trajectory z*_0 … z*_T' as (T'+1, b, c, h, w).

    The paper inverts without a prompt (ω = 0), so that it serves every later prompt; another ω is
    what its Table 1 varies. Raises FloatingPointError if the trajectory is not finite.
    """
    steps = invert(model, z0, schedule, condition, guidance)
    trajectory = torch.stack([z0, *(step.z for step in steps)])
    if not trajectory.isfinite().all():
        raise not_finite("the inversion")
    return trajectory


class Tuning(NamedTuple):
    """An embedding a step, and how near each step then lands."""

    embeddings: Tensor  # (T', b, 77, d); embeddings[k - 1] takes z_k to z_{k-1}
    losses: Tensor  # (T', b), mean squared distance to z*_{k-1} after each step's tuning


def guided_step(
    model: StableDiffusion,
    z: Tensor,
    timestep: Timestep,
    eps_other: Tensor,
    guidance: float,
    c: Tensor,
    side: Side = "cond",
) -> Tensor:
    """z̄_{t-1}: where the guided step from z̄_t lands with the embedding c on a side (Eqs. 5, 4)."""
    eps = model.predict_noise(z, timestep.t, c)
    both = (eps_other, eps) if side == "cond" else (eps, eps_other)
    return ddim.step(z, ddim.guide(*both, guidance), timestep.alpha_from, timestep.alpha_to)


def gradient(land: Land, c: Tensor, pivot: Tensor, scale: float) -> tuple[Tensor, Tensor, float]:
    """∂/∂c of each row's mean squared distance between land(c) and the pivot, in float32.

    Backpropagation runs on the loss times `scale`, since float16 gradients of a small loss vanish;
    it is halved for as long as the gradient is not finite. Returns the (unscaled) gradient, each
    row's loss (b,), and the scale that served.
    Raises FloatingPointError if the loss itself is not finite, or the gradient at no scale.
    """
    while scale >= 2.0**-12:
        with torch.enable_grad():
            losses = reduce((land(c) - pivot).square(), "b ... -> b", "mean")
            if not losses.isfinite().all():
                break
            (scaled,) = torch.autograd.grad(losses.sum() * scale, c)  # rows are independent
        if scaled.isfinite().all():
            return scaled / scale, losses.detach(), scale
        scale /= 2
    raise not_finite("the tuning")


@torch.inference_mode(False)  # whatever the caller's: `gradient` needs gradients
@torch.no_grad()
def tune(
    model: StableDiffusion,
    trajectory: Tensor,
    schedule: Schedule,
    start: Tensor,
    other: Tensor,
    *,
    side: Side = "cond",
    inner_steps: int = 1,
    lr: float = 0.1,
    guidance: Guidance = 7.5,
    lr_decay: float = 0.0,
    stop_below: float = 0.0,
) -> Tuning:
    """Algorithm 1, about one side of guidance; rows of a batch share nothing but `stop_below`.

    "cond": c_t from `start` = c*, beside `other` = ∅. "null": Null-Text Inversion (2211.09794), ∅_t
    from ∅, beside a text of the picture. trajectory: (T'+1, b, c, h, w); schedule: noisiest first;
    start, other: (b or 1, 77, d). inner_steps: N. lr: β. guidance: ω, of all steps or by step.
    Null-Text Inversion's, with i steps done: β is times 1 - i·lr_decay, and a step ends once all
    losses are below stop_below·(1 + 2i), at 10⁻⁵ as in its code. Raises FloatingPointError on NaN.
    """
    z = trajectory[-1]  # z̄_T' = z*_T'
    other, c = other.expand(len(z), -1, -1), start.expand(len(z), -1, -1)
    scale = 2.0**12 if model.dtype == torch.float16 else 1.0  # see `gradient`
    embeddings, losses = [], []
    for i, timestep in enumerate(schedule):  # t = T', …, 1
        pivot = trajectory[timestep.k - 1]  # z*_{t-1}, where this step should land
        eps_other = model.predict_noise(z, timestep.t, other)  # once: c does not change it
        w = guidance(timestep.k) if callable(guidance) else guidance
        land = partial(guided_step, model, z, timestep, eps_other, w, side=side)
        c = c.detach().clone().requires_grad_()  # c_t, from c_{t+1}
        adam = torch.optim.Adam([c], lr=lr * max(0.0, 1 - i * lr_decay))
        for _ in range(inner_steps):  # N times, Eqs. 7-8
            c.grad, loss, scale = gradient(land, c, pivot, scale)  # ∇_c ‖z*_{t-1} - z̄_{t-1}‖²
            with torch.device("cpu"):  # an older torch counts steps on the default device
                adam.step()  # c moves downhill, most of its numbers by about β
            if stop_below and loss.max() < stop_below * (1 + 2 * i):  # it waits for a GPU
                break
        c = c.detach()
        z = land(c)  # z̄_{t-1}: the next step starts where this one really lands
        embeddings.append(c)
        losses.append((z - pivot).square().mean(dim=(1, 2, 3)))
    return Tuning(torch.stack(embeddings[::-1]), torch.stack(losses[::-1]).cpu())


def interpolate(null: Tensor, tuned: Tensor, target: Tensor, eta: float) -> Condition:
    """Eq. 9: η·c* + (1-η)·c_t. η = 0 walks back to the picture, η = 1 is the target alone.

    tuned: c_1 … c_T', (T', b, 77, d). target: c*, (1, 77, d). Exact at both ends, and at every η
    where the two are equal.
    """
    return lambda k: (null, torch.lerp(tuned[k - 1], target.expand_as(tuned[k - 1]), eta))


def blend(step: Step, mask: Tensor, background: Tensor) -> Step:
    """Local blending, §3.4: z_{t-1} <- M · z_{t-1} + (1-M) · z*_{t-1}.

    mask: M, (b or 1, 1, h, w), 1 where the edit may show. background: z*_{t-1}, (b or 1, c, h, w).
    Exact where the mask is 1 and where it is 0.
    """
    z = step.z
    blended = torch.lerp(background.expand_as(z), z, mask.to(z).expand_as(z))
    return replace(step, z=blended, mask=mask)


@torch.no_grad()
def edit_latent(
    model: StableDiffusion,
    z0: Tensor,
    prompt: str,
    *,
    eta: float = 0.9,
    guidance: Guidance = 7.5,
    steps: int = 50,
    encode_ratio: float = 0.8,
    inner_steps: int = 1,
    lr: float = 0.1,
    mask: Tensor | None = None,
) -> Tensor:
    """A picture's latent z_0 (1, c, h, w) as the prompt would have it: both stages, in order.

    The defaults are the paper's. mask: (1, 1, h, w), where the edit may show; None: everywhere.
    Raises ValueError if the encode ratio leaves none of the steps.
    """
    if not (schedule := ddim.schedule(steps, encode_ratio)):
        raise ValueError(f"encode_ratio {encode_ratio} leaves none of the {steps} steps")
    null, target = model.embed(""), model.embed(prompt)  # ∅ and c*
    # stage 1: the trajectory, and the embeddings that make guided sampling follow it back
    trajectory = ddim_inversion(model, z0, schedule, constant(null, null), 0.0)
    how = dict(inner_steps=inner_steps, lr=lr, guidance=guidance)
    tuned = tune(model, trajectory, schedule[::-1], target, null, **how).embeddings
    # stage 2: back down from its noisy end, under a mixture of c* and c_t
    condition = interpolate(null, tuned, target, eta)
    after = [] if mask is None else [lambda step: blend(step, mask, trajectory[step.k - 1])]
    walk = sample(model, trajectory[-1], schedule[::-1], condition, guidance, after=after)
    return last(walk, trajectory[-1])
