"""Runs a method: reuses an inversion or makes it, then samples. What is made again is remarked."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..core import ddim
from ..core.model import StableDiffusion
from ..core.pti import blend
from ..core.sampling import Step, sample
from ..cost import counted
from ..errors import Doubt, InputError, Remark, remark
from ..settings import AUTO, Settings, of_an_inversion
from ..storage.inversion import Inversion, pixels_of
from ..storage.provenance import made_with
from .controls import SIDE_BY_SIDE, AttentionStore, chained, reweight
from .edit import Edit
from .masks import fixed_masks, mask_at
from .request import Request, made_alike, settings_for
from .source import QUICK, THOROUGH, infer
from .stages import Progress, silent
from .table import MISSING, Method, name_of
from .words import change_of, choose_words, new_words, read, warn_of_words


@torch.no_grad()
def prepare(model: StableDiffusion, request: Request) -> Edit:
    """A request with its model: the picture encoded and read, its texts embedded, its words found.
    Raises InputError for a word that is not in its text, and texts that cannot be paired."""
    stored, image, prompt = request.inversion, request.image, request.prompt or ""
    if not isinstance(model, StableDiffusion):
        raise TypeError(f"the model must be what ptinv.load returns, not {type(model).__name__}")
    model, rows = counted(model.sized(request.settings.size))
    size = model.latent_size(image.size if image else request.settings.size or (1, 1))
    embed = cache(model.embed)  # most of the texts are empty
    if stored:
        stored.check_fits(model)
    z0 = stored.trajectory[0].to(model.device) if stored else image and model.encode(image)
    settings = understood(model, request, z0)
    source = settings.source or ""
    for text in (prompt, source, settings.negative):
        warn_of_words(model, text)
    schedule = ddim.schedule(settings.steps, settings.encode_ratio)
    words = choose_words(model.tokenizer, prompt, settings, (*request.branches[:-1], "target"))
    embeddings = map(embed, ("", settings.negative, prompt, source))
    given = prompt, settings, request.branches, schedule, size, z0
    edit = Edit(model, *given, *embeddings, words=words, rows=rows)
    edit = replace(edit, controls=tuple(request.method.control(edit)))
    if about := edit.words.about:
        remark(about, Remark if edit.words.focus else Doubt)
    return edit


def understood(model: StableDiffusion, request: Request, z0: Tensor | None) -> Settings:
    """The settings, with the source text read off the picture where it is "auto", and as strong as
    what is new to the picture wants it. Raises InputError where there is nothing to read."""
    settings, method, prompt = request.settings, request.method, request.prompt
    tokenizer = model.tokenizer
    if settings.source != AUTO and not (method.strengths and settings.source):
        return settings
    if z0 is None or not prompt:
        if method.needs_source:
            raise InputError(MISSING)
        return replace(settings, source=None)
    if (source := settings.source) == AUTO:
        choose_words(tokenizer, prompt, replace(settings, source=prompt), ("target",))  # checks
        search = QUICK if method.strengths else THOROUGH
        source = infer(model, z0, prompt, (settings.among or "").split(), settings.seed, search)
    new = new_words(tokenizer, prompt, source)
    shown = f"the picture shows: {source}; new: {' '.join(word.text for word in new) or 'nothing'}"
    remark(shown, Remark if new else Doubt)
    strength = method.strengths.get(change_of(read(tokenizer, prompt), new), {})
    method = replace(method, defaults=method.defaults | strength)
    given = request.given | {"source": source}
    return settings_for(request.inversion or request.image, method, prompt, **given)


@torch.no_grad()
def begin(
    model: StableDiffusion, request: Request, progress: Progress = silent
) -> tuple[Edit, Inversion]:
    """Everything before the first step: the edit with all its tensors, and the inversion, stored or
    new. Without a prompt, an extra that depends on one is left for later."""
    edit, inversion = prepare(model, request), request.inversion
    method, settings, prompt = request.method, edit.settings, request.prompt
    request = replace(request, settings=settings)
    record = of_an_inversion(settings) | {"method": name_of(method) or method, "prompt": prompt}
    if not inversion:
        pixels, by = pixels_of(request.image), made_with(model)
        trajectory = method.trajectory.make(edit, progress)["trajectory"]
        inversion = Inversion(pixels, trajectory, record, made_with=by)
    if method.extra and not _serves(inversion, request):
        extras = method.extra.make(_with_tensors(edit, inversion), progress)
        for name, t in extras.items():
            if t.dtype != torch.float32 or t.ndim < 2 or len(t) != len(edit.schedule):
                wrong = f"not {t.dtype} {list(t.shape)}"
                raise InputError(f"{name} must be float32 (T', 1, …), {wrong}")
        inversion = replace(inversion, settings=record, extras=extras)
    return _with_tensors(edit, inversion), inversion


def _with_tensors(edit: Edit, inversion: Inversion) -> Edit:
    made = inversion.extras | {"trajectory": inversion.trajectory}
    return replace(edit, made={name: made[name].to(edit.model.device) for name in made})


def _serves(inversion: Inversion, request: Request) -> bool:
    """True unless the request's method has to make something of the inversion's trajectory now."""
    extra, settings, prompt = request.method.extra, request.settings, request.prompt
    awaits_prompt = prompt is None and extra.key(settings, None) != extra.key(settings, "any")
    if awaits_prompt or settings.reuse_tuning:
        return True
    if made_alike(inversion, request.method):
        was = extra.key(inversion.made_by, inversion.settings["prompt"])
        now = extra.key(settings, prompt)
        differ = [name for name, value in now.items() if was.get(name) != value]
        if not differ:
            return True
        remark(f"the inversion has another {', '.join(differ)}: again, {extra.title}")
    elif inversion.extras:
        remark(f"the inversion holds nothing of this method's own: {extra.title}")
    return False


def steps_of(
    method: Method, edit: Edit, start: Tensor, progress: Progress = silent
) -> Iterator[Step]:
    """Samples by a method from `start` (1, c, h, w): one step a timestep, one latent a branch."""
    words, steps = edit.words, len(edit.schedule)
    store, controls = AttentionStore(edit.model.unet.config.mask_level), list(edit.controls)
    conditions = {"target": method.condition, "source": method.source_condition}
    each = [conditions[branch](edit) for branch in edit.branches]
    if words.focus:
        controls.append(store.control)
    if edit.settings.reweight:  # after the store: a weight changes how much, not where
        controls.append(reweight(words.factors, words.gates, steps))
    fixed = fixed_masks(edit)

    def rule(step: Step) -> Step:
        """The method's own, then local blending with the pivot, or with the source's branch."""
        step = replace(step, z=method.after(edit, step))
        mask = mask_at(edit, fixed, store, step.k)
        if mask is None:
            return step
        behind = step.z[:1] if edit.branches == SIDE_BY_SIDE else edit.pivot(step)
        return blend(step, mask, behind)

    return sample(
        edit.model,
        start.expand(len(edit.branches), -1, -1, -1),
        progress(edit.schedule[::-1], "sampling"),
        lambda k: tuple(map(torch.cat, zip(*(condition(k) for condition in each), strict=True))),
        edit.guidance,
        control=chained(controls),
        guide=method.guide(edit),
        advance=method.advance(edit),
        after=[rule],
        branches=(*edit.branches[:-1], "target"),  # also for a source that is sampled alone
    )
