"""Edits by many methods, measured: the items of `evaluate.py edits` and `evaluate.py search`.

Whatever the methods' stages can share, they do: a picture's inversion, its tuning. The seconds and
rows of an edit are those that it takes on its own.
"""

import hashlib
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor
from world import judge as judges
from world import scenes
from world.edits import Edit

import ptinv
from ptinv.methods.request import request_edit
from ptinv.methods.run import understood
from ptinv.settings import AUTO
from ptinv.storage.pictures import save_picture

from . import metrics
from .datasets import Case
from .meter import Cost, Meter
from .networks import Networks
from .runner import Group, Make, key_of, made_by
from .variants import Variant


@dataclass(frozen=True)
class Bench:
    """Model and networks that all edits of a run are made and measured with."""

    model: ptinv.StableDiffusion
    judge: judges.Judge | None = None
    perceptual: judges.Judge | None = None
    networks: Networks = Networks()
    hashes: dict[str, str | None] = field(default_factory=dict)  # of all that measure
    besides: Callable[[Image.Image, Edit], dict[str, Any]] | None = None  # further figures
    keep: Path | None = None  # a folder for the edits' pictures; none is kept without one

    def about(self) -> dict[str, Any]:
        """Hashes and precision that every result depends on, for JSON."""
        return made_by(self.model) | self.hashes


class Start(NamedTuple):
    """An inversion to go on from."""

    inversion: ptinv.Inversion
    cost: Cost


class Made(NamedTuple):
    """An edit that was made."""

    picture: Image.Image
    mask: Tensor | None  # (1, 1, h, w)
    cost: Cost


def groups(bench: Bench, cases: list[Case], variants: list[Variant]) -> list[Group]:
    """A group a picture, an item a variant."""
    return [
        Group([settings_of(bench, case, variant) for variant in variants],
              partial(_begin, bench, case, variants))
        for case in cases
    ]  # fmt: skip


def settings_of(bench: Bench, case: Case, variant: Variant) -> dict[str, Any]:
    """Settings of an item: all that its result depends on."""
    edit = case.about | dict(kind=case.kind, caption=case.caption, target=case.target)
    how = {"method": variant.method, "settings": variant.settings(case.caption or "")}
    if strengths := variant.strengths:
        how["strengths"] = strengths
    return bench.about() | edit | how


def _begin(bench: Bench, case: Case, variants: list[Variant]) -> Make:
    edit, starts = case.open(), {}

    def make(i: int) -> dict[str, Any]:
        made = make_edit(bench.model, edit, variants[i], starts)
        figures = measured(bench, edit, variants[i], made)
        if bench.keep:
            name = key_of(settings_of(bench, case, variants[i])) + ".png"
            save_picture(made.picture, bench.keep / name)
            figures["file"] = name
        return figures | {n: case.about[n] for n in ("classes",) if n in case.about}

    return make


def measured(bench: Bench, edit: Edit, variant: Variant, made: Made) -> dict[str, Any]:
    """The figures of an edit; None for what was not measured."""
    figures = bench.networks.figures(made.picture, edit.picture, edit.target, edit.mask)
    figures |= {"row": variant.label, **made.cost._asdict()}
    if edit.mask:
        figures |= beside_the_picture(made, edit, metrics.region(edit.mask))
    if bench.besides:
        figures |= bench.besides(made.picture, edit)
    if edit.truth:
        figures |= beside_the_truth(bench, made, edit)
    return figures


def beside_the_picture(made: Made, edit: Edit, inside: Tensor) -> dict[str, Any]:
    """The fidelity outside the mask, and the agreement of the edit's own mask with it."""
    return {
        "psnr_outside": metrics.psnr(made.picture, edit.picture, ~inside),
        "ssim_outside": metrics.ssim(made.picture, edit.picture, ~inside),
        "iou": None if made.mask is None else metrics.overlap(made.mask[-1, 0], inside),
    }


def beside_the_truth(bench: Bench, made: Made, edit: Edit) -> dict[str, Any]:
    """The figures that only a scene's edit has."""
    inside = metrics.region(edit.mask)
    figures: dict[str, Any] = dict.fromkeys(("right", "success", "preservation", "seen"))
    if bench.judge:
        (seen,) = judges.look(bench.judge, [made.picture])
        found = metrics.verdict(scenes.read(edit.caption), scenes.read(edit.target), seen)
        figures |= found._asdict() | {"right": found.right, "seen": described(seen)}
    distance = None
    if bench.perceptual:
        both = [made.picture], [edit.truth]
        distance = float(judges.perceptual_distance(bench.perceptual, *both)[0])
    return figures | {
        "psnr": metrics.psnr(made.picture, edit.truth),
        "psnr_inside": metrics.psnr(made.picture, edit.truth, inside),
        "ssim_inside": metrics.ssim(made.picture, edit.truth, inside),
        "perceptual": distance,
    }


def described(seen: scenes.Content) -> str:
    """Describes what the judge saw."""
    things = " and ".join(f"{n} {colour} {kind}" for (colour, kind), n in seen.groups.items())
    return f"{things or 'nothing'} {seen.background}"


def make_edit(
    model: ptinv.StableDiffusion, edit: Edit, variant: Variant, starts: dict[Hashable, Start]
) -> Made:
    """Makes an edit from whichever of the picture's starts fits, and adds the starts it makes."""
    if variant.method == "nothing":
        return Made(edit.picture, None, Cost())
    if variant.method == "truth":
        return Made(ptinv.reconstruct(model, edit.truth, method="vae"), None, Cost())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ptinv.Remark)
        return _made(model, edit, variant, starts)


def _made(
    model: ptinv.StableDiffusion, edit: Edit, variant: Variant, starts: dict[Hashable, Start]
) -> Made:
    given = variant.given(edit.caption, edit.mask)
    result, cost = result_of(model, edit.picture, edit.target, variant.method, given, starts)
    return Made(result.picture, result.mask, cost)


def result_of(
    model: ptinv.StableDiffusion,
    picture: Image.Image,
    prompt: str,
    name: str,
    given: dict[str, Any],
    starts: dict[Hashable, Start],
) -> tuple[ptinv.Result, Cost]:
    """An edit by a method's name, from whichever of the picture's starts fits."""
    method = ptinv.METHODS[name]
    given, settings, reading = _understood(model, picture, prompt, name, given, starts)
    # all, lest a start's own fill what is not given
    options = {n: v for n, v in vars(settings).items() if n not in ("mask", "mask_from")} | given
    inverted = _shared_by(method.trajectory, settings, prompt)
    whole = inverted, _shared_by(method.extra, settings, prompt)
    if inverted not in starts:
        bare = replace(method, extra=None)  # with the extra it might serve fewer
        meter = Meter(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ptinv.Remark)  # the edit itself makes the same ones
            inversion = ptinv.invert(meter.model, picture, prompt, bare, **options)
        starts[inverted] = Start(inversion, meter.so_far())
    start = starts.get(whole, starts[inverted])
    meter = Meter(model)
    result = ptinv.result(meter.model, start.inversion, prompt, name, meter.progress, **options)
    _ = result.decoded  # kept with it, and part of what it costs
    cost = reading.plus(start.cost).plus(meter.so_far())
    starts.setdefault(whole, Start(result.inversion, start.cost.plus(meter.beforehand)))
    return result, cost


def _understood(
    model: ptinv.StableDiffusion,
    picture: Image.Image,
    prompt: str,
    name: str,
    given: dict[str, Any],
    starts: dict[Hashable, Any],
) -> tuple[dict[str, Any], ptinv.Settings, Cost]:
    """The options, all settings, and the cost of reading the picture, which is done once: what it
    shows then is among the options."""
    method = ptinv.METHODS[name]
    settings, cost = method.settings(**given), Cost()
    if settings.source != AUTO and not method.strengths:
        return given, settings, cost
    # methods with strengths read less thoroughly
    key = "reading", bool(method.strengths), prompt, settings.among, settings.seed, settings.size
    if settings.source == AUTO and key in starts:
        source, cost = starts[key]
        given = given | {"source": source}
    with warnings.catch_warnings():
        if method.strengths:  # else the reading is remarked on here alone
            warnings.simplefilter("ignore", ptinv.Remark)
        request = request_edit(picture, prompt, name, **given)
        meter = Meter(model)
        sized = meter.model.sized(settings.size)
        found = understood(sized, request, sized.encode(picture))
    if request.settings.source == AUTO:
        cost, given = meter.so_far(), given | {"source": found.source}
        if found.source:  # a text of new words alone leaves none, and is read anew
            starts[key] = found.source, cost
    return given | ({"mask": None} if found.mask is None else {}), found, cost


def _shared_by(stage: ptinv.Stage | None, settings: ptinv.Settings, prompt: str) -> Hashable:
    """A key that is equal for all variants that can share what the stage makes of a picture."""
    return stage and (stage, *stage.key(settings, prompt).items())


def sha256(path: Path) -> str:
    """The hash of a network's file, short."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
