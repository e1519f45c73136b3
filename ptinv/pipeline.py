"""The verbs that make pictures: edit one, reconstruct it, or generate one.

Each takes a method by name and runs that row of the table in `methods.py`.
"""

import torch
from PIL import Image
from torch import Tensor

from . import ddim, images
from .editing import subject
from .editing.conditions import constant
from .editing.controls import chained, reweight
from .editing.masks import FixedMask, LocalBlend
from .inversion.record import Inversion
from .inverting import inverted, settings_of, tuned_for
from .methods import find
from .model import StableDiffusion
from .sampling import Progress, last, silent, walk_down
from .settings import Settings, check_prompt

# what `reconstruct` calls sampling without a tuning, and whose settings a mere round trip takes
SAMPLERS = {"ddim": "ddim-global", "vae": "ddim-global"}


def edit(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str = "pti",
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
    z0, inversion = sample(model, picture, prompt, method, progress, **options)
    return images.resize(model.decode(z0), inversion.picture.size)


def reconstruct(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str | None = None,
    method: str = "pti",
    progress: Progress = silent,
    **options,
) -> Image.Image:
    """The picture as the method gives it back unedited, in its own size: `edit` at η = 0.

    method: a row of the table, "ddim" (sampling with the prompt alone) or "vae" (only encoded and
    decoded: the ceiling of all others). Nothing is masked unless a mask is given. Raises as `edit`,
    but takes an empty prompt.
    """
    z0, size = reconstructed_latent(model, picture, prompt, method, progress, **options)
    return images.resize(model.decode(z0), size)


def settings_of_reconstruction(
    picture: Image.Image | Inversion, method: str, **options
) -> Settings:
    """What `reconstruct` runs a method with. Raises as `settings_of`."""
    options = {"mask": None, **options, "eta": 0.0}
    return settings_of(picture, SAMPLERS.get(method, method), **options)


def own_prompt(picture: Image.Image | Inversion) -> str:
    """What an inversion was made for; nothing for a picture."""
    return picture.settings["prompt"] or "" if isinstance(picture, Inversion) else ""


def reconstructed_latent(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str | None = None,
    method: str = "pti",
    progress: Progress = silent,
    **options,
) -> tuple[Tensor, tuple[int, int]]:
    """What `reconstruct` decodes, z_0 (1, c, h, w), and the picture's own (width, height)."""
    stored = isinstance(picture, Inversion)
    settings = settings_of_reconstruction(picture, method, **options)
    if method == "vae":
        z0 = picture.trajectory[:1] if stored else model.encode(picture)
        return z0.to(model.device), picture.picture.size if stored else images.to_rgb(picture).size
    if prompt is None:
        prompt = own_prompt(picture)
    method = SAMPLERS.get(method, method)
    z0, inversion = sample(model, picture, prompt, method, progress, **vars(settings))
    return z0, inversion.picture.size


@torch.no_grad()
def sample(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str = "pti",
    progress: Progress = silent,
    **options,
) -> tuple[Tensor, Inversion]:
    """Runs one row of the table: z_0 (1, c, h, w), and the inversion that the walk followed."""
    row, settings = find(method), settings_of(picture, method, **options)
    check_prompt(prompt)
    model.warn_of_words(prompt)
    stored = isinstance(picture, Inversion)
    image = picture.picture if stored else images.to_rgb(picture)
    # what may refuse a word or a mask comes before the long work
    tokens = subject.focus_tokens(model, prompt, settings) if row.blends else []
    factors = subject.factors(model, prompt, settings) if row.blends else None
    mask = subject.given_mask(model, image, settings) if row.blends else None
    if stored:
        inversion = tuned_for(model, picture, prompt, method, settings, progress)
    else:
        inversion = inverted(model, image, prompt, method, settings, progress)

    trajectory = inversion.trajectory.to(model.device)
    controls, after = [], None
    if tokens:
        level = model.unet.config.mask_level
        rule = LocalBlend(trajectory, tokens, level, settings.mask_threshold)
        controls, after = [rule.control], rule.after
    if mask is not None:
        after = FixedMask(trajectory, mask).after
    if factors is not None:
        controls.append(reweight(factors))
    z0 = last(
        walk_down(
            model,
            trajectory[-1:],
            progress(inversion.rungs[::-1], "sampling"),
            row.condition(inversion, model.embed(""), model.embed(prompt), settings.eta),
            settings.guidance,
            chained(controls),
            after,
        )
    )
    return z0, inversion


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
    condition = constant(model.embed(""), model.embed(prompt))
    return model.decode(last(walk_down(model, z, rungs, condition, guidance)))
