"""Runs a row of the table: reuses an inversion or makes it, then samples.

Which parts of a stored inversion are made again, and why, is logged.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..core import ddim
from ..core.model import StableDiffusion
from ..core.pti import blend
from ..core.sampling import After, Condition, Step, sample
from ..settings import of_an_inversion
from ..storage.inversion import EXTRAS, Inversion, pixels_of
from ..storage.provenance import made_with
from .controls import SIDE_BY_SIDE, AttentionStore, chained, reweight
from .edit import Edit
from .masks import fixed_masks, mask_at
from .request import Request, made_alike
from .stages import Progress, silent
from .table import Method
from .words import choose_words, warn_of_words

log = logging.getLogger(__name__)


@torch.no_grad()
def prepare(model: StableDiffusion, request: Request) -> Edit:
    """A request with its model: the picture encoded, its texts embedded, its words found. Raises
    InputError for a word that is not in its text, and texts that cannot be paired."""
    settings, prompt = request.settings, request.prompt or ""
    for text in (prompt, settings.source or ""):
        warn_of_words(model, text)
    stored, image, null = request.inversion, request.image, model.embed("")
    trained = (model.unet.config.trained_size,) * 2
    edit = Edit(
        model,
        prompt,
        settings,
        request.branches,
        ddim.schedule(settings.steps, settings.encode_ratio),
        latent_size=model.latent_size(image.size) if image else trained,
        z0=stored.trajectory[0].to(model.device) if stored else image and model.encode(image),
        null=null,
        target=model.embed(prompt) if prompt else null,
        source=model.embed(settings.source) if settings.source else null,
        words=choose_words(model.tokenizer, prompt, settings, request.branches),
    )
    return replace(edit, controls=tuple(request.row.control(edit)))


@torch.no_grad()
def begin(
    model: StableDiffusion, request: Request, progress: Progress = silent
) -> tuple[Edit, Inversion]:
    """Everything before the first step: the edit with all its tensors, and the inversion.

    That is the stored one or a new one, with everything that the row needs beforehand. Without a
    prompt, an extra that depends on one is left for later.
    """
    edit, inversion = prepare(model, request), request.inversion
    row, settings, prompt = request.row, request.settings, request.prompt
    record = of_an_inversion(settings) | {"method": request.method, "prompt": prompt}
    extra = row.extra
    if inversion:
        inversion.check_fits(model)
        if extra and (settings.reuse_tuning or _serves(inversion, request)):
            extra = None
    else:
        pixels, by = pixels_of(request.image), made_with(model)
        trajectory = row.trajectory.make(edit, progress)["trajectory"]
        inversion = Inversion(pixels, trajectory, record, made_with=by)
        if extra and prompt is None and extra.key(settings, None) != extra.key(settings, "any"):
            extra = None
    if extra:
        made = extra.make(replace(edit, trajectory=inversion.trajectory.to(model.device)), progress)
        inversion = replace(inversion, settings=record, **dict.fromkeys(EXTRAS) | made)
    tensors = inversion.on(model.device)
    return replace(edit, tuned=tensors.pop("embeddings", None), **tensors), inversion


def run_inversion(
    model: StableDiffusion, request: Request, progress: Progress = silent
) -> Inversion:
    """Makes a requested inversion."""
    return begin(model, request, progress)[1]


def _serves(stored: Inversion, request: Request) -> bool:
    """True if a stored inversion's extra is what the request's row would make."""
    extra = request.row.extra
    if made_alike(stored, request.row):
        was = extra.key(stored.made_by, stored.settings["prompt"])
        now = extra.key(request.settings, request.prompt)
        differ = [name for name, value in now.items() if was[name] != value]
        if not differ:
            return True
        log.info("the inversion has another %s: again, %s", ", ".join(differ), extra.title)
    elif stored.extras:
        log.info("the inversion holds nothing of this method's own: %s", extra.title)
    return False


def steps_of(row: Method, edit: Edit, start: Tensor, progress: Progress = silent) -> Iterator[Step]:
    """Samples a row from `start` (1, c, h, w): a step a timestep, with a row a branch."""
    words, steps = edit.words, len(edit.schedule)
    store, controls = AttentionStore(edit.model.unet.config.mask_level), list(edit.controls)
    if words.focus:
        controls.append(store.control)
    if words.factors is not None:  # after the store: a weight changes how much, not where
        controls.append(reweight(words.factors, words.gates, steps))
    return sample(
        edit.model,
        start.expand(len(edit.branches), -1, -1, -1),
        progress(edit.schedule[::-1], "sampling"),
        conditions(row, edit),
        edit.settings.guidance,
        control=chained(controls),
        guide=row.guide(edit),
        advance=row.advance(edit),
        after=after_steps(row, edit, store),
        branches=edit.branches,
    )


def conditions(row: Method, edit: Edit) -> Condition:
    """The embeddings of each step, a row a branch."""
    by_branch = {"target": row.condition, "source": row.source_condition}
    each = [by_branch[branch](edit) for branch in edit.branches]

    def at(k: int) -> tuple[Tensor, Tensor]:
        null, cond = map(torch.cat, zip(*(condition(k) for condition in each), strict=True))
        return null, cond

    return at


def after_steps(row: Method, edit: Edit, store: AttentionStore) -> list[After]:
    """The row's own rule, then local blending with the pivot, or with the source's branch."""
    rules: list[After] = [lambda step: replace(step, z=row.after(edit, step))]
    if not edit.is_masked:
        return rules
    fixed = fixed_masks(edit)

    def blend_locally(step: Step) -> Step:
        mask = mask_at(edit, fixed, store, step.k)
        behind = step.z[:1] if edit.branches == SIDE_BY_SIDE else edit.pivot(step)
        return step if mask is None else blend(step, mask, behind)

    return [*rules, blend_locally]
