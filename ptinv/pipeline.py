"""The verbs that make pictures: edit one, reconstruct it, or generate one.

Each takes a method, by name or as a row, and runs that row of the table in `methods.py`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from . import ddim, images
from .editing.conditions import constant
from .editing.rules import blended
from .inversion.record import Inversion
from .inverting import fitted, inverted, settings_of
from .methods import Method, find
from .model import StableDiffusion
from .sampling import Progress, Walk, last, silent, walk_down
from .settings import Settings, check_prompt
from .task import Task

# other names that `reconstruct` takes: sampling without a tuning, and a mere round trip
SAMPLERS = {"ddim": "ddim-global", "vae": "ddim-global"}


@dataclass(frozen=True)
class Result:
    """Where a walk ended, and what can be seen of the way."""

    model: StableDiffusion
    z0: Tensor  # (1, c, h, w)
    inversion: Inversion  # whose trajectory it followed
    mask: Tensor | None  # (1, 1, h, w), the last one used
    settings: Settings

    @cached_property
    def decoded(self) -> Image.Image:
        """The result in the model's size."""
        return self.model.decode(self.z0)

    @property
    def picture(self) -> Image.Image:
        """The result in the size of the picture, whose own pixels are put back if so asked."""
        original = self.inversion.picture
        made = images.resize(self.decoded, original.size)
        if self.settings.paste_back and self.mask is not None:
            made = images.paste_back(original, made, self.mask)
        return made


def edit(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str | Method = "pti",
    progress: Progress = silent,
    **options,
) -> Image.Image:
    """The picture as the prompt would have it, in its own size.

    picture: an image of any size and mode, or what `invert` made of it. An inversion keeps its
    trajectory and settings; if its embeddings were tuned for another prompt, or other settings are
    given, they are tuned again. options: the fields of `Settings`.
    Raises InputError for an empty prompt, a focus word that isn't in it, or settings out of range,
    and FloatingPointError if the numbers overflow.
    """
    check_prompt(prompt, "what the picture should become")
    settings = settings_of(picture, method, prompt, **options)
    return run(model, picture, prompt, method, settings, progress).picture


def reconstruct(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str | None = None,
    method: str | Method = "pti",
    progress: Progress = silent,
    **options,
) -> Image.Image:
    """The picture as the method gives it back unedited, in its own size: `edit` at η = 0.

    method: a row of the table, "ddim" (sampling with the prompt alone) or "vae" (only encoded and
    decoded: the ceiling of all others). Nothing is masked unless a mask is given. Raises as `edit`,
    but takes an empty prompt.
    """
    prompt = own_prompt(picture) if prompt is None else prompt
    settings = settings_of_reconstruction(picture, prompt, method, **options)
    return unedited(model, picture, prompt, method, settings, progress).picture


def settings_of_reconstruction(
    picture: Image.Image | Inversion, prompt: str, method: str | Method, **options
) -> Settings:
    """What `reconstruct` runs a method with. Raises as `settings_of`.

    What a method keeps of the steps that it misses leads back only where it samples with what it
    inverted with: the prompt then is the source text, and ω is the same both ways.
    """
    row = find(method, SAMPLERS)
    if "mask_from" not in options:
        options = {"mask": None, **options}
    options = {**options, "eta": 0.0}
    if row.keeps_residuals:
        guidance = row.settings(**options).guidance
        options = {"source": prompt or None, "inversion_guidance": guidance, **options}
    return settings_of(picture, row, prompt, **options)


def own_prompt(picture: Image.Image | Inversion) -> str:
    """What an inversion was made for; nothing for a picture."""
    return picture.settings["prompt"] or "" if isinstance(picture, Inversion) else ""


def unedited(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str | Method,
    settings: Settings,
    progress: Progress = silent,
) -> Result:
    """What `reconstruct` shows, with settings from `settings_of_reconstruction`."""
    if method == "vae":
        check_prompt(prompt)
        settings = Settings(encode_ratio=0.0, mask=None)
        picture = picture.picture if isinstance(picture, Inversion) else picture
    return run(model, picture, prompt, find(method, SAMPLERS), settings, progress)


@torch.no_grad()
def run(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str | Method,
    settings: Settings,
    progress: Progress = silent,
) -> Result:
    """One row of the table: inverts where there is no inversion yet, then walks down."""
    check_prompt(prompt)
    row = find(method)
    stored = isinstance(picture, Inversion)
    image = picture.picture if stored else images.to_rgb(picture)
    task = Task(model, image, prompt, settings)
    if stored:
        inversion = fitted(picture, task, method, progress)
    else:
        inversion = inverted(task, method, prompt, progress)
    found = inversion.on(model.device)
    trajectory, mask, seen = found["trajectory"], task.mask, []
    rules = row.after(task, found)
    if mask is not None:
        rules += (blended(trajectory, mask, seen.append),)
    walk = Walk(
        row.condition(task, found),
        settings.guidance,
        task.control,
        row.advance(task),
        rules,
    )
    rungs = progress(task.rungs[::-1], "sampling")
    z0 = last(walk_down(model, trajectory[-1], rungs, walk), trajectory[-1])
    if mask is not None and not seen:  # no step was made, so the edit shows nowhere
        seen.append(torch.zeros_like(z0[:, :1]))
    return Result(model, z0, inversion, seen[-1] if seen else None, settings)


@torch.no_grad()
def generate(
    model: StableDiffusion,
    prompt: str,
    seed: int = 0,
    steps: int = 50,
    guidance: float = 7.5,
    progress: Progress = silent,
) -> Image.Image:
    """A picture from noise, in the size the model was trained on; the same for the same seed."""
    settings = Settings(seed=seed, steps=steps, guidance=guidance)
    model.warn_of_words(prompt)
    config = model.unet.config
    side, g = config.trained_size, torch.Generator().manual_seed(settings.seed)
    z = torch.randn(1, config.latent_channels, side, side, generator=g).to(model.device)
    rungs = progress(ddim.ladder(steps)[::-1], "sampling")
    walk = Walk(constant(model.embed(""), model.embed(prompt)), guidance)
    return model.decode(last(walk_down(model, z, rungs, walk), z))
