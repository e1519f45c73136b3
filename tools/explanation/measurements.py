"""The measurements that a page tells: one edit, and the paper's method on its picture and prompt.

The edit is the caller's own, by any method. The rest is pti's story of the same picture and prompt:
the way up, the ways down that miss the picture, the tuning, Eq. 9 at every strength, and where it
shows. Everything is made by ptinv's verbs and the core's functions.
"""

import unicodedata
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from PIL import Image

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
UNMASKED = {"eta": 0.0, "mask": None, "mask_from": None, "paste_back": False}
Progress = Callable[[Iterable, str], Iterable]


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
            start = start_of(picture, inversion)
            inversion = ptinv.result(
                model, start, prompt, "pti", progress, **given | UNMASKED
            ).inversion
        wanted = resize(inversion.picture, model.picture_size(inversion.picture.size))
        z0 = inversion.trajectory[0].to(model.device)
        round_trip = model.decode(z0)
        settings = PTI.settings(**vars(inversion.made_by) | given)
        steps, walks = walks_down(model, inversion, prompt, wanted, given, progress)
        strengths, masks = edits(model, inversion, prompt, wanted, given, progress)
        maps = ptinv.attention_maps(model, inversion, prompt, progress=progress)
        return Story(
            prompt,
            wanted,
            tuple(z0.shape[1:]),
            round_trip,
            psnr(round_trip, wanted),
            settings,
            way_up(model, inversion, progress),
            walks,
            tuning(model, inversion, steps, progress),
            strengths,
            [Heat(word.text, maps.of(word)) for word in maps.words if not word.is_mark],
            masks,
            about=choose_words(model.tokenizer, prompt, settings, ("target",)).about,
            edited=edited(model, made, prompt, wanted),
        )


def story_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of an edit's options that pti reads, and that are not the edit's alone."""
    left_out = PTI.ignored | OWN | ({"source"} if options.get("source") == AUTO else set())
    return {name: value for name, value in options.items() if name not in left_out}


def start_of(
    picture: Image.Image | ptinv.Inversion, inversion: ptinv.Inversion
) -> Image.Image | ptinv.Inversion:
    """What pti starts from: a given inversion, if it is one by DDIM without a prompt."""
    if not isinstance(picture, ptinv.Inversion):
        return inversion.picture
    by = picture.settings["method"]
    title = by[0] if isinstance(by, list) else ptinv.METHODS[by].trajectory.title
    unguided = title == PTI.trajectory.title and not picture.settings["inversion_guidance"]
    return picture if unguided else picture.picture


def way_up(
    model: ptinv.StableDiffusion, inversion: ptinv.Inversion, progress: Progress
) -> list[Guess]:
    """The inversion once more, step by step, with what each step takes the picture to be."""
    empty, schedule = model.embed(""), inversion.schedule
    z0 = inversion.trajectory[0].to(model.device)
    walk = sampling.invert(model, z0, schedule, sampling.constant(empty, empty), 0.0)
    shown = some(len(schedule))
    return [
        Guess(step.k, step.timestep.t, small(model.decode(step.z)), model.decode(step.z0))
        for step in progress(walk, "walking up")
        if step.k in shown
    ]


def walks_down(
    model: ptinv.StableDiffusion,
    inversion: ptinv.Inversion,
    prompt: str,
    wanted: Image.Image,
    given: dict[str, Any],
    progress: Progress,
) -> tuple[list[ptinv.Step], list[Walk]]:
    """The ways down that are not tuned, by ω, and the tuned one, last, with its steps."""
    guidance = inversion.made_by.guidance
    ways = [(w, "ddim-global", {"guidance": w}) for w in sorted({0.0, 1.0, guidance})]
    ways.append((guidance, "pti", given | UNMASKED))
    walks, steps = [], []
    for w, method, how in progress(ways, "walking down"):
        steps = list(ptinv.steps(model, inversion, prompt, method, **how))
        walks.append(walked(model, inversion, steps, w, method == "pti", wanted))
    return steps, walks


def walked(
    model: ptinv.StableDiffusion,
    inversion: ptinv.Inversion,
    steps: list[ptinv.Step],
    guidance: float,
    tuned: bool,
    wanted: Image.Image,
) -> Walk:
    """What there is to say of a way down."""
    trajectory, shown = inversion.trajectory.to(model.device), some(len(steps))
    distances = [0.0]  # it begins on the trajectory
    for step in steps:
        distances.append(float((step.z - trajectory[step.k - 1]).square().mean().sqrt()))
    frames = [small(model.decode(step.z0)) for step in steps if step.k in shown]
    back = model.decode(steps[-1].z)
    return Walk(guidance, tuned, distances, frames, back, psnr(back, wanted))


def tuning(
    model: ptinv.StableDiffusion,
    inversion: ptinv.Inversion,
    steps: list[ptinv.Step],
    progress: Progress,
) -> list[Tuned]:
    """Algorithm 1 seen from outside: each step's loss under c*, under the embedding that it starts
    with, and under the tuned one. steps: the tuned way down, each step of which starts where the
    tuning's did."""
    by = inversion.made_by
    null, target = model.embed(by.negative), model.embed(inversion.settings["prompt"])
    starts = {"target": target, "null": null, "source": model.embed(by.source or "")}
    start, gate, found = starts[by.init_embedding], interval(by.guidance_gate), []
    for step in progress(steps, "tuning again"):
        w = by.guidance if opened(gate, step.k, len(steps)) else min(by.guidance, 1.0)
        c = inversion.embeddings[step.k - 1].to(model.device)
        eps_null = model.predict_noise(step.z_from, step.timestep.t, null)
        pivot, losses = inversion.trajectory[step.k - 1].to(model.device), []
        for embedding in (target, start):
            landed = pti.guided_step(model, step.z_from, step.timestep, eps_null, w, embedding)
            losses.append(float((landed - pivot).square().mean()))
        losses.append(float(inversion.losses[step.k - 1]))
        found.append(Tuned(step.k, *losses, float((c - target).norm() / target.norm())))
        start = c
    return found[::-1]


def edits(
    model: ptinv.StableDiffusion,
    inversion: ptinv.Inversion,
    prompt: str,
    wanted: Image.Image,
    given: dict[str, Any],
    progress: Progress,
) -> tuple[list[Strength], list[Masked]]:
    """The edit by pti at every strength, and the masks of the one at the edit's own η."""
    own, strengths, masks = given.get("eta", PTI.own("eta")), [], []
    for eta in progress(sorted({*ETAS, own}), "η by η"):
        steps = list(ptinv.steps(model, inversion, prompt, "pti", **given | {"eta": eta}))
        made = model.decode(steps[-1].z)
        strengths.append(Strength(eta, made, psnr(made, wanted)))
        if eta == own:
            masks = [Masked(step.k, None if step.mask is None else step.mask.cpu())
                     for step in steps if step.k in some(len(steps))]  # fmt: skip
    return strengths, masks


def edited(
    model: ptinv.StableDiffusion,
    made: ptinv.Result,
    prompt: str,
    wanted: Image.Image,
) -> Edited:
    """The caller's edit, as its `Result` has it."""
    settings, method = made.request.settings, made.request.method
    shown = resize(made.picture, wanted.size) if settings.paste_back else made.decoded
    return Edited(
        made.request.name,
        shown,
        psnr(shown, wanted),
        None if made.mask is None else made.mask[-1:].cpu(),
        settings,
        record_of(model, made.request, made.rows),
        reads=bool(method.strengths),
        words=pieces(prompt, new_words(model.tokenizer, prompt, settings.source or prompt)),
    )


def pieces(prompt: str, new: list[Word]) -> list[tuple[str, bool]]:
    """A prompt cut where its new words begin and end; each piece, and whether it is one of them."""
    prompt, cut, at = unicodedata.normalize("NFC", prompt), [], 0  # as words are counted
    for word in new:
        cut += [(prompt[at : word.start], False), (prompt[word.start : word.end], True)]
        at = word.end
    return [*cut, (prompt[at:], False)]
