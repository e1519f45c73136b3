"""The verbs: invert a picture, edit it, reconstruct it, or generate one.

Each takes a method by name and runs that row of the table in `methods.py`. What is decided on the
way (which words an edit is about, that an old tuning doesn't fit) is logged, not printed.
"""

import logging
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from . import ddim, images
from .editing.conditions import constant
from .editing.controls import chained, reweight
from .editing.masks import FixedMask, LocalBlend
from .errors import InputError
from .inversion.ddim import ddim_inversion
from .inversion.prompt_tuning import tune_prompt
from .inversion.record import Inversion, pixels_of
from .methods import Method, find
from .model import StableDiffusion
from .sampling import Progress, last, silent, walk_down
from .settings import NAMES, OF_THE_TRAJECTORY, OF_THE_TUNING, Settings
from .text import LENGTH, is_little, noun_phrase

log = logging.getLogger(__name__)


@torch.no_grad()
def invert(
    model: StableDiffusion,
    image: Image.Image,
    prompt: str = "",
    method: str = "pti",
    progress: Progress = silent,
    **options,
) -> Inversion:
    """Walks a picture up its DDIM trajectory and, where the method tunes, tunes c_t for a prompt.

    image: of any size and mode. prompt: the edit's target, or for a mere reconstruction whatever
    describes the picture. options: the fields of `Settings`; those that only an edit has a use for
    are not kept.
    Raises InputError for settings out of range and FloatingPointError if the numbers overflow.
    """
    row = find(method)
    settings = row.settings(**options)
    model.warn_of_words(prompt)
    image = images.to_rgb(image)
    trajectory = ddim_inversion(
        model,
        model.encode(image),
        ddim.ladder(settings.steps, settings.encode_ratio),
        progress,
    )
    kept = {name: getattr(settings, name) for name in OF_THE_TRAJECTORY}
    kept |= {"model": model.name, "prompt": prompt, "guidance": settings.guidance}
    inversion = Inversion(pixels_of(image), trajectory, kept)
    return tune(model, inversion, prompt, settings, progress) if row.tunes else inversion


def tune(
    model: StableDiffusion,
    inversion: Inversion,
    prompt: str,
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
        settings=inversion.settings | {"prompt": prompt} | kept,
        embeddings=tuning.embeddings,
        losses=tuning.losses,
    )


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
    if not prompt.strip():
        raise InputError("the prompt is empty; say what the picture should become")
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
    if method == "vae":
        Settings(**options)
        z0 = picture.trajectory[:1] if stored else model.encode(picture)
        return z0.to(model.device), picture.picture.size if stored else images.to_rgb(picture).size
    if prompt is None:
        prompt = picture.settings.get("prompt", "") if stored else ""
    method = "ddim-global" if method == "ddim" else method
    options = {"mask": None, **options, "eta": 0.0}
    z0, inversion = sample(model, picture, prompt, method, progress, **options)
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
    row = find(method)
    if isinstance(picture, Inversion):
        stored = {name: picture.settings[name] for name in NAMES if name in picture.settings}
        settings, image = row.settings(**{**stored, **options}), picture.picture
        model.warn_of_words(prompt)
    else:
        settings, image = row.settings(**options), images.to_rgb(picture)

    # what may refuse a word or a mask comes before the long work
    tokens = _focus_tokens(model, prompt, settings) if row.blends else []
    factors = _factors(model, prompt, settings) if row.blends else None
    mask = _given_mask(model, image, settings) if row.blends else None
    if isinstance(picture, Inversion):
        inversion = _tuned_for(model, picture, prompt, row, settings, progress)
    else:
        inversion = invert(model, image, prompt, method, progress, **vars(settings))

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


def _tuned_for(
    model: StableDiffusion,
    inversion: Inversion,
    prompt: str,
    row: Method,
    settings: Settings,
    progress: Progress,
) -> Inversion:
    """A stored inversion as it is, or tuned (again) where the row needs what it doesn't hold."""
    width, height = model.picture_size(inversion.picture.size)
    cells = (model.unet.config.latent_channels, height // model.pixels_per_cell)
    if inversion.trajectory.shape[1:] != (*cells, width // model.pixels_per_cell):
        raise InputError("the inversion was made with another model; invert the picture anew")
    for name in OF_THE_TRAJECTORY:
        if getattr(settings, name) != inversion.settings[name]:
            raise InputError(
                f"the inversion was made with {name} {inversion.settings[name]}, "
                f"not {getattr(settings, name)}; invert the picture anew"
            )
    if not row.tunes:
        return inversion
    wanted = {name: getattr(settings, name) for name in OF_THE_TUNING}
    if settings.init_embedding == "target":
        wanted["prompt"] = prompt
    if settings.init_embedding != "source":
        del wanted["source"]
    if inversion.embeddings is not None:
        if all(inversion.settings[name] == value for name, value in wanted.items()):
            return inversion
        log.info("the inversion was tuned for another prompt or other settings: tuning again")
    return tune(model, inversion, prompt, settings, progress)


def _focus_tokens(model: StableDiffusion, prompt: str, settings: Settings) -> list[int]:
    """Where in the prompt the words are that the automatic mask follows; none for no such mask."""
    if settings.mask != "auto":
        return []
    words = settings.focus or _guessed_focus(model, prompt, settings.source)
    if not words:
        log.warning("no word of the prompt says what the edit is about: editing everywhere")
        return []
    tokens = model.tokenizer.find(words, prompt)
    log.info("the edit is about: %s", words)
    return tokens


def _guessed_focus(model: StableDiffusion, prompt: str, source: str | None) -> str:
    """The words that the source text lacks, else the prompt's first noun phrase."""
    words = [word.text for word in model.tokenizer.read(prompt)]
    there = {word.text for word in model.tokenizer.words(source or "")}
    new = [word for word in words if word not in there and not is_little(word)]
    return " ".join(new if source and new else noun_phrase(words))


def _factors(model: StableDiffusion, prompt: str, settings: Settings) -> Tensor | None:
    """What to multiply each token's attention by, (77,); None for nothing."""
    if not settings.reweight:
        return None
    factors = torch.ones(LENGTH)
    for word, factor in settings.reweight.items():
        factors[model.tokenizer.find(word, prompt)] = factor
    return factors


def _given_mask(model: StableDiffusion, image: Image.Image, settings: Settings) -> Tensor | None:
    """The user's own mask at the latent's size, (1, 1, h, w); None where there is none."""
    if not isinstance(settings.mask, Image.Image):
        return None
    mask = images.to_rgb(settings.mask)
    if mask.size != image.size:
        raise InputError(
            f"the mask is {mask.size[0]} × {mask.size[1]} pixels but the picture "
            f"is {image.size[0]} × {image.size[1]}; draw it over the picture"
        )
    width, height = model.picture_size(image.size)
    cells = width // model.pixels_per_cell, height // model.pixels_per_cell
    return images.to_mask(mask, cells).to(model.device)
