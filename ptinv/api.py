"""The verbs: invert a picture, edit it, reconstruct it, generate one; and an edit step by step.

A picture is a PIL image of any size and mode, a path, an array of bytes, or an `Inversion`; a
method is a name, or a row of the table in `methods/table.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Unpack

import torch
from PIL import Image
from torch import Tensor

from .core import pictures
from .core.model import StableDiffusion
from .core.pictures import Picture
from .core.sampling import Step, last
from .cost import Rows
from .errors import InputError
from .methods.masks import paste_back
from .methods.request import (
    SAMPLERS,
    Request,
    opened,
    request_edit,
    request_generation,
    request_inversion,
    request_reconstruction,
)
from .methods.run import begin, prepare, steps_of
from .methods.source import infer
from .methods.stages import Progress, silent
from .methods.table import Method
from .options import Options
from .settings import NAMES, OF_AN_INVERSION, Settings, check_prompt, described
from .storage.inversion import Inversion
from .storage.pictures import save_picture
from .storage.provenance import Recipe, fingerprint, made_with


@dataclass(frozen=True, eq=False)
class Result:
    """An edit that was made, and what is known of the way."""

    model: StableDiffusion
    request: Request
    latent: Tensor  # z_0, (1, c, h, w)
    mask: Tensor | None  # (1, 1, h, w), the last one used; None where the edit shows everywhere
    inversion: Inversion  # whose trajectory it followed
    rows: Rows  # of the UNet that it took, those of an inversion that was given not among them

    @property
    def losses(self) -> Tensor | None:
        """(T', 1), the tuning's mean squared distance to the trajectory; None without a tuning."""
        return self.inversion.losses if self.request.method.extra else None

    @cached_property
    def decoded(self) -> Image.Image:
        """The result in the model's size."""
        return self.model.decode(self.latent)

    @property
    def picture(self) -> Image.Image:
        """The result in the picture's size; with `paste_back` its own pixels outside the mask."""
        original = self.inversion.picture
        made = pictures.resize(self.decoded, original.size)
        if self.request.settings.paste_back and self.mask is not None:
            made = paste_back(original, made, self.mask)
        return made

    def save(self, path: str | Path, record: bool = True) -> None:
        """Writes the picture; with a `record`, a PNG carries what `ptinv again` repeats it from.
        Raises InputError for a path that no picture can be saved at, and OSError."""
        about = record_of(self.model, self.request, self.rows) if record else None
        save_picture(self.picture, path, about)


def record_of(model: StableDiffusion, request: Request, rows: Rows) -> dict[str, str]:
    """Record of how a picture is made, as texts by name; a PNG can carry them."""
    name = "generate" if request.command == "generate" else request.name
    how = request.prompt or "", name, request.settings, made_with(model), input_hash(request)
    return Recipe(request.command, *how).chunks() | {"cost": str(rows)}


def input_hash(request: Request) -> str:
    """Hash of what a picture is made of: with a stored tuning, that is more than pixels."""
    if request.inversion and request.settings.reuse_tuning:
        return request.inversion.digest
    return fingerprint(request.image) if request.image else ""


def invert(
    model: StableDiffusion,
    picture: Picture,
    prompt: str | None = None,
    method: str | Method = "pti",
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Inversion:
    """A picture's trajectory and, given a prompt, whatever else the method makes beforehand.

    prompt: the edit's target, or whatever describes the picture; without one nothing is tuned until
    an edit needs it. Raises InputError, and FloatingPointError if the numbers overflow.
    """
    return begin(model, request_inversion(picture, prompt, method, **options), progress)[1]


def edit(
    model: StableDiffusion,
    picture: Picture | Inversion,
    prompt: str,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Image.Image:
    """The picture as the prompt would have it, in its own size.

    An inversion keeps its trajectory and settings; its embeddings are tuned again for another
    prompt or other settings. method: the inversion's own if none is named, else "auto". Raises
    InputError for an empty prompt, a focus word that isn't in it, or settings out of range, and
    FloatingPointError if the numbers overflow.
    """
    return result(model, picture, prompt, method, progress, **options).picture


def result(
    model: StableDiffusion,
    picture: Picture | Inversion,
    prompt: str,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Result:
    """As `edit`, but everything that is known: the latent, the mask, the losses, the inversion."""
    return run(model, request_edit(picture, prompt, method, **options), progress)


def steps(
    model: StableDiffusion,
    picture: Picture | Inversion,
    prompt: str,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Iterator[Step]:
    """As `edit`, one step at a time: each `Step` holds z, both predictions, ε̃ and the mask.

    Where a method samples a source beside the target, latents have a row for each, target last. The
    inversion is made before the first step comes. Raises as `edit`, at once where it can.
    """
    request = request_edit(picture, prompt, method, **options)

    def walk() -> Iterator[Step]:
        edit, _ = begin(model, request, progress)
        yield from steps_of(request.method, edit, edit.trajectory[-1], progress)

    return walk()


def infer_source(
    model: StableDiffusion, picture: Picture | Inversion, prompt: str, among: Iterable[str] = ()
) -> str:
    """The prompt as a text of the picture: its new words replaced by what is there, if any are.

    among: the words to choose from; by default the model's own. How it is done, and by what papers,
    is in `methods/source.py`. Raises InputError as `edit`.
    """
    check_prompt(prompt, "what the picture should become")
    if stored := isinstance(picture := opened(picture), Inversion):
        picture.check_fits(model)
    z0 = picture.trajectory[0].to(model.device) if stored else model.encode(picture)
    return infer(model, z0, prompt, list(among or ()))


def reconstruct(
    model: StableDiffusion,
    picture: Picture | Inversion,
    prompt: str | None = None,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Image.Image:
    """The picture as the method gives it back unedited, in its own size: `edit` at η = 0.

    method: "pti" for a picture; also "ddim" (sampling with the prompt alone) or "vae", the ceiling.
    Nothing is masked unless a mask is given. Raises as `edit`, but takes an empty prompt.
    """
    return run(model, request_reconstruction(picture, prompt, method, **options), progress).picture


def generate(
    model: StableDiffusion,
    prompt: str,
    *,
    start: Tensor | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Image.Image:
    """A picture from noise, the same for the same seed.

    The option `size` is brought to what the model can walk. start: z_T (1, c, h, w) in the noise's
    place. With the option `source`, another prompt, the picture is an edit of that one's by
    Prompt-to-Prompt. Raises InputError as `edit`, and for what only such an edit has a use for.
    """
    request = request_generation(prompt, **options)
    return model.decode(run_generation(model, request, progress, start)[-1:])


def run(model: StableDiffusion, request: Request, progress: Progress = silent) -> Result:
    """Makes a requested edit or reconstruction."""
    made = request
    if request.method is SAMPLERS["vae"]:  # no step: the picture is encoded and decoded
        made = replace(request, settings=Settings(encode_ratio=0.0, mask=None), inversion=None)
    edit, inversion = begin(model, made, progress)
    z, mask = edit.trajectory[-1], None
    for step in steps_of(request.method, edit, z, progress):
        z, mask = step.z, step.mask if step.mask is not None else mask
    request = replace(request, settings=(edit if made is request else request).settings)
    return Result(model, request, z[-1:], mask, inversion, edit.rows)


def run_generation(
    model: StableDiffusion,
    request: Request,
    progress: Progress = silent,
    start: Tensor | None = None,
) -> Tensor:
    """z_0 of a requested picture, after its source's if there is one: (1 or 2, c, h, w)."""
    edit = prepare(model, request)
    shape = 1, model.unet.config.latent_channels, *edit.latent_size
    g = torch.Generator("cpu").manual_seed(request.settings.seed)
    noise = torch.randn(shape, generator=g, dtype=torch.float32, device="cpu")
    start = torch.as_tensor(noise if start is None else start).to(model.device, torch.float32)
    if start.shape != shape:
        raise InputError(f"the start must be of shape {shape}, not {tuple(start.shape)}")
    return last(steps_of(request.method, edit, start, progress), start)


for _verb in (invert, edit, result, steps, reconstruct, generate):
    _about = described(OF_AN_INVERSION if _verb is invert else NAMES)
    _verb.__doc__ = f"{_verb.__doc__}\n    Options, with their defaults:\n{_about}\n    "
