"""The one walk. Every method goes down the same trajectory and differs in what it plugs in:

    condition   k -> (∅_k, c_k), the contexts of guidance's two sides on rung k
    control     (k, rows) -> an attention control for that rung's call, or None
    guide       (ε_∅, ε_c, ω) -> ε̃: Eq. 5, or a variant of it
    advance     (rung, z_k, ε̃) -> z_{k-1}: the deterministic step of Eq. 4, or the ancestral Eq. 2
    after       step -> z_{k-1}, what becomes of the latent that a step has reached

Shapes: a latent is (b, c, h, w) with a row a branch (or a picture, or both); contexts are
(b or 1, 77, d); a trajectory z*_0 … z*_T' is (T'+1, b, c, h, w). In the UNet's batch the ∅ rows
come first and the branches' rows after; `rows` names each, so no control has to guess.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import ddim
from .attention import Control
from .ddim import Rung
from .model import StableDiffusion

Condition = Callable[[int], tuple[Tensor, Tensor]]
Rows = tuple[str, ...]
ControlAt = Callable[[int, Rows], Control | None]
Guide = Callable[[Tensor, Tensor, float], Tensor]
Advance = Callable[[Rung, Tensor, Tensor], Tensor]
NoiseAt = Callable[[int], Tensor]  # k -> Gaussian noise for rung k
Progress = Callable[[Iterable, str], Iterable]  # wraps a loop, as tqdm does


@dataclass(frozen=True)
class Step:
    """One step that has been made, as the rules that come after it see it."""

    rung: Rung  # from z_k to z_{k-1}
    z: Tensor  # z_{k-1}
    eps_null: Tensor  # the two predictions of Eq. 5; one and the same where ω asked for only one
    eps_cond: Tensor


After = Callable[[Step], Tensor]


def deterministic(rung: Rung, z: Tensor, eps: Tensor) -> Tensor:
    """Eq. 4: DDIM."""
    return ddim.step(z, eps, rung.alpha, rung.alpha_prev)


def ancestral(noise: NoiseAt) -> Advance:
    """Eq. 2: DDPM on DDIM's timesteps; every step takes noise away and adds some that is new."""

    def advance(rung: Rung, z: Tensor, eps: Tensor) -> Tensor:
        sigma = ddim.ancestral_sigma(rung.alpha, rung.alpha_prev)
        return ddim.step(z, eps, rung.alpha, rung.alpha_prev, sigma, noise(rung.k).to(z))

    return advance


@dataclass(frozen=True)
class Walk:
    """All that tells one way down from another."""

    condition: Condition
    guidance: float = 7.5  # ω
    control: ControlAt | None = None
    guide: Guide = ddim.guide
    advance: Advance = deterministic
    after: tuple[After, ...] = ()  # one after the other
    branches: Rows = ()  # a name a row of the latent; none: all of them "target"


def silent(loop: Iterable, label: str) -> Iterable:
    """The progress of nobody."""
    return loop


def predictions(
    model: StableDiffusion,
    z: Tensor,
    rung: Rung,
    contexts: tuple[Tensor, Tensor],
    guidance: float,
    control: ControlAt | None = None,
    branches: Rows = (),
) -> tuple[Tensor, Tensor]:
    """(ε_∅, ε_c) of Eq. 5 from one call of the UNet; the same twice where ω needs only one side.

    A control sees both sides whatever ω is. Raises ValueError unless there is a branch a row.
    """
    null, cond = (side.expand(len(z), *side.shape[1:]) for side in contexts)
    if control is None and guidance in (0, 1):
        eps = model.predict_noise(z, rung.t, cond if guidance else null)
        return eps, eps
    branches = branches or ("target",) * len(z)
    if len(branches) != len(z):
        raise ValueError(f"{len(z)} rows of the latent, but branches {branches}")
    hook = control(rung.k, ("null",) * len(z) + branches) if control else None
    both = model.predict_noise(torch.cat([z, z]), rung.t, torch.cat([null, cond]), hook)
    return both.chunk(2)


def walk_up(
    model: StableDiffusion,
    z: Tensor,
    rungs: Iterable[Rung],
    condition: Condition,
    guidance: float,
) -> Iterator[Tensor]:
    """DDIM inversion, Eq. 6: yields z*_1, …, z*_T' from z_0. ε is asked at the noisier end."""
    for rung in rungs:
        eps = ddim.guide(*predictions(model, z, rung, condition(rung.k), guidance), guidance)
        z = ddim.step(z, eps, rung.alpha_prev, rung.alpha)
        yield z


def walk_down(
    model: StableDiffusion, z: Tensor, rungs: Iterable[Rung], walk: Walk
) -> Iterator[Tensor]:
    """Sampling: yields z_{T'-1}, …, z_0 from z_T'. Give it the rungs noisiest first."""
    for rung in rungs:
        eps_null, eps_cond = predictions(
            model, z, rung, walk.condition(rung.k), walk.guidance, walk.control, walk.branches
        )
        z = walk.advance(rung, z, walk.guide(eps_null, eps_cond, walk.guidance))
        for rule in walk.after:
            z = rule(Step(rung, z, eps_null, eps_cond))
        yield z


def last(latents: Iterable[Tensor], start: Tensor) -> Tensor:
    """The latent in which a walk from `start` ends."""
    z = start
    for latent in latents:
        z = latent
    return z
