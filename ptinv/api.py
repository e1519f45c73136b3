"""The verbs: invert a picture, edit it, reconstruct it, generate one; and an edit step by step.

A picture is a PIL image of any size and mode, or an `Inversion`; a method a name, or a row of the
table in `methods/table.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from .core import pictures
from .core.model import StableDiffusion
from .core.sampling import Step, last
from .methods.masks import paste_back
from .methods.request import (
    Picture,
    Request,
    request_edit,
    request_generation,
    request_inversion,
    request_reconstruction,
)
from .methods.run import begin, prepare, run_inversion, steps_of
from .methods.stages import Progress, silent
from .methods.table import Method
from .settings import Settings
from .storage.inversion import Inversion


@dataclass(frozen=True)
class Result:
    """An edit that was made, and what is known of the way."""

    model: StableDiffusion
    request: Request
    latent: Tensor  # z_0, (1, c, h, w)
    mask: Tensor | None  # (1, 1, h, w), the last one used; None where the edit shows everywhere
    inversion: Inversion  # whose trajectory it followed

    @property
    def settings(self) -> Settings:
        return self.request.settings

    @property
    def losses(self) -> Tensor | None:
        """(T', 1), the tuning's mean squared distance to the trajectory; None without a tuning."""
        return self.inversion.losses

    @cached_property
    def decoded(self) -> Image.Image:
        """The result in the model's size."""
        return self.model.decode(self.latent)

    @property
    def picture(self) -> Image.Image:
        """The result in the picture's size; with `paste_back` its own pixels outside the mask."""
        original = self.inversion.picture
        made = pictures.resize(self.decoded, original.size)
        if self.settings.paste_back and self.mask is not None:
            made = paste_back(original, made, self.mask)
        return made


def invert(
    model: StableDiffusion,
    picture: Image.Image,
    prompt: str | None = None,
    method: str | Method = "pti",
    progress: Progress = silent,
    **options,
) -> Inversion:
    """A picture's trajectory and, given a prompt, whatever else the method makes beforehand.

    prompt: the edit's target, or whatever describes the picture; without one nothing is tuned until
    an edit needs it. Options that only an edit uses are not kept. Raises InputError for settings
    out of range and FloatingPointError if the numbers overflow.
    """
    return run_inversion(model, request_inversion(picture, prompt, method, **options), progress)


def edit(
    model: StableDiffusion,
    picture: Picture,
    prompt: str,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options,
) -> Image.Image:
    """The picture as the prompt would have it, in its own size.

    An inversion keeps its trajectory and settings; its embeddings are tuned again for another
    prompt or other settings. method: the inversion's own if none is named, else "pti". options: the
    fields of `ptinv.Settings`.
    Raises InputError for an empty prompt, a focus word that isn't in it, or settings out of range,
    and FloatingPointError if the numbers overflow.
    """
    return result(model, picture, prompt, method, progress, **options).picture


def result(
    model: StableDiffusion,
    picture: Picture,
    prompt: str,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options,
) -> Result:
    """As `edit`, but everything that is known: the latent, the mask, the losses, the inversion."""
    return run(model, request_edit(picture, prompt, method, **options), progress)


def steps(
    model: StableDiffusion,
    picture: Picture,
    prompt: str,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options,
) -> Iterator[Step]:
    """As `edit`, one step at a time: each `Step` holds z, both predictions, ε̃ and the mask.

    Where a method samples a source beside the target, latents have a row for each, target last.
    The inversion is made before the first step comes. Raises as `edit`, at once where it can.
    """
    request = request_edit(picture, prompt, method, **options)

    def walk() -> Iterator[Step]:
        edit, _ = begin(model, request, progress)
        yield from steps_of(request.row, edit, edit.trajectory[-1], progress)

    return walk()


def reconstruct(
    model: StableDiffusion,
    picture: Picture,
    prompt: str | None = None,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options,
) -> Image.Image:
    """The picture as the method gives it back unedited, in its own size: `edit` at η = 0.

    method: as in `edit`, or "ddim" (sampling with the prompt alone) or "vae" (only encoded and
    decoded: the ceiling). Nothing is masked unless a mask is given. Raises as `edit`, but takes an
    empty prompt.
    """
    return run(model, request_reconstruction(picture, prompt, method, **options), progress).picture


def generate(
    model: StableDiffusion,
    prompt: str,
    seed: int = 0,
    steps: int = 50,
    guidance: float = 7.5,
    progress: Progress = silent,
    source: str | None = None,
    **options,
) -> Image.Image:
    """A picture from noise, in the size the model was trained on; the same for the same seed.

    source: another prompt, of whose picture from the same noise this is to be an edit, by
    Prompt-to-Prompt. options: the fields of `Settings` that shape it.
    Raises InputError as `edit`, and for what only such an edit has a use for without a source.
    """
    options |= dict(seed=seed, steps=steps, guidance=guidance, source=source)
    request = request_generation(prompt, **options)
    return model.decode(run_generation(model, request, progress)[-1:])


def run(model: StableDiffusion, request: Request, progress: Progress = silent) -> Result:
    """Makes a requested edit or reconstruction."""
    if request.method == "vae":  # no step: the picture is encoded and decoded
        request = replace(request, settings=Settings(encode_ratio=0.0, mask=None), inversion=None)
    edit, inversion = begin(model, request, progress)
    z, mask = edit.trajectory[-1], None
    for step in steps_of(request.row, edit, z, progress):
        z, mask = step.z, step.mask if step.mask is not None else mask
    latent = z[-1:]
    if mask is None and edit.is_masked:  # no step was made, so the edit shows nowhere
        mask = torch.zeros_like(latent[:, :1])
    return Result(model, request, latent, mask, inversion)


@torch.no_grad()
def run_generation(model: StableDiffusion, request: Request, progress: Progress = silent) -> Tensor:
    """z_0 of a requested picture, after its source's if there is one: (1 or 2, c, h, w)."""
    edit = prepare(model, request)
    g = torch.Generator().manual_seed(request.settings.seed)
    shape = 1, model.unet.config.latent_channels, *edit.latent_size
    start = torch.randn(shape, generator=g).to(model.device)
    return last(steps_of(request.row, edit, start, progress), start)
