"""Cross-attention of each word of a prompt over a picture, measured and drawn.

Nothing is generated. The picture is inverted, and the UNet is called once at each latent of its
trajectory, under the prompt, with a control that records attention. The predictions are not used,
so no step depends on another, and the maps are of this picture alone.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import sheet
from .core.ddim import schedule
from .core.model import StableDiffusion
from .core.pictures import resize
from .core.unet import UNetConfig
from .errors import InputError, not_finite
from .methods.controls import Chain, Record
from .methods.request import Picture, method_of, request_inversion, settings_for
from .methods.run import run_inversion
from .methods.stages import Progress, silent
from .methods.words import Word, read, warn_of_words
from .settings import Settings, check_prompt
from .storage.inversion import Inversion

METHOD = "ddim-global"  # inverts a picture without a prompt, and tunes nothing
COLOURS = "000004 1f0c48 550f6d 88226a ba3655 e35933 f98c0a f9c932 fcffa4"
# matplotlib's "inferno": even steps look even, also without colour
RAMP = torch.tensor([list(bytes.fromhex(colour)) for colour in COLOURS.split()]).float()
DIM = 0.4  # of the grey picture under the heat
Steps = Sequence[int]  # those to average over, as counted in `AttentionMaps`


@dataclass(frozen=True)
class AttentionMaps:
    """Cross-attention at every step of a picture's trajectory.

    Step k leaves z*_k: 1 is next to the picture, T' in the noise. A map is the mean over the heads
    and layers of a level: what a pixel gives to the 77 tokens sums to 1, most of it to the start.
    """

    picture: Image.Image  # RGB, in its own size
    words: list[Word]  # of the prompt, as far as the model reads it; the 77 tokens hold more
    maps: dict[int, Tensor]  # level -> (T', 77, h, w) on the CPU; maps[level][k - 1] is step k's

    @property
    def steps(self) -> int:
        """T'."""
        return len(next(iter(self.maps.values())))

    def of(self, word: str | Word, level: int | None = None, steps: Steps | None = None) -> Tensor:
        """A word's map (h, w): the sum of its tokens, averaged over steps (all by default).

        A text means all words of the prompt that read so. level: the first of `maps` by default.
        Raises InputError for a word, level or step that does not exist.
        """
        level = next(iter(self.maps)) if level is None else level
        check_levels([level], self.maps)
        steps = range(1, self.steps + 1) if steps is None else steps
        check_steps(steps, self.steps)
        meant = [w for w in self.words if w == word or w.text == str(word).strip().lower()]
        if not meant:
            known = ", ".join(dict.fromkeys(w.text for w in self.words))
            raise InputError(f'"{word}" is not in the prompt; its words are: {known}')
        tokens = [position for w in meant for position in w.positions]
        return self.maps[level][[k - 1 for k in steps]][:, tokens].sum(dim=1).mean(dim=0)

    def draw(self, at: Iterable[Steps] | None = None) -> Image.Image:
        """Draws every word's map over the picture: a strip for each level and each of `at`.

        at: the steps that each strip averages over; by default one strip of all steps.
        Raises InputError for a step that does not exist, and as `check_sheet`.
        """
        at = list(at or []) or [range(1, self.steps + 1)]
        strips = [self._strip(level, steps) for level in self.maps for steps in at]
        check_sheet(self.picture.size, len(self.words), len(strips))
        bar = _image(ramp(torch.linspace(0, 1, 120).expand(14, 120)))
        key = "0", bar, "max, the word's largest share of a pixel's attention"
        order = f"Step {self.steps} is the noisiest, step 1 next to the picture."
        return sheet.draw_strips(strips, key, order)

    def _strip(self, level: int, steps: Steps) -> sheet.Strip:
        shown = resize(self.picture, sheet.shown_size(self.picture.size))
        cells = [sheet.Cell(shown, "the picture")]
        for word in self.words:
            heat = self.of(word, level, steps)
            cells.append(sheet.Cell(over(shown, heat), word.text, f"max {heat.max():.1%}"))
        height, width = self.maps[level].shape[2:]
        listed, low, high = ", ".join(map(str, steps)), min(steps), max(steps)
        if low < high and sorted(steps) == list(range(low, high + 1)):
            listed = f"{low} to {high}"
        when = f"step {listed}" if len(steps) == 1 else f"mean of steps {listed}"
        return sheet.Strip(f"level {level} ({width} x {height}), {when} of {self.steps}", cells)


def cross_levels(config: UNetConfig) -> list[int]:
    """The levels that attend to the prompt; the coarsest always does, in its middle block."""
    return [i for i, attends in enumerate([*config.attends[:-1], True]) if attends]


@torch.no_grad()
def attention_maps(
    model: StableDiffusion,
    picture: Picture,
    prompt: str,
    levels: Iterable[int] | None = None,
    progress: Progress = silent,
    **options,
) -> AttentionMaps:
    """Measures the maps of a prompt's words over a picture, or over what `invert` made of it.

    levels: of the UNet, out of `cross_levels`; by default the one that makes masks. Each keeps T' ·
    77 · h · w numbers in memory. options: the fields of `Settings` that shape a trajectory.
    Raises InputError for an empty prompt, a level that doesn't attend, or settings out of range,
    and FloatingPointError if the numbers overflow.
    """
    check_prompt(prompt, "what to look for in the picture")
    config = model.unet.config
    levels = [config.mask_level] if levels is None else list(levels)
    check_levels(levels, cross_levels(config))
    settings = settings_of_maps(picture, **options)
    if isinstance(picture, Inversion):
        for text in (prompt, settings.source or ""):
            warn_of_words(model, text)
        picture.check_fits(model)
        inversion = picture
    else:
        request = request_inversion(picture, prompt, METHOD, **options)
        inversion = run_inversion(model, request, progress)
    embedding, trajectory = model.embed(prompt), inversion.on(model.device)["trajectory"]
    maps: dict[int, list[Tensor]] = {level: [] for level in levels}
    for timestep in progress(inversion.schedule, "looking"):
        control = Chain(tuple(Record(level) for level in maps))
        model.predict_noise(trajectory[timestep.k], timestep.t, embedding, control)
        for record in control.controls:
            maps[record.level].append(record.mean[0].cpu())
    stacked = {level: torch.stack(steps) for level, steps in maps.items()}
    if not all(steps.isfinite().all() for steps in stacked.values()):
        raise not_finite("the attention")
    return AttentionMaps(inversion.picture, read(model.tokenizer, prompt), stacked)


def settings_of_maps(picture: Picture, **options) -> Settings:
    """The settings that `attention_maps` inverts with, or that an inversion was made with. Raises
    InputError for settings out of range, and where they leave no step to look at."""
    method = method_of(picture) if isinstance(picture, Inversion) else METHOD
    settings = settings_for(picture, method, **{**options, "mask": None, "paste_back": False})
    if not schedule(settings.steps, settings.encode_ratio):
        raise InputError(
            f"encode_ratio {settings.encode_ratio} leaves none of the {settings.steps} steps "
            "to look at; invert with a higher one"
        )
    return settings


def check_levels(levels: Collection[int], known: Collection[int]) -> None:
    """Raises InputError unless levels are named, and only known ones."""
    at = ", ".join(map(str, known))
    if not levels:
        raise InputError(f"no level is named; there is attention to words at {at}")
    for level in levels:
        if level not in known:
            raise InputError(f"there is no attention to words at level {level}; there is at {at}")


def check_steps(steps: Collection[int], count: int) -> None:
    """Raises InputError unless steps are named, and only those from 1 to `count`."""
    if not steps:
        raise InputError(f"no step is named; there are 1 to {count}")
    for k in steps:
        if not 1 <= k <= count:
            raise InputError(f"there is no step {k}; there are 1 to {count}")


def check_sheet(size: tuple[int, int], words: int, strips: int) -> None:
    """Raises InputError if so many maps of a picture would make a sheet too tall to be saved."""
    _, (_, height) = sheet.lay_out(sheet.shown_size(size), words + 1, strips)
    if height > sheet.TALL:
        raise InputError(
            f"the sheet would be {height} pixels tall and may be {sheet.TALL}; "
            "ask for fewer levels and steps"
        )


def over(picture: Image.Image, heat: Tensor) -> Image.Image:
    """Draws a map (h, w) as heat over an RGB picture in dim grey, smoothly enlarged to its size.
    The map's numbers, from 0 up, are drawn relative to their largest: brighter is always more."""
    shares = heat.float() / heat.max().clamp(min=1e-12)
    size = picture.size[::-1]
    shares = F.interpolate(shares[None, None], size=size, mode="bicubic", antialias=True)
    colours = ramp(shares[0, 0].clamp(0, 1))
    under = torch.from_numpy(np.array(picture.convert("L"), np.float32))[..., None] * DIM
    return _image(255 - (255 - under) * (255 - colours) / 255)  # light added: never darker


def ramp(shares: Tensor) -> Tensor:
    """Shares (h, w) in [0, 1] -> colours (h, w, 3) from 0 to 255."""
    place = shares * (len(RAMP) - 1)
    below = place.long().clamp(max=len(RAMP) - 2)
    return torch.lerp(RAMP[below], RAMP[below + 1], (place - below)[..., None])


def _image(colours: Tensor) -> Image.Image:
    return Image.fromarray(colours.round().to(torch.uint8).numpy())
