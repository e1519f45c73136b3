"""A story: what a page tells of an edit, in plain pictures and numbers.

Pictures are in the model's size, or smaller where they stand beside others. A page is made of these
without a model.
"""

from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageOps
from torch import Tensor

import ptinv

FRAMES = 12  # of the steps: those that are shown as pictures
SMALL = (256, 256)  # pixels that a picture beside others has at most


class Guess(NamedTuple):
    """One step of the way up."""

    k: int
    t: int
    latent: Image.Image  # z*_k, decoded as it is
    guess: Image.Image  # f_θ of the step to it


class Walk(NamedTuple):
    """A way down from the noisy end; lists have the noisy end first."""

    guidance: float
    tuned: bool
    distances: list[float]  # at k = T' … 0, root mean square, to z*_k
    frames: list[Image.Image]  # f_θ at the steps that are shown
    picture: Image.Image
    psnr: float


class Tuned(NamedTuple):
    """Algorithm 1 at one step."""

    k: int
    untuned: float  # the loss under c*
    before: float  # the loss under the embedding that the step starts with
    after: float
    moved: float  # ‖c_t - c*‖ / ‖c*‖


class Strength(NamedTuple):
    """The edit by pti at one η."""

    eta: float
    picture: Image.Image
    psnr: float  # to the picture


class Heat(NamedTuple):
    """A word's attention."""

    word: str
    heat: Tensor  # (h, w), shares of each pixel's attention


class Masked(NamedTuple):
    """The mask after a step; None where the edit shows everywhere."""

    k: int
    mask: Tensor | None


@dataclass(frozen=True, eq=False)
class Edited:
    """The edit that the page is about."""

    method: str
    picture: Image.Image
    psnr: float  # to the picture
    mask: Tensor | None
    settings: ptinv.Settings
    record: dict[str, str]  # what its PNG would carry
    reads: bool  # whether its method reads the picture: auto and fast
    told: bool  # whether it was given the text of the picture instead
    words: list[tuple[str, bool]]  # the prompt in pieces, and whether the source text lacks each


@dataclass(frozen=True, eq=False)
class Story:
    """Everything that a page tells."""

    prompt: str
    picture: Image.Image
    latent: tuple[int, ...]  # (c, h, w)
    round_trip: Image.Image
    ceiling: float  # dB
    settings: ptinv.Settings  # of pti's story
    up: list[Guess]  # clean end first
    walks: list[Walk]  # the tuned one last
    tuned: list[Tuned]  # clean end first
    strengths: list[Strength]
    heats: list[Heat]
    masks: list[Masked]  # noisy end first
    about: str  # what pti's mask follows; empty where it follows no words
    edited: Edited

    @property
    def steps(self) -> int:
        """T'."""
        return len(self.tuned)


def some(steps: int, most: int = FRAMES) -> list[int]:
    """At most so many of the steps 1 … T', evenly, the first and the last among them."""
    if steps <= most:
        return list(range(1, steps + 1))
    return [1 + round(i * (steps - 1) / (most - 1)) for i in range(most)]


def small(picture: Image.Image) -> Image.Image:
    """A picture that is shown beside others."""
    fits = picture.width <= SMALL[0] and picture.height <= SMALL[1]
    return picture if fits else ImageOps.contain(picture, SMALL, Image.Resampling.LANCZOS)
