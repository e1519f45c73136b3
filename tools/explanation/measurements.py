"""The measurements that a page tells: one edit, and the paper's method on its picture and prompt.

The edit is the caller's own, by any method. The rest is pti's story of the same picture and prompt:
the way up, the ways down that miss the picture, the tuning, Eq. 9 at every strength, and where it
shows. Everything is made by ptinv's verbs and the core's functions.
"""

import unicodedata
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

import ptinv
from ptinv.api import record_of
from ptinv.core import pti, sampling
from ptinv.core.pictures import resize
from ptinv.methods.controls import interval, opened
from ptinv.methods.words import Word, choose_words, new_words
from ptinv.metrics import psnr
from ptinv.settings import AUTO

from .story import Edited, Guess, Heat, Masked, Story, Strength, Tuned, Walk, small, some

PTI = ptinv.METHODS["pti"]
ETAS = tuple(i / 10 for i in range(11))
OWN = {"eta", "inversion_guidance", "sampler", "among", "paste_back", "reuse_tuning"}  # of an edit
BACK = {"eta": 0.0, "mask": None, "mask_from": None, "paste_back": False, "reweight": {}}
Progress = Callable[[Iterable, str], Iterable]


class Start(NamedTuple):
    """The inputs that pti's story is measured from."""

    model: ptinv.StableDiffusion
    inversion: ptinv.Inversion  # tuned
    prompt: str
    picture: Image.Image  # in the model's size
    given: dict[str, Any]  # options

    @property
    def trajectory(self) -> Tensor:
        return self.inversion.trajectory.to(self.model.device)


@torch.no_grad()
def measure(
    model: ptinv.StableDiffusion,
    picture: Image.Image | ptinv.Inversion,
    prompt: str,
    method: str | None,
    options: dict[str, Any],
    progress: Progress,
) -> Story:
    """Makes the edit and measures its story. Raises as `ptinv.edit`."""
    made = ptinv.result(model, picture, prompt, method, progress, **options)
    by_pti = made.request.method is PTI
    given, inversion = options if by_pti else story_options(options), made.inversion
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ptinv.Remark)  # said of the edit already, or of no edit
        if not by_pti:
            begun = begun_by(picture, inversion)
            how = given | BACK | {"size": made.request.settings.size}
            inversion = ptinv.result(model, begun, prompt, "pti", progress, **how).inversion
        round_trip = model.decode(inversion.trajectory[0])
        fitted = resize(inversion.picture, round_trip.size)
        start = Start(model, inversion, prompt, fitted, given)
        settings = PTI.settings(**vars(inversion.made_by) | given)
        steps, walks = walks_down(start, progress)
        strengths, masks = edits(start, progress)
        maps = ptinv.attention_maps(model, inversion, prompt, progress=progress)
        return Story(
            prompt,
            fitted,
            tuple(start.trajectory.shape[2:]),
            round_trip,
            psnr(round_trip, fitted),
            settings,
            way_up(start, progress),
            walks,
            tuning(start, steps, progress),
            strengths,
            [Heat(word.text, maps.of(word)) for word in maps.words if not word.is_mark],
            masks,
            about=choose_words(model.tokenizer, prompt, settings, ("target",)).about,
            edited=edited(start, made),
        )


def story_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of an edit's options that pti reads, and that are not the edit's alone."""
    left_out = PTI.ignored | OWN | ({"source"} if options.get("source") == AUTO else set())
    return {name: value for name, value in options.items() if name not in left_out}


def begun_by(
    picture: Image.Image | ptinv.Inversion, inversion: ptinv.Inversion
) -> Image.Image | ptinv.Inversion:
    """The input of pti's own edit: a given inversion, if it is one by DDIM without a prompt."""
    if not isinstance(picture, ptinv.Inversion):
        return inversion.picture
    by = picture.settings["method"]
    title = by[0] if isinstance(by, list) else ptinv.METHODS[by].trajectory.title
    unguided = title == PTI.trajectory.title and not picture.settings["inversion_guidance"]
    return picture if unguided else picture.picture


def way_up(start: Start, progress: Progress) -> list[Guess]:
    """The inversion once more, step by step, with what each step takes the picture to be."""
    model, schedule = start.model, start.inversion.schedule
    condition, shown = sampling.constant(*[model.embed("")] * 2), some(len(schedule))
    walk = sampling.invert(model, start.trajectory[0], schedule, condition, 0.0)
    return [
        Guess(step.k, step.timestep.t, small(model.decode(step.z)), model.decode(step.z0))
        for step in progress(walk, "walking up")
        if step.k in shown
    ]


def walks_down(start: Start, progress: Progress) -> tuple[list[ptinv.Step], list[Walk]]:
    """The ways down that are not tuned, by ω, and the tuned one, last, with its steps. One of them
    is guided: by 7.5 where the edit's own ω guides nothing."""
    guidance = start.inversion.made_by.guidance
    several = sorted({0.0, 1.0, guidance, guidance if guidance > 1 else PTI.own("guidance")})
    same = {name: getattr(start.inversion.made_by, name) for name in ("negative", "guidance_gate")}
    ways = [(w, "ddim-global", same | {"guidance": w}) for w in several]
    ways.append((guidance, "pti", start.given | BACK))
    walks, steps = [], []
    for w, method, how in progress(ways, "walking down"):
        steps = list(ptinv.steps(start.model, start.inversion, start.prompt, method, **how))
        walks.append(walked(start, steps, w, method == "pti"))
    return steps, walks


def walked(start: Start, steps: list[ptinv.Step], guidance: float, tuned: bool) -> Walk:
    """Measures a way down: its distances to the trajectory, its guesses, and where it ends."""
    trajectory, shown, decode = start.trajectory, some(len(steps)), start.model.decode
    distances = [0.0]  # it begins on the trajectory
    for step in steps:
        distances.append(float((step.z - trajectory[step.k - 1]).square().mean().sqrt()))
    frames = [small(decode(step.z0)) for step in steps if step.k in shown]
    back = decode(steps[-1].z)
    return Walk(guidance, tuned, distances, frames, back, psnr(back, start.picture))


def tuning(start: Start, steps: list[ptinv.Step], progress: Progress) -> list[Tuned]:
    """Algorithm 1 seen from outside: each step's loss under c*, under the embedding that it begins
    with, and under the tuned one. steps: the tuned way down, each step of which leaves where the
    tuning's did."""
    model, inversion, by = start.model, start.inversion, start.inversion.made_by
    null, target = model.embed(by.negative), model.embed(inversion.settings["prompt"])
    first = {"target": target, "null": null, "source": model.embed(by.source or "")}
    before, gate, found = first[by.init_embedding], interval(by.guidance_gate), []
    for step in progress(steps, "tuning again"):
        w = by.guidance if opened(gate, step.k, len(steps)) else min(by.guidance, 1.0)
        eps_null = model.predict_noise(step.z_from, step.timestep.t, null)
        losses = []
        for c in (target, before):
            landed = pti.guided_step(model, step.z_from, step.timestep, eps_null, w, c)
            losses.append(float((landed - start.trajectory[step.k - 1]).square().mean()))
        losses.append(float(inversion.losses[step.k - 1]))
        before = inversion.embeddings[step.k - 1].to(model.device)
        found.append(Tuned(step.k, *losses, float((before - target).norm() / target.norm())))
    return found[::-1]


def edits(start: Start, progress: Progress) -> tuple[list[Strength], list[Masked]]:
    """The edit by pti at every strength, and the masks of the one at the edit's own η."""
    own, strengths, masks = start.given.get("eta", PTI.own("eta")), [], []
    for eta in progress(sorted({*ETAS, own}), "η by η"):
        how = start.given | {"eta": eta}
        steps = list(ptinv.steps(start.model, start.inversion, start.prompt, "pti", **how))
        made = start.model.decode(steps[-1].z)
        strengths.append(Strength(eta, made, psnr(made, start.picture)))
        if eta == own:
            masks = [Masked(step.k, None if step.mask is None else step.mask.cpu())
                     for step in steps if step.k in some(len(steps))]  # fmt: skip
    return strengths, masks


def edited(start: Start, made: ptinv.Result) -> Edited:
    """The caller's edit, as its `Result` has it."""
    settings, prompt = made.request.settings, start.prompt
    shown = made.decoded
    if settings.paste_back:
        shown = resize(made.picture, start.picture.size)
    return Edited(
        made.request.name,
        shown,
        psnr(shown, start.picture),
        None if made.mask is None else made.mask[-1:].cpu(),
        settings,
        record_of(start.model, made.request, made.rows),
        reads=bool(made.request.method.strengths),
        told=(made.request.given.get("source") or AUTO) != AUTO,
        words=pieces(prompt, new_words(start.model.tokenizer, prompt, settings.source or prompt)),
    )


def pieces(prompt: str, new: list[Word]) -> list[tuple[str, bool]]:
    """A prompt cut where its new words begin and end; each piece, and whether it is one of them."""
    prompt, cut, at = unicodedata.normalize("NFC", prompt), [], 0  # as words are counted
    for word in new:
        cut += [(prompt[at : word.start], False), (prompt[word.start : word.end], True)]
        at = word.end
    return [*cut, (prompt[at:], False)]
