"""Stages: what is made of a picture before sampling, once for many edits.

Every method needs a trajectory z*_0 … z*_T'. Besides DDIM inversion, noise makes one (Eq. 1, §3.2):
it forgets the picture, and sampled back becomes another one that shares its broad strokes, of which
SDEdit (arXiv 2108.01073) makes a virtue. Some methods need more: tuned embeddings, or residuals,
what a step from the trajectory misses it by: r_k = z*_{k-1} - step(z*_k). Sampling that adds r_k
after each step returns to z*_0, whatever guides it, but for rounding, which grows with ω:

    edit-friendly DDPM inversion (arXiv 2304.06140)   the trajectory is noised with independent
        noises and the step is the mean of the ancestral one; r_k = σ_k z_k is the noise map, and
        sampling for the target prompt adds it to its own means; the last one is kept, where
        the authors' code sets it to 0 and so misses the picture
    Direct (PnP) inversion (arXiv 2310.01506)         the trajectory is DDIM's and the step DDIM's;
        r_k is added on the source branch alone

A stage lists settings and texts that it uses, its key: what is stored serves all edits of that key.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core import ddim
from ..core.ddim import Timestep
from ..core.pti import Side, ddim_inversion, tune
from ..core.sampling import Advance, Guidance, NoiseAt, ancestral, constant, deterministic, sample
from ..errors import Doubt, InputError, is_full, remark
from ..settings import OF_AN_INVERSION, Settings
from .edit import Edit

Progress = Callable[[Iterable, str], Iterable]  # wraps a loop, as tqdm does
Made = dict[str, Tensor]  # by name


def noised(z0: Tensor, schedule: list[Timestep], noise: NoiseAt) -> Tensor:
    """Eq. 1 at every timestep: z_0 (b, c, h, w) -> z_0, z_1, … z_T' as (T'+1, b, c, h, w)."""
    upwards = (ddim.add_noise(z0, noise(step.k).to(z0), step.alpha_from) for step in schedule)
    return torch.stack([z0, *upwards])


def mean_step(timestep: Timestep, z: Tensor, eps: Tensor) -> Tensor:
    """Eq. 2 without the noise that it would add: the mean of the ancestral step."""
    return ancestral(lambda k: torch.zeros((), device="cpu"))(timestep, z, eps)


def residuals(
    e: Edit, progress: Progress, guidance: Guidance, advance: Advance = deterministic
) -> Tensor:
    """r_1 … r_T', (T', b, c, h, w): each step for the source text starts on the trajectory anew."""
    condition, missed = constant(e.null, e.source), []
    for timestep in progress(e.schedule, "residuals"):
        z = e.trajectory[timestep.k]
        (step,) = sample(e.model, z, [timestep], condition, guidance, advance=advance)
        missed.append(e.pivot(step) - step.z)
    return torch.stack(missed)


def inversion_text(settings: Settings, prompt: str | None) -> dict[str, str]:
    """The text that guides the way up: the source text, else a prompt (a reconstruction's, say)."""
    text = (settings.source or prompt or "") if settings.inversion_guidance else ""
    if settings.inversion_guidance and not text:
        raise InputError("inversion_guidance above 0 needs a text of the picture; give a source")
    return {"source": text}


def tuning_text(settings: Settings, prompt: str | None) -> dict[str, str]:
    """The text at whose embedding c_T' starts, by the option that gives it."""
    texts = {"target": {"prompt": prompt or ""}, "source": {"source": settings.source or ""}}
    return texts.get(settings.init_embedding, {})  # ∅ is among the settings


def silent(loop: Iterable, label: str) -> Iterable:
    """Shows no progress."""
    return loop


TUNING = ("inner_steps", "lr", "lr_decay", "stop_below")
GUIDANCE = ("guidance", "guidance_gate", "negative")
NOISE = ("steps", "encode_ratio", "size", "seed")


@dataclass(frozen=True)
class Stage:
    """Makes named tensors, each (T', 1, …), of an edit and those that it has already; the stage of
    a trajectory makes (T'+1, 1, …). An edit's cells find them as `e.made[name]`."""

    title: str  # what an inversion's file knows it by; another stage has another
    uses: tuple[str, ...]  # settings
    make: Callable[[Edit, Progress], Made]
    # a text that it uses and that is not a setting as it is, by the option that a user gives
    text: Callable[[Settings, str | None], dict[str, str]] = lambda settings, prompt: {}
    makes: tuple[str, ...] = ()  # the tensors that a stored inversion is not whole without

    def __post_init__(self):
        if unknown := set(self.uses) - set(OF_AN_INVERSION):  # no inversion keeps them
            raise ValueError(f"a stage cannot use {', '.join(sorted(unknown))}")

    def key(self, settings: Settings, prompt: str | None) -> dict[str, Any]:
        """Everything that decides how the tensors come out, by the option that a user gives. Raises
        InputError where a text that it needs is not given. prompt: None without one."""
        values = {name: getattr(settings, name) for name in self.uses}
        return values | self.text(settings, prompt)


def _inverted(e: Edit, progress: Progress) -> Made:
    condition = constant(e.empty, e.model.embed(inversion_text(e.settings, e.prompt)["source"]))
    loop, guidance = progress(e.schedule, "inverting"), e.settings.inversion_guidance
    return {"trajectory": ddim_inversion(e.model, e.z0, loop, condition, guidance)}


def _tuned(e: Edit, progress: Progress, side: Side, start: Tensor, other: Tensor) -> Made:
    how = {name: getattr(e.settings, name) for name in TUNING}
    how |= dict(guidance=e.guidance, side=side)
    loop = progress(e.schedule[::-1], "tuning")
    try:
        return tune(e.model, e.trajectory, loop, start, other, **how)._asdict()
    except (MemoryError, RuntimeError) as error:
        if e.model.checkpointing or not is_full(error):
            raise
    remark("the memory is full; tuning anew in less of it, which takes a third longer", Doubt)
    e = replace(e, model=replace(e.model, checkpointing=True))
    return _tuned(e, progress, side, start, other)


# fmt: off
INVERTED = Stage("DDIM inversion", ("steps", "encode_ratio", "size", "inversion_guidance"),
    _inverted, inversion_text)
NOISED_ONCE = Stage("one Gaussian noise", NOISE,
    lambda e, _: {"trajectory": noised(e.z0, e.schedule, lambda k: e.noise(stream=0)(0))})
NOISED_EACH = Stage("a noise for each step", NOISE,
    lambda e, _: {"trajectory": noised(e.z0, e.schedule, e.noise(stream=0))})
TUNED = Stage("tune c_t", (*TUNING, *GUIDANCE, "init_embedding"),
    lambda e, p: _tuned(e, p, "cond", getattr(e, e.settings.init_embedding), e.null), tuning_text,
    makes=("embeddings",))
NULL_TUNED = Stage("tune ∅_t", (*TUNING, *GUIDANCE, "source"),
    lambda e, p: _tuned(e, p, "null", e.null, e.source), makes=("embeddings",))
OFFSETS = Stage("measure what each step misses", (*GUIDANCE, "source"),
    lambda e, p: {"residuals": residuals(e, p, e.guidance)}, makes=("residuals",))
NOISE_MAPS = Stage("solve for the noise maps", ("inversion_guidance", "source", "negative"),
    lambda e, p: {"residuals": residuals(e, p, e.settings.inversion_guidance, mean_step)},
    makes=("residuals",))
# fmt: on
