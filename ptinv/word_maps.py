"""Cross-attention of each word of a prompt over a picture.

The picture is inverted, and the UNet is called once at each latent of its trajectory, under the
prompt, with a control that records attention. Nothing is generated.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from .api import invert
from .core.model import StableDiffusion
from .core.pictures import Picture
from .core.unet import UNetConfig
from .errors import InputError, not_finite
from .methods.controls import Chain, Record
from .methods.request import method_of, opened, settings_for
from .methods.stages import Progress, silent
from .methods.words import Word, positions_of, read, warn_of_words
from .settings import check_prompt
from .storage.inversion import Inversion

Steps = Sequence[int]  # those to average over, as counted in `AttentionMaps`
METHOD = "ddim-global"  # inverts a picture without a prompt, and tunes nothing


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMaps:
    """Cross-attention at every step of a picture's trajectory.

    Step k leaves z*_k: 1 is next to the picture, T' in the noise. A map is the mean over the heads
    and layers of a level: what a pixel gives to the 77 tokens sums to 1, most of it to the start.
    """

    picture: Image.Image  # RGB, in its own size
    words: list[Word]  # of the prompt, as far as the model reads it; the 77 tokens hold more
    maps: dict[int, Tensor]  # level -> (T', 77, h, w) on the CPU; maps[level][k - 1] is step k's

    def __repr__(self) -> str:
        text = " ".join(word.text for word in self.words)
        return f"AttentionMaps({text!r}, levels={list(self.maps)}, steps={self.steps})"

    @property
    def steps(self) -> int:
        """T'."""
        return len(next(iter(self.maps.values())))

    def of(self, word: str | Word, level: int | None = None, steps: Steps | None = None) -> Tensor:
        """A word's map (h, w): the sum of its tokens, averaged over steps (all by default). A text
        means all words that read so. Raises InputError for what does not exist."""
        level = next(iter(self.maps)) if level is None else level
        steps = range(1, self.steps + 1) if steps is None else steps
        check_maps("level", [level], self.maps)
        check_maps("step", steps, range(1, self.steps + 1))
        meant = [w for w in self.words if w == word or w.text == str(word).strip().lower()]
        if not meant:
            known = ", ".join(dict.fromkeys(w.text for w in self.words))
            raise InputError(f'"{word}" is not in the prompt; its words are: {known}')
        return self.maps[level][[k - 1 for k in steps]][:, positions_of(meant)].sum(1).mean(0)


def cross_levels(config: UNetConfig) -> list[int]:
    """The levels that attend to the prompt; the coarsest always does, in its middle block."""
    return [i for i, attends in enumerate([*config.attends[:-1], True]) if attends]


@torch.no_grad()
def attention_maps(
    model: StableDiffusion,
    picture: Picture | Inversion,
    prompt: str,
    levels: Iterable[int] | None = None,
    progress: Progress = silent,
    **options,
) -> AttentionMaps:
    """Measures the maps of a prompt's words over a picture, or over what `invert` made of it.

    levels: of the UNet, out of `cross_levels`; by default the one that makes masks. options: those
    that shape a trajectory. Raises InputError for an empty prompt, a level that doesn't attend, or
    settings out of range, and FloatingPointError if the numbers overflow.
    """
    check_prompt(prompt, "what to look for in the picture")
    config = model.unet.config
    levels = [config.mask_level] if levels is None else list(levels)
    check_maps("level", levels, cross_levels(config))
    picture = opened(picture)
    method = method_of(picture, METHOD)
    settings_for(picture, method, **{**options, "mask": None, "paste_back": False})
    if isinstance(inversion := picture, Inversion):
        inversion.check_fits(model)
        warn_of_words(model, prompt)
    else:
        inversion = invert(model, picture, prompt, METHOD, progress, **options)
    embedding, trajectory = model.embed(prompt), inversion.trajectory.to(model.device)
    recorded = []
    for timestep in progress(inversion.schedule, "looking"):
        records = tuple(Record(level) for level in levels)
        model.predict_noise(trajectory[timestep.k], timestep.t, embedding, Chain(records))
        recorded.append([record.mean[0].cpu() for record in records])
    maps = {level: torch.stack([step[i] for step in recorded]) for i, level in enumerate(levels)}
    if not all(steps.isfinite().all() for steps in maps.values()):
        raise not_finite("the attention")
    return AttentionMaps(inversion.picture, read(model.tokenizer, prompt), maps)


def check_maps(what: str, asked: Collection[int], known: Collection[int]) -> None:
    """Raises InputError unless levels or steps are named, and only those that there are maps at."""
    if wrong := [number for number in asked or [None] if number not in known]:
        there = ", ".join(map(str, known))
        raise InputError(f"there are no maps of words at {what} {wrong[0]}, only at {there}")
