"""The one loop, in both directions: `invert` up the schedule (Eq. 6), `sample` down it (Eqs. 2, 4).

Every method samples along the same schedule and differs in what it plugs in:

    condition   k -> (∅_k, c_k), the embeddings on guidance's two sides at z_k
    control     (k, rows) -> an attention control for that call of the UNet, or None
    guide       (ε_∅, ε_c, ω) -> ε̃: Eq. 5, or a variant of it
    advance     (timestep, z_k, ε̃) -> z_{k-1}: Eq. 4's deterministic step, or the ancestral Eq. 2
    after       Step -> Step, rules for the latent that a step has reached

Shapes: a latent is (b, c, h, w), where each row is a branch (or a picture); embeddings are
(b or 1, 77, d). In the UNet's batch the ∅ rows come first and the branches' rows after; `rows`
names each of them, so that no control has to guess: ("null:source", "null:target", "source",
"target").
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import ddim
from .attention import Control
from .ddim import Timestep
from .model import StableDiffusion

Schedule = Iterable[Timestep]
Guidance = float | Callable[[int], float]  # ω; or k -> ω of the step that leaves z_k
Condition = Callable[[int], tuple[Tensor, Tensor]]
Branches = tuple[str, ...]
ControlAt = Callable[[int, Branches], Control | None]
Guide = Callable[[Tensor, Tensor, float], Tensor]
Advance = Callable[[Timestep, Tensor, Tensor], Tensor]
After = Callable[["Step"], "Step"]
NoiseAt = Callable[[int], Tensor]  # k -> Gaussian noise (1, c, h, w) for the step that leaves z_k


@dataclass(frozen=True, eq=False)
class Step:
    """One step that was made, with everything that it was made of."""

    timestep: Timestep
    z_from: Tensor  # (b, c, h, w), where it began: z_k on the way down, z_{k-1} on the way up
    z: Tensor  # (b, c, h, w), where it ended, after every rule
    eps_null: Tensor  # (b, c, h, w), Eq. 5's two predictions; one tensor where ω needs only one
    eps_cond: Tensor
    eps: Tensor  # ε̃, the noise that the step was made with
    mask: Tensor | None = None  # (b or 1, 1, h, w), where an edit was let through; None: everywhere

    @property
    def k(self) -> int:
        """The step's number, 1 (next to the picture) … T'."""
        return self.timestep.k

    @property
    def z0(self) -> Tensor:
        """f_θ(z_from, ε̃): the clean latent that the step aims at, (b, c, h, w)."""
        return ddim.predict_z0(self.z_from, self.eps, self.timestep.alpha_from)


def constant(null: Tensor, cond: Tensor) -> Condition:
    """The same pair of embeddings at every step: plain classifier-free guidance."""
    return lambda k: (null, cond)


def deterministic(timestep: Timestep, z: Tensor, eps: Tensor) -> Tensor:
    """Eq. 4: DDIM."""
    return ddim.step(z, eps, timestep.alpha_from, timestep.alpha_to)


def ancestral(noise: NoiseAt) -> Advance:
    """Eq. 2: DDPM on DDIM's timesteps; every step takes noise away and adds some that is fresh."""

    def advance(timestep: Timestep, z: Tensor, eps: Tensor) -> Tensor:
        ends = timestep.alpha_from, timestep.alpha_to
        return ddim.step(z, eps, *ends, ddim.ancestral_sigma(*ends), noise(timestep.k).to(z))

    return advance


@torch.no_grad()
def sample(
    model: StableDiffusion,
    z: Tensor,
    schedule: Schedule,
    condition: Condition,
    guidance: Guidance = 7.5,
    *,
    control: ControlAt | None = None,
    guide: Guide = ddim.guide,
    advance: Advance = deterministic,
    after: Iterable[After] = (),
    branches: Branches = (),
) -> Iterator[Step]:
    """Sampling: yields the steps to z_{T'-1}, …, z_0 from z_T'; the schedule is noisiest first.

    guidance: ω, of all steps or by step. after: rules that are applied one after the other.
    branches: a name for each row of z, by which controls tell the rows apart; without names all of
    them are "target". Raises ValueError unless there is a branch a row.
    """
    branches = branches or ("target",) * len(z)
    if len(branches) != len(z):
        raise ValueError(f"{len(z)} rows of the latent, but branches {branches}")
    rows = (*(f"null:{branch}" for branch in branches), *branches)
    for timestep in schedule:
        k, t = timestep.k, timestep.t
        w = guidance(k) if callable(guidance) else guidance
        null, cond = (side.expand(len(z), *side.shape[1:]) for side in condition(k))
        if control is None and guide is ddim.guide and w in (0, 1):  # Eq. 5 needs only one side
            eps_null = eps_cond = model.predict_noise(z, t, cond if w else null)
        else:  # one call for both
            hook = control(k, rows) if control else None
            both = model.predict_noise(torch.cat([z, z]), t, torch.cat([null, cond]), hook)
            eps_null, eps_cond = both.chunk(2)
        eps = guide(eps_null, eps_cond, w)
        step = Step(timestep, z, advance(timestep, z, eps), eps_null, eps_cond, eps)
        for rule in after:
            step = rule(step)
        yield step
        z = step.z


def invert(
    model: StableDiffusion, z: Tensor, schedule: Schedule, condition: Condition, guidance: Guidance
) -> Iterator[Step]:
    """DDIM inversion, Eq. 6: `sample` with the ends of each step exchanged, clean end first.

    Yields the steps to z*_1, …, z*_T' from z_0. An exact inverse of a step down would need
    ε at z_k, not known yet. At z_{k-1}, for z_k's timestep, it is nearly the same; that is lost.
    """
    upwards = (timestep.upwards for timestep in schedule)
    return sample(model, z, upwards, condition, guidance)


def last(steps: Iterable[Step], start: Tensor) -> Tensor:
    """The latent that steps from `start` end in."""
    for step in steps:
        start = step.z
    return start
