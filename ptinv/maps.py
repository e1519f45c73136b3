"""What each word of a prompt sees in a picture: the cross-attention maps themselves.

Nothing is generated. The picture is inverted, and the UNet is asked once at each latent of the
picture's own trajectory, under the prompt, with the control hook listening. Its predictions are
not used, so no step depends on another, and the maps tell of this picture only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from . import ddim, heat, images
from .editing.controls import Chain, Record
from .errors import InputError
from .inversion.record import Inversion
from .inverting import inverted, settings_of
from .model import StableDiffusion
from .sampling import Progress, silent
from .settings import Settings, check_prompt
from .task import Task
from .text import Word

METHOD = "ddim-global"  # how a picture is inverted: without a prompt, and with nothing tuned
Steps = Sequence[int]  # those to average over, as counted in `AttentionMaps`


@dataclass(frozen=True)
class AttentionMaps:
    """Cross-attention at every step of a picture's trajectory.

    Step k is the one that leaves z*_k, as everywhere: 1 is next to the picture, T' in the noise.
    """

    picture: Image.Image  # RGB, in its own size
    words: list[Word]  # of the prompt, as far as the model reads it; the 77 tokens hold more
    maps: dict[int, Tensor]  # level -> (T', 77, h, w) on the CPU; maps[level][k - 1] is step k's

    # Each is the mean over the heads and layers of a level, in float32: what a pixel gives to the
    # 77 tokens sums to 1. The start token, which means nothing, usually gets most of it.

    @property
    def steps(self) -> int:
        """T'."""
        return len(next(iter(self.maps.values())))

    def of(self, word: str | Word, level: int | None = None, steps: Steps | None = None) -> Tensor:
        """A word's map (h, w): its tokens' sum, averaged over steps (all of them, if not told).

        A text means all words of the prompt that read so. level: the first of `maps`, if not told.
        Raises InputError for a word, level or step that there isn't.
        """
        level = next(iter(self.maps)) if level is None else level
        check_levels([level], self.maps)
        steps = range(1, self.steps + 1) if steps is None else steps
        check_steps(steps, self.steps)
        meant = [w for w in self.words if w == word or w.text == str(word).strip().lower()]
        if not meant:
            there = ", ".join(dict.fromkeys(w.text for w in self.words))
            raise InputError(f'"{word}" is not in the prompt; its words are: {there}')
        tokens = [position for w in meant for position in w.positions]
        return self.maps[level][[k - 1 for k in steps]][:, tokens].sum(dim=1).mean(dim=0)

    def draw(self, at: Iterable[Steps] | None = None) -> Image.Image:
        """Every word's map over the picture: a strip for each level and, in it, each of `at`.

        at: steps to average over, for each strip; one strip of all steps, if none is told.
        Raises InputError for a step that there isn't, and for a sheet of more than can be saved.
        """
        at = list(at or []) or [range(1, self.steps + 1)]
        strips = [self._strip(level, steps) for level in self.maps for steps in at]
        most = "max, the word's largest share of a pixel's attention"
        order = f"Step {self.steps} is the noisiest, step 1 next to the picture."
        return heat.sheet(strips, most, order)

    def _strip(self, level: int, steps: Steps) -> heat.Strip:
        shown = images.resize(self.picture, heat.on_a_sheet(self.picture.size))
        cells = [heat.Cell(shown, "the picture")]
        for word in self.words:
            seen = self.of(word, level, steps)
            cells.append(heat.Cell(heat.over(shown, seen), word.text, f"max {seen.max():.1%}"))
        height, width = self.maps[level].shape[2:]
        when = f"step {steps[0]}" if len(steps) == 1 else f"mean of steps {_spoken(steps)}"
        return heat.Strip(f"level {level} ({width} x {height}), {when} of {self.steps}", cells)


def _spoken(steps: Steps) -> str:
    """Numbers in a row by their ends."""
    low, high = min(steps), max(steps)
    in_a_row = sorted(steps) == list(range(low, high + 1))
    return f"{low} to {high}" if in_a_row else ", ".join(map(str, steps))


@torch.no_grad()
def attention_maps(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    levels: Iterable[int] | None = None,
    progress: Progress = silent,
    **options,
) -> AttentionMaps:
    """The maps of a prompt's words over a picture, or over what `invert` made of it.

    levels: of the UNet, those of `cross_levels`; the one that makes masks, if not told. Each keeps
    T' · 77 · h · w numbers in memory: 50 MB for 40 steps at 64 × 64. options: the fields of
    `Settings`, of which those count that shape a trajectory; an inversion has its own.
    Raises InputError for an empty prompt, a level that doesn't attend, or settings out of range,
    and FloatingPointError if the numbers overflow.
    """
    check_prompt(prompt, "what to look for in the picture")
    config = model.unet.config
    levels = [config.mask_level] if levels is None else list(levels)
    check_levels(levels, config.cross_levels)
    settings = settings_of_maps(picture, **options)
    stored = isinstance(picture, Inversion)
    image = picture.picture if stored else images.to_rgb(picture)
    task = Task(model, image, prompt, settings)
    if stored:
        picture.check_fits(model)
    inversion = picture if stored else inverted(task, METHOD, None, progress)
    trajectory = inversion.on(model.device)["trajectory"]
    maps: dict[int, list[Tensor]] = {level: [] for level in levels}
    for rung in progress(task.rungs, "looking"):
        heard = {level: Record(level) for level in maps}
        listening = Chain(tuple(heard.values()))
        model.predict_noise(trajectory[rung.k], rung.t, task.target, listening)
        for level, record in heard.items():
            maps[level].append(record.mean[0].cpu())
    found = AttentionMaps(
        image, model.tokenizer.read(prompt), {level: torch.stack(m) for level, m in maps.items()}
    )
    if not all(m.isfinite().all() for m in found.maps.values()):
        raise FloatingPointError(
            "the attention is not finite (NaN or infinity): the checkpoint may be damaged, "
            "or try --dtype float32 or bfloat16"
        )
    return found


def settings_of_maps(picture: Image.Image | Inversion, **options) -> Settings:
    """What `attention_maps` inverts with, or what an inversion was made with.

    Raises InputError for settings out of range, and where they leave no step to look at.
    """
    method = picture.settings["method"] if isinstance(picture, Inversion) else METHOD
    options = {**options, "mask": None, "paste_back": False}
    settings = settings_of(picture, method, **options)
    if not ddim.ladder(settings.steps, settings.encode_ratio):
        raise InputError(
            f"encode_ratio {settings.encode_ratio} leaves none of the {settings.steps} steps "
            "to look at; invert with a higher one"
        )
    return settings


def check_sheet(size: tuple[int, int], words: int, strips: int) -> None:
    """Raises InputError if so many maps of a picture would make a sheet that can't be saved."""
    heat.Layout(heat.on_a_sheet(size), words + 1, strips)


def check_levels(levels: Iterable[int], there: Iterable[int]) -> None:
    """Raises InputError unless levels are named, and only those that there are."""
    known = ", ".join(map(str, there))
    if not levels:
        raise InputError(f"no level is named; there is attention to words at {known}")
    for level in levels:
        if level not in there:
            raise InputError(
                f"there is no attention to words at level {level}; there is at {known}"
            )


def check_steps(steps: Iterable[int], count: int) -> None:
    """Raises InputError unless steps are named, and only those that there are: 1 to `count`."""
    if not steps:
        raise InputError(f"no step is named; there are 1 to {count}")
    for k in steps:
        if not 1 <= k <= count:
            raise InputError(f"there is no step {k}; there are 1 to {count}")
