"""What an edit is about: the words that its mask follows or that it weighs, or the user's own mask.

Each refuses, with InputError, what isn't there, before any long work. Which words were chosen is
logged.
"""

import logging

import torch
from PIL import Image
from torch import Tensor

from .. import images
from ..errors import InputError
from ..model import StableDiffusion
from ..settings import Settings
from ..text import LENGTH, is_little, noun_phrase

log = logging.getLogger(__name__)


def focus_tokens(model: StableDiffusion, prompt: str, settings: Settings) -> list[int]:
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


def factors(model: StableDiffusion, prompt: str, settings: Settings) -> Tensor | None:
    """What to multiply each token's attention by, (77,); None for nothing."""
    if not settings.reweight:
        return None
    each = torch.ones(LENGTH)
    for word, factor in settings.reweight.items():
        each[model.tokenizer.find(word, prompt)] = factor
    return each


def given_mask(model: StableDiffusion, image: Image.Image, settings: Settings) -> Tensor | None:
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
