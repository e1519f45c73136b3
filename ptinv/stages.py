"""What an inversion keeps for later edits, and all that each part of it depends on.

Every method first needs a trajectory z*_0 … z*_T', and some then need more: tuned embeddings, or
what a step misses the trajectory by. A stage makes one of these from a task, and `depends` tells,
from settings and prompt alone, everything that decides how it comes out. A stored part serves a
later edit as long as these are the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .choices import mean_step
from .editing.conditions import constant
from .errors import InputError
from .inversion.ddim import ddim_inversion
from .inversion.noising import noised
from .inversion.null_text import tune_null
from .inversion.prompt_tuning import Tuning, tune_prompt
from .inversion.residuals import residuals
from .sampling import Progress, Walk
from .settings import Settings
from .task import Task

TUNING = "inner_steps", "lr", "lr_decay", "stop_below", "guidance"
Prompt = str | None  # None where an inversion was made without one


@dataclass(frozen=True)
class Trajectory:
    """Makes z*_0 … z*_T', (T'+1, 1, c, h, w)."""

    title: str
    run: Callable[[Task, Progress], Tensor]
    depends: Callable[[Settings, Prompt], dict[str, Any]]


@dataclass(frozen=True)
class Extra:
    """Makes the named tensors that a walk needs besides, from the trajectory."""

    title: str
    run: Callable[[Task, Tensor, Progress], dict[str, Tensor]]
    depends: Callable[[Settings, Prompt], dict[str, Any]]


def _pick(settings: Settings, *names: str) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names}


def _text_on_the_way_up(settings: Settings, prompt: Prompt) -> str:
    """What the picture shows: the source text, else a prompt (of a reconstruction, say)."""
    if not settings.inversion_guidance:
        return ""
    text = settings.source or prompt
    if not text:
        raise InputError("inversion_guidance above 0 needs a text of the picture; give a source")
    return text


def _inverted(task: Task, progress: Progress) -> Tensor:
    text = _text_on_the_way_up(task.settings, task.prompt)
    condition = constant(task.null, task.embed(text))
    guidance = task.settings.inversion_guidance
    return ddim_inversion(task.model, task.z0, task.rungs, condition, guidance, progress)


def _inverted_depends(settings: Settings, prompt: Prompt) -> dict[str, Any]:
    picked = _pick(settings, "steps", "encode_ratio", "inversion_guidance")
    text = _text_on_the_way_up(settings, prompt)
    return picked | ({"source": text} if text else {})


def _noised_depends(settings: Settings, prompt: Prompt) -> dict[str, Any]:
    return _pick(settings, "steps", "encode_ratio", "seed")


def _noised_once(task: Task, progress: Progress) -> Tensor:
    noise = task.noise(stream=0)
    return noised(task.z0, task.rungs, lambda k: noise(0))


def _noised_each(task: Task, progress: Progress) -> Tensor:
    return noised(task.z0, task.rungs, task.noise(stream=0))


def _start_of_tuning(settings: Settings, prompt: Prompt) -> str:
    return {"target": prompt or "", "null": "", "source": settings.source or ""}[
        settings.init_embedding
    ]


def _tuning(
    tune: Callable[..., Tuning], task: Task, trajectory: Tensor, text: Tensor, progress: Progress
) -> dict[str, Tensor]:
    """What tuning leaves, about a text's context and with the task's settings."""
    how = _pick(task.settings, *TUNING)
    tuning = tune(task.model, trajectory, task.rungs, text, progress=progress, **how)
    return {"embeddings": tuning.embeddings, "losses": tuning.losses}


def _tuned(task: Task, trajectory: Tensor, progress: Progress) -> dict[str, Tensor]:
    start = task.embed(_start_of_tuning(task.settings, task.prompt))
    return _tuning(tune_prompt, task, trajectory, start, progress)


def _tuned_depends(settings: Settings, prompt: Prompt) -> dict[str, Any]:
    start = _start_of_tuning(settings, prompt)
    return _pick(settings, *TUNING, "init_embedding") | {"prompt": start}


def _null_tuned(task: Task, trajectory: Tensor, progress: Progress) -> dict[str, Tensor]:
    return _tuning(tune_null, task, trajectory, task.source, progress)


def _null_tuned_depends(settings: Settings, prompt: Prompt) -> dict[str, Any]:
    return _pick(settings, *TUNING, "source")


def _noise_maps(task: Task, trajectory: Tensor, progress: Progress) -> dict[str, Tensor]:
    condition = constant(task.null, task.source)
    walk = Walk(condition, task.settings.inversion_guidance, advance=mean_step(task))
    return {"residuals": residuals(task.model, trajectory, task.rungs, walk, progress)}


def _noise_maps_depend(settings: Settings, prompt: Prompt) -> dict[str, Any]:
    return _pick(settings, "inversion_guidance", "source")


def _offsets(task: Task, trajectory: Tensor, progress: Progress) -> dict[str, Tensor]:
    walk = Walk(constant(task.null, task.source), task.settings.guidance)
    return {"residuals": residuals(task.model, trajectory, task.rungs, walk, progress)}


def _offsets_depend(settings: Settings, prompt: Prompt) -> dict[str, Any]:
    return _pick(settings, "guidance", "source")


INVERTED = Trajectory("DDIM inversion", _inverted, _inverted_depends)
NOISED_ONCE = Trajectory("one Gaussian noise", _noised_once, _noised_depends)
NOISED_EACH = Trajectory("a noise for each step", _noised_each, _noised_depends)
TUNED = Extra("tune c_t", _tuned, _tuned_depends)
NULL_TUNED = Extra("tune ∅_t", _null_tuned, _null_tuned_depends)
OFFSETS = Extra("measure what each step misses", _offsets, _offsets_depend)
NOISE_MAPS = Extra("solve for the noise maps", _noise_maps, _noise_maps_depend)
