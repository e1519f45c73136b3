"""One picture and one prompt, with all that is known before the walk: what a method's row sees.

Whatever a user gave that can't be used (a word that isn't in the prompt, a mask of another size)
is refused here, with InputError, before any long work. What was guessed is logged.
"""

import logging
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from . import ddim, images
from .editing import masks
from .editing.controls import chained, reweight
from .errors import InputError
from .inversion.noising import fresh_noise
from .model import StableDiffusion
from .sampling import ControlAt, NoiseAt
from .settings import Settings
from .text import LENGTH, new_words, noun_phrase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a walk is made from."""

    model: StableDiffusion
    image: Image.Image  # RGB, in its own size
    prompt: str
    settings: Settings

    def __post_init__(self):
        for text in (self.prompt, self.settings.source or ""):
            self.model.warn_of_words(text)
        self.focus, self.factors, self.given_mask  # refused now, if at all  # noqa: B018

    @property
    def rungs(self) -> list[ddim.Rung]:
        """The steps of the walk, clean end first."""
        return ddim.ladder(self.settings.steps, self.settings.encode_ratio)

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w) of the latent."""
        width, height = self.model.picture_size(self.image.size)
        return height // self.model.pixels_per_cell, width // self.model.pixels_per_cell

    @cached_property
    def attention(self) -> masks.AttentionLog:
        """What this one walk hears of attention."""
        return masks.AttentionLog(self.model.unet.config.mask_level)

    @cached_property
    def z0(self) -> Tensor:
        """The encoded picture, (1, c, h, w)."""
        return self.model.encode(self.image)

    @cached_property
    def null(self) -> Tensor:
        """∅, the empty prompt's context (1, 77, d)."""
        return self.model.embed("")

    @cached_property
    def target(self) -> Tensor:
        """c*, the prompt's."""
        return self.embed(self.prompt)

    @cached_property
    def source(self) -> Tensor:
        """The context of what the picture shows; ∅ where nothing tells."""
        return self.embed(self.settings.source or "")

    def embed(self, text: str) -> Tensor:
        """A text's context (1, 77, d); the empty one is known already."""
        return self.model.embed(text) if text else self.null

    def noise(self, stream: int) -> NoiseAt:
        """Gaussian noise (1, c, h, w) for each rung; independent streams have other numbers."""
        shape = (1, self.model.unet.config.latent_channels, *self.cells)
        return fresh_noise(self.settings.seed, stream, shape)

    @cached_property
    def focus(self) -> list[int]:
        """Where in the prompt the words are that an attention mask follows."""
        settings, tokenizer = self.settings, self.model.tokenizer
        if "attention" not in settings.mask_names:
            return []
        if settings.focus:
            found = tokenizer.find(settings.focus, self.prompt)
            log.info("the edit is about: %s", settings.focus)
            return found
        words = tokenizer.read(self.prompt)
        chosen = new_words(words, tokenizer.words(settings.source)) if settings.source else []
        chosen = chosen or noun_phrase(words)
        if not chosen:
            log.warning("no word of the prompt says what the edit is about: editing everywhere")
        else:
            log.info("the edit is about: %s", " ".join(word.text for word in chosen))
        return [position for word in chosen for position in word.positions]

    @cached_property
    def factors(self) -> Tensor | None:
        """What to multiply each token's attention by, (77,); None for nothing."""
        if not self.settings.reweight:
            return None
        each = torch.ones(LENGTH)
        for word, factor in self.settings.reweight.items():
            each[self.model.tokenizer.find(word, self.prompt)] = factor
        return each

    @cached_property
    def given_mask(self) -> Tensor | None:
        """The user's own mask over the latent's cells, (1, 1, h, w); None where there is none."""
        if not isinstance(self.settings.mask, Image.Image):
            return None
        mask = images.to_rgb(self.settings.mask)
        if mask.size != self.image.size:
            raise InputError(
                f"the mask is {mask.size[0]} × {mask.size[1]} pixels but the picture "
                f"is {self.image.size[0]} × {self.image.size[1]}; draw it over the picture"
            )
        return images.to_mask(mask, self.cells[::-1]).to(self.model.device)

    @cached_property
    def mask(self) -> masks.Mask | None:
        """Where the edit may show; None for everywhere."""
        settings = self.settings
        if settings.mask_expression is None:
            return None
        if settings.mask_names == {"attention"} and not self.focus:
            return None
        mask = masks.combined(settings.mask_expression, self._named_mask)
        if settings.mask_dilate or settings.mask_feather:
            mask = masks.softened(mask, settings.mask_dilate, settings.mask_feather)
        return mask

    def _named_mask(self, name: str) -> masks.Mask:
        settings, steps = self.settings, len(self.rungs)
        if name == "file":
            return masks.fixed(self.given_mask)
        if name == "attention" and not self.focus:
            return masks.fixed(torch.ones(1, 1, *self.cells, device=self.model.device))
        if name == "attention":
            by_object = settings.mask_relative_to == "object"
            return masks.of_attention(
                self.attention, self.focus, self.cells, steps, settings.mask_threshold, by_object
            )
        shares = masks.noise_difference(
            self.model,
            self.z0,
            self.source,
            self.target,
            settings.steps,
            self.noise(stream=2),
            settings.mask_draws,
            settings.mask_clamp,
        )
        return masks.fixed(masks.thresholded(shares, settings.mask_threshold))

    @property
    def control(self) -> ControlAt | None:
        """Listening for the mask, where it is made of attention, and re-weighting."""
        controls: list[ControlAt] = []
        if self.focus:
            controls.append(self.attention.control)
        if self.factors is not None:
            controls.append(reweight(self.factors))
        return chained(controls)
