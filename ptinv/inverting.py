"""From a picture, or from what is stored of one, to the inversion that a method needs.

An inversion is walked and tuned once and serves many edits; what a later edit asks for decides
whether its tuning still fits. What is decided is logged, not printed.
"""

import logging
from dataclasses import replace

import torch
from PIL import Image

from . import ddim, images
from .errors import InputError
from .inversion.ddim import ddim_inversion
from .inversion.prompt_tuning import tune_prompt
from .inversion.record import Inversion, pixels_of
from .methods import find
from .model import StableDiffusion
from .provenance import made_with
from .sampling import Progress, silent
from .settings import OF_THE_TRAJECTORY, OF_THE_TUNING, Settings, check_prompt

log = logging.getLogger(__name__)


def settings_of(picture: Image.Image | Inversion, method: str, **options) -> Settings:
    """The given options over the method's defaults; an inversion's own settings come in between.

    Those are what its trajectory was walked with and, if the same method tuned it, how.
    Raises InputError for settings out of range, or that an inversion was not made with.
    """
    row = find(method)
    if not isinstance(picture, Inversion):
        settings = row.settings(**options)
        if settings.reuse_tuning:
            raise InputError("reuse_tuning needs an inversion in the picture's place; give one")
        return settings
    stored = picture.settings
    alike = find(stored["method"]) is row
    names = OF_THE_TRAJECTORY + (OF_THE_TUNING if alike else ())
    settings = row.settings(**{**{name: stored[name] for name in names}, **options})
    for name in OF_THE_TRAJECTORY:
        if getattr(settings, name) != stored[name]:
            raise InputError(
                f"{name} {getattr(settings, name)} is not what the inversion was made with, "
                f"{stored[name]}; leave it out, or invert the picture anew"
            )
    if settings.reuse_tuning and row.tunes and not (alike and picture.embeddings is not None):
        raise InputError("reuse_tuning finds no tuning of this method in the inversion")
    return settings


@torch.no_grad()
def invert(
    model: StableDiffusion,
    image: Image.Image,
    prompt: str | None = None,
    method: str = "pti",
    progress: Progress = silent,
    **options,
) -> Inversion:
    """Walks a picture up its DDIM trajectory and, where the method tunes, tunes c_t for a prompt.

    image: of any size and mode. prompt: the edit's target, or for a mere reconstruction whatever
    describes the picture; without one nothing is tuned until an edit needs it. options: the fields
    of `Settings`; those that only an edit has a use for are not kept.
    Raises InputError for settings out of range and FloatingPointError if the numbers overflow.
    """
    settings = find(method).settings(**options)
    if prompt is not None:
        check_prompt(prompt)
        model.warn_of_words(prompt)
    image = images.to_rgb(image)
    made = made_with(model)
    return replace(inverted(model, image, prompt, method, settings, progress), made_with=made)


def inverted(
    model: StableDiffusion,
    image: Image.Image,
    prompt: str | None,
    method: str,
    settings: Settings,
    progress: Progress,
) -> Inversion:
    """An inversion that doesn't say what it was made with, for which the model's files are read."""
    rungs = ddim.ladder(settings.steps, settings.encode_ratio)
    trajectory = ddim_inversion(model, model.encode(image), rungs, progress)
    kept = {name: getattr(settings, name) for name in OF_THE_TRAJECTORY + OF_THE_TUNING}
    kept |= {"method": method, "prompt": prompt}
    inversion = Inversion(pixels_of(image), trajectory, kept)
    if prompt is None or not find(method).tunes:
        return inversion
    return tune(model, inversion, prompt, method, settings, progress)


def tune(
    model: StableDiffusion,
    inversion: Inversion,
    prompt: str,
    method: str,
    settings: Settings,
    progress: Progress = silent,
) -> Inversion:
    """The same inversion with c_t tuned for a prompt, from its trajectory."""
    starts = {"target": prompt, "null": "", "source": settings.source}
    tuning = tune_prompt(
        model,
        inversion.trajectory.to(model.device),
        inversion.rungs,
        model.embed(starts[settings.init_embedding]),
        settings.inner_steps,
        settings.lr,
        settings.guidance,
        progress,
    )
    kept = {name: getattr(settings, name) for name in OF_THE_TUNING}
    return replace(
        inversion,
        settings=inversion.settings | kept | {"method": method, "prompt": prompt},
        embeddings=tuning.embeddings,
        losses=tuning.losses,
    )


def tuned_for(
    model: StableDiffusion,
    inversion: Inversion,
    prompt: str,
    method: str,
    settings: Settings,
    progress: Progress,
) -> Inversion:
    """A stored inversion as it is, or tuned (again) where the method needs what it doesn't hold."""
    inversion.check_fits(model)
    if not find(method).tunes or settings.reuse_tuning:
        return inversion
    if inversion.embeddings is not None:
        wanted = {name: getattr(settings, name) for name in OF_THE_TUNING} | {"method": method}
        if settings.init_embedding == "target":
            wanted["prompt"] = prompt
        if settings.init_embedding != "source":
            del wanted["source"]
        differ = [name for name, value in wanted.items() if inversion.settings[name] != value]
        if not differ:
            return inversion
        log.info("the inversion was tuned with another %s: tuning again", ", ".join(differ))
    return tune(model, inversion, prompt, method, settings, progress)
