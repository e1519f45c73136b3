"""One picture and one prompt, with all that is known before the walk: what a method's row sees.

Whatever a user gave that can't be used (a word that isn't in the prompt, a mask of another size)
is refused here, with InputError, before any long work. What was guessed is logged.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from PIL import Image
from torch import Tensor

from . import ddim, images
from .editing import masks
from .editing.controls import reweight
from .editing.gates import token_gates
from .editing.prompt_to_prompt import BRANCHES as SIDE_BY_SIDE
from .errors import InputError
from .inversion.noising import fresh_noise
from .model import StableDiffusion
from .sampling import ControlAt, NoiseAt, Rows
from .settings import Settings
from .text import LENGTH, Word, new_words, noun_phrase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a walk is made from."""

    model: StableDiffusion
    image: Image.Image | None  # RGB, in its own size; None for a picture that is generated
    prompt: str
    settings: Settings
    branches: Rows = ("target",)  # of the walk; the last one is the result

    def __post_init__(self):
        for text in (self.prompt, self.settings.source or ""):
            self.model.warn_of_words(text)
        # refused now, if at all
        self.focus, self.source_focus, self.subtracted, self.given_mask  # noqa: B018
        self.factors, self.gates  # noqa: B018

    @property
    def rungs(self) -> list[ddim.Rung]:
        """The steps of the walk, clean end first."""
        return ddim.ladder(self.settings.steps, self.settings.encode_ratio)

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w) of the latent."""
        if self.image is None:
            return (self.model.unet.config.trained_size,) * 2
        width, height = self.model.picture_size(self.image.size)
        return height // self.model.pixels_per_cell, width // self.model.pixels_per_cell

    def cells_up_to(self, side: int) -> float:
        """How many cells a map has that is `side` across at the model's own size, at this size."""
        height, width = self.cells
        return side**2 * height * width / self.model.unet.config.trained_size**2

    @cached_property
    def attention(self) -> masks.AttentionLog:
        """What this one walk hears of attention."""
        return masks.AttentionLog(self.model.unet.config.mask_level)

    @cached_property
    def z0(self) -> Tensor:
        """The encoded picture, (1, c, h, w). Raises InputError where there is none yet."""
        if self.image is None:
            raise InputError("there is no picture yet; a mask of differences needs one")
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
        if not self._follows_attention:
            return []
        if settings.focus:
            found = tokenizer.find(settings.focus, self.prompt)
            log.info("the edit is about: %s", settings.focus)
            return found
        words = tokenizer.read(self.prompt)
        chosen = new_words(words, tokenizer.words(settings.source)) if settings.source else []
        if not chosen and self.source_focus:
            log.info("the edit is about what the source text says and the prompt doesn't")
            return []
        chosen = chosen or noun_phrase(words)
        if not chosen:
            log.warning("no word of the prompt says what the edit is about: editing everywhere")
        else:
            log.info("the edit is about: %s", " ".join(word.text for word in chosen))
        return _positions(chosen)

    @property
    def _listens(self) -> bool:
        return bool(self.focus or self.source_focus)

    @property
    def _follows_attention(self) -> bool:
        return "attention" in self.settings.mask_names

    @cached_property
    def source_focus(self) -> list[int]:
        """And where in the source text, which then has a branch of its own."""
        settings, tokenizer = self.settings, self.model.tokenizer
        if not self._follows_attention or self.branches != SIDE_BY_SIDE:
            return []
        if settings.source_focus:
            return tokenizer.find(settings.source_focus, settings.source)
        return _positions(new_words(tokenizer.read(settings.source), tokenizer.words(self.prompt)))

    @cached_property
    def subtracted(self) -> dict[str, list[int]]:
        """By branch, the words whose places an attention mask leaves out."""
        words, found = self.settings.subtract, {}
        if not words or not self._follows_attention:
            return found
        for branch in self.branches:
            text = self.settings.source if branch == "source" else self.prompt
            with suppress(InputError):
                found[branch] = self.model.tokenizer.find(words, text)
        return found or {self.branches[-1]: self.model.tokenizer.find(words, self.prompt)}

    @cached_property
    def gates(self) -> Tensor | None:
        """When the target's tokens take the source's attention, (77, 2); None with one branch."""
        if self.branches != SIDE_BY_SIDE:
            return None
        find = self.model.tokenizer.find
        return token_gates(self.settings.cross_replace, lambda words: find(words, self.prompt))

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
        if self.image is not None and mask.size != self.image.size:
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
        if settings.mask_names == {"attention"} and not self._listens:
            return None
        mask = masks.combined(settings.mask_expression, self._named_mask)
        if settings.mask_dilate or settings.mask_feather:
            mask = masks.softened(mask, settings.mask_dilate, settings.mask_feather)
        return mask

    def _named_mask(self, name: str) -> masks.Mask:
        settings = self.settings
        if name == "file":
            return masks.fixed(self.given_mask)
        if name == "attention":
            return self._attention_mask()
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

    def _attention_mask(self) -> masks.Mask:
        """Of the focus words of every branch, without the places of those to subtract."""
        settings, steps = self.settings, len(self.rungs)
        by_object = settings.mask_relative_to == "object"
        here = self.attention, self.cells, steps, settings.mask_threshold, by_object

        def of(branch: str, tokens: list[int], widened: bool = True) -> masks.Mask:
            log, *how = here
            return masks.of_attention(log, tokens, *how, branch, widened)

        seen = [(self.branches[-1], self.focus), ("source", self.source_focus)]
        parts = [of(branch, tokens) for branch, tokens in seen if tokens]
        if not parts:
            return masks.fixed(torch.ones(1, 1, *self.cells, device=self.model.device))
        mask = reduce(masks.union, parts)
        for branch, tokens in self.subtracted.items():
            mask = masks.intersection(mask, masks.inverse(of(branch, tokens, widened=False)))
        return mask

    @property
    def controls(self) -> list[ControlAt]:
        """Listening for the mask, where it is made of attention, then re-weighting.

        In this order: a word's weight changes how much of it is drawn, not where.
        """
        controls: list[ControlAt] = []
        if self._listens:
            controls.append(self.attention.control)
        if self.factors is not None:
            branch = self.branches[-1]
            controls.append(reweight(self.factors, self.gates, len(self.rungs), branch))
        return controls


def _positions(words: list[Word]) -> list[int]:
    """Where the tokens of some words are."""
    return [position for word in words for position in word.positions]
