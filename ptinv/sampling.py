"""The one walk. Every method goes down the same DDIM trajectory and differs in what it plugs in:

    condition   k -> (∅_k, c_k), the contexts of guidance's two sides on rung k
    control     (k, rows) -> an attention control for that rung's call, or None
    after       (k, z_k) -> z_k, what becomes of the latent that a step has reached

Shapes: a latent is (b, c, h, w) with a row a branch; contexts are (b, 77, d). In the UNet's batch
the ∅ rows come first and the branches' rows after; `rows` names each, so no control has to guess.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from . import ddim
from .attention import Control
from .model import StableDiffusion

Condition = Callable[[int], tuple[Tensor, Tensor]]
Rows = tuple[str, ...]
ControlAt = Callable[[int, Rows], Control | None]
After = Callable[[int, Tensor], Tensor]
Progress = Callable[[Iterable, str], Iterable]  # wraps a loop, as tqdm does


def silent(loop: Iterable, label: str) -> Iterable:
    """The progress of nobody."""
    return loop


def guided_noise(
    model: StableDiffusion,
    z: Tensor,
    rung: ddim.Rung,
    contexts: tuple[Tensor, Tensor],
    guidance: float,
    control: ControlAt | None = None,
    branches: Rows = ("target",),
) -> Tensor:
    """ε̃ of Eq. 5, from one call of the UNet for both sides; from one side where ω needs no other.

    A control sees both sides whatever ω is.
    """
    null, cond = contexts
    if control is None and guidance in (0, 1):
        return model.predict_noise(z, rung.t, cond if guidance else null)
    rows = ("null",) * len(z) + branches
    hook = control(rung.k, rows) if control else None
    both = model.predict_noise(torch.cat([z, z]), rung.t, torch.cat([null, cond]), hook)
    return ddim.guide(*both.chunk(2), guidance)


def walk_up(
    model: StableDiffusion,
    z: Tensor,
    rungs: Iterable[ddim.Rung],
    condition: Condition,
    guidance: float,
) -> Iterator[Tensor]:
    """DDIM inversion, Eq. 6: yields z*_1, …, z*_T' from z_0. ε is asked at the noisier end."""
    for rung in rungs:
        eps = guided_noise(model, z, rung, condition(rung.k), guidance)
        z = ddim.step(z, eps, rung.alpha_prev, rung.alpha)
        yield z


def walk_down(
    model: StableDiffusion,
    z: Tensor,
    rungs: Iterable[ddim.Rung],
    condition: Condition,
    guidance: float,
    control: ControlAt | None = None,
    after: After | None = None,
    branches: Rows = ("target",),
) -> Iterator[Tensor]:
    """DDIM sampling, Eq. 4: yields z_{T'-1}, …, z_0. Give it the rungs noisiest first."""
    for rung in rungs:
        eps = guided_noise(model, z, rung, condition(rung.k), guidance, control, branches)
        z = ddim.step(z, eps, rung.alpha, rung.alpha_prev)
        if after is not None:
            z = after(rung.k - 1, z)
        yield z


def last(latents: Iterable[Tensor]) -> Tensor:
    """The latent in which a walk ends."""
    for latent in latents:
        z = latent
    return z
