"""Edits as a page asks for them: an inversion is kept for the next one, and any can be stopped.

    begin   the picture inverted, and whatever is made for every strength; what it shows is read
    look    the mask, as far as it is known before anything is edited
    make    sampled from the inversion that is kept

All of it is ptinv with plain values, and knows nothing of the page.
"""

import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

import ptinv
from ptinv import ddim
from ptinv.methods.masks import BEGIN, spread
from ptinv.methods.words import choose_words, is_stop_word, new_words, read
from ptinv.settings import AUTO
from ptinv.storage.pictures import MUTING
from ptinv.storage.provenance import fingerprint

READING = {False: 140, True: 55}  # UNet rows of reading a picture, thoroughly or quickly: about
RED = (230, 40, 40)


class Stopped(Exception):
    """A run was stopped by whoever asked for it."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """An edit that is asked for."""

    picture: Image.Image  # RGB
    prompt: str
    method: str
    options: dict[str, Any]  # those that are given

    @property
    def row(self) -> ptinv.Method:
        """The method's row of the table."""
        return ptinv.METHODS[self.method]

    @property
    def given(self) -> dict[str, Any]:
        """The options, with the source text to be read where the method can do nothing without."""
        reads = self.row.needs_source and not self.options.get("source")
        return self.options | ({"source": AUTO} if reads else {})

    @property
    def settings(self) -> ptinv.Settings:
        """The settings, as far as nothing is read off the picture. Raises InputError."""
        return self.row.settings(**self.given)

    @property
    def key(self) -> Hashable:
        """All that an inversion depends on, but for the source text."""
        stages = [stage.uses for stage in (self.row.trajectory, self.row.extra) if stage]
        shaping = {*sum(stages, ()), "among", "seed", "init_embedding"} - {"source"}
        options = {name: value for name, value in self.options.items() if name in shaping}
        about = self.prompt.strip(), self.method, *sorted(options.items())
        return fingerprint(self.picture), about


@dataclass(frozen=True, eq=False)
class Start:
    """The common start of edits of one picture for one prompt, whatever their strength."""

    wanted: Wanted
    inversion: ptinv.Inversion
    remarks: list[str]

    @property
    def source(self) -> str:
        """The text of what the picture shows, given or read; empty where the method has none."""
        return self.inversion.settings["source"] or ""

    def options(self, wanted: Wanted) -> dict[str, Any]:
        """The options of an edit that begins with it."""
        return wanted.given | ({"source": self.source} if self.source else {})

    def serves(self, wanted: Wanted) -> bool:
        """True if another edit can begin with it."""
        known = (self.wanted.options.get("source") or "", self.source)
        return self.wanted.key == wanted.key and (wanted.options.get("source") or "") in known


@dataclass
class Watch:
    """A run's progress, in rows of the UNet. It says what time is left, and stops a run within one
    call."""

    say: Callable[[float, str], Any]  # the share that is done, and in words
    rows: float = 1  # expected in all
    done: float = 0
    stage: str = "reading the picture"
    stopped: bool = False
    begun: float = field(default_factory=time.monotonic)

    def model(self, model: ptinv.StableDiffusion) -> ptinv.StableDiffusion:
        """A model of the same networks that is watched."""
        watch = self

        class Watched(type(model)):
            def predict_noise(self, z, t, context, control=None):
                watch.count(0)
                eps = super().predict_noise(z, t, context, control)
                watch.count(len(z) * (3 if context.requires_grad else 1))  # and the way back
                return eps

        return Watched(**vars(model))

    def count(self, rows: float) -> None:
        """Adds rows that are done. Raises Stopped."""
        if self.stopped:
            raise Stopped
        self.done += rows
        if self.done:
            pace = (time.monotonic() - self.begun) / self.done
            left = max(self.rows - self.done, 0) * pace
            share = min(self.done / self.rows, 1)
            self.say(share, f"{self.stage} · {duration(left)} left")

    def progress(self, loop: Iterable, label: str) -> Iterator:
        """A verb's `progress`."""
        items, before = list(loop), self.done
        for i, item in enumerate(items, start=1):
            self.stage = f"{label}, step {i} of {len(items)}"
            yield item
            if label == "sampling":  # the last loop: now it is known what a step takes
                self.rows = before + (self.done - before) / i * len(items)
        self.stage = "looking for what changes"


def duration(seconds: float) -> str:
    """About so long, in words."""
    return f"about {seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def begin(
    model: ptinv.StableDiffusion, wanted: Wanted, watch: Watch, kept: Start | None = None
) -> Start:
    """The kept start, if it serves; else a new one. Raises as `ptinv.invert`, and Stopped."""
    serves = kept is not None and kept.serves(wanted)
    watch.rows = expected(wanted, with_start=not serves)
    if serves:
        return kept
    check(model, wanted)
    watched, given = watch.model(model), dict(wanted.given)
    what = watched, wanted.picture, wanted.prompt
    with noted() as remarks:
        given.pop("mask", None)  # an inversion has no use for it
        inversion = ptinv.invert(*what, wanted.method, watch.progress, **given)
    return Start(wanted, inversion, remarks)


def check(model: ptinv.StableDiffusion, wanted: Wanted) -> None:
    """Raises InputError for all that an edit would refuse later, after the inversion."""
    with noted():
        ptinv.steps(model, wanted.picture, wanted.prompt, wanted.method, **wanted.given)
    settings = replace(wanted.settings, source=wanted.prompt)
    choose_words(model.tokenizer, wanted.prompt, settings, ("target",))


def expected(wanted: Wanted, with_start: bool) -> float:
    """Rows of the UNet that an edit takes: about, since it depends on what will be read."""
    settings, row = wanted.settings, wanted.row
    steps = steps_of(settings)
    rows = 2 * len(row.branches) * steps
    rows += 2 * settings.mask_draws if "difference" in settings.mask_names else 0
    if with_start:
        rows += steps + (READING[bool(row.strengths)] if settings.source == AUTO else 0)
        tunes = row.extra and "inner_steps" in row.extra.uses
        rows += steps * ((2 + 3 * settings.inner_steps) if tunes else 2 if row.extra else 0)
    return rows


def steps_of(settings: ptinv.Settings) -> int:
    """T', the number of steps that are made."""
    return len(ddim.schedule(settings.steps, settings.encode_ratio))


def look(model: ptinv.StableDiffusion, start: Start, wanted: Wanted, watch: Watch) -> Tensor | None:
    """The first mask (1, 1, h, w) of the edit's steps; None if it shows everywhere."""
    if wanted.settings.mask is None:
        return None
    what = watch.model(model), start.inversion, wanted.prompt, wanted.method
    with noted():
        steps = ptinv.steps(*what, **start.options(wanted))
        for i, step in enumerate(steps):
            if step.mask is not None:
                return step.mask
            if i > BEGIN * steps_of(wanted.settings) + 1:
                return None


def make(
    model: ptinv.StableDiffusion, start: Start, wanted: Wanted, watch: Watch
) -> tuple[ptinv.Result, list[str]]:
    """The edit, and what there is to remark."""
    what = watch.model(model), start.inversion, wanted.prompt, wanted.method, watch.progress
    with noted() as remarks:
        result = ptinv.result(*what, **start.options(wanted))
        _ = result.decoded  # kept with it
    return result, [*dict.fromkeys(start.remarks + remarks)]


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collects ptinv's remarks. The lock is held by its opening of pictures, too: other threads may
    be at that, and it exchanges the process's filters as this does."""
    notes: list[str] = []
    catch = warnings.catch_warnings(record=True)
    with MUTING:
        caught = catch.__enter__()
        warnings.simplefilter("always")
    try:
        yield notes
    finally:
        with MUTING:
            catch.__exit__(None, None, None)
        kinds = [str(w.message) for w in caught if issubclass(w.category, ptinv.Remark)]
        notes += dict.fromkeys(kinds)


def words_of(
    model: ptinv.StableDiffusion, start: Start, wanted: Wanted
) -> tuple[list[str], list[int]]:
    """The prompt's words, and which of them an edit that begins so is about; little words are left
    out."""
    source = start.source
    words = read(model.tokenizer, wanted.prompt)
    if follows_words(wanted):
        settings = wanted.row.settings(**wanted.given | {"source": source or None})
        focus = choose_words(model.tokenizer, wanted.prompt, settings, wanted.row.branches).focus
        chosen = set(focus.get("target", []))
        new = [word for word in words if chosen & {*word.positions}]
    else:
        new = new_words(model.tokenizer, wanted.prompt, source) if source else []
    shown = [word for word in words if not is_stop_word(word)]
    return [word.text for word in shown], [i for i, word in enumerate(shown) if word in new]


def follows_words(wanted: Wanted) -> bool:
    """True if the mask is where words of the prompt look; else the source text decides."""
    return "attention" in wanted.settings.mask_names


def source_with(model: ptinv.StableDiffusion, start: Start, new: Iterable[int]) -> str:
    """The text of the picture if exactly these words of the prompt, as `words_of` counts them, are
    new to it: a word that isn't comes from the prompt, one that is from what was read."""
    words = read(model.tokenizer, start.wanted.prompt)
    named = [i for i, word in enumerate(words) if not is_stop_word(word)]
    chosen = {named[i] for i in new}
    here, there = [word.text for word in words], start.source.split()
    text: list[str] = []
    blocks = SequenceMatcher(None, there, here, autojunk=False).get_opcodes()
    for kind, i, i_end, j, j_end in blocks:
        block = [k for k in range(j, j_end) if k in named]
        if kind == "equal":
            text += [here[k] for k in range(j, j_end) if k not in chosen]
        elif chosen.isdisjoint(block):
            text += there[i:i_end] if kind == "delete" else here[j:j_end]
        elif i_end - i == j_end - j and not chosen.issuperset(block):
            pairs = zip(there[i:i_end], range(j, j_end), strict=True)
            text += [old if k in chosen else here[k] for old, k in pairs]
        else:
            text += there[i:i_end]
    return " ".join(text)


def layer(mask: Tensor, size: tuple[int, int]) -> Image.Image:
    """A mask (1, 1, h, w) as a layer to paint on: red where the edit shows, clear elsewhere."""
    painted = Image.new("RGBA", size, (*RED, 0))
    alpha = (spread(mask, size).numpy() > 0.5) * 150
    painted.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return painted


def brushed(layers: Iterable[Image.Image], size: tuple[int, int]) -> Image.Image | None:
    """Painted layers as a mask, white wherever there is paint; None if there is none."""
    mask = np.zeros(size[::-1], bool)
    for painted in layers:
        alpha = painted.convert("RGBA").getchannel("A").resize(size)
        mask |= np.asarray(alpha) > 40
    return Image.fromarray(mask).convert("L") if mask.any() else None
