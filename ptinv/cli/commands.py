"""What each command does.

Whatever can be refused is refused before the model is loaded, and the output is written last and
at once. Progress and remarks go to stderr, results to stdout.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from PIL import Image

from .. import ddim, files, images, inverting, maps, pipeline
from ..errors import InputError
from ..inversion.record import SUFFIX, Inversion, is_inversion
from ..methods import METHODS
from ..provenance import Recipe, check_same, fingerprint, made_with
from ..settings import NAMES, Settings, check_prompt
from .given import flag, open_any, open_model, options, progress_of
from .job import Job

log = logging.getLogger(__name__)


def edit(args: argparse.Namespace) -> None:
    output = images.check_output(args.output, _inputs(args))
    picture, given = open_any(args.picture), options(args)
    shown = images.check_output(args.show_mask, _inputs(args)) if "show_mask" in args else None
    if shown == output:
        raise InputError("the mask would overwrite the picture; name another file for one of them")
    job = Job.of("edit", picture, args.prompt, _method(args, picture), given, output, shown)
    job.perform(open_model(args), progress_of(args))


def invert(args: argparse.Namespace) -> None:
    output = files.check_output(args.output, [SUFFIX])
    if args.prompt is not None:
        check_prompt(args.prompt, "what the picture should become, or leave it out")
    if is_inversion(args.picture):
        raise InputError(
            f"{args.picture} is an inversion already; give it to `ptinv edit` or `reconstruct`"
        )
    picture, given = images.open_picture(args.picture), options(args)
    method = _method(args, picture)
    inverting.settings_of(picture, method, **given)
    how = picture, args.prompt, method, progress_of(args)
    inverting.invert(open_model(args), *how, **given).save(output)


def reconstruct(args: argparse.Namespace) -> None:
    output = images.check_output(args.output, _inputs(args))
    picture, given = open_any(args.picture), options(args)
    method, prompt = _method(args, picture), args.prompt
    if prompt is None:
        prompt = pipeline.own_prompt(picture, method)
    job = Job.of("reconstruct", picture, prompt, method, given, output)
    job.perform(open_model(args), progress_of(args))


def again(args: argparse.Namespace) -> None:
    recipe, edited = Recipe.read(args.edited), Path(args.edited)
    if recipe.command == "generate":
        raise InputError(f"{edited} is made of nothing but its prompt and seed; use ptinv generate")
    output = args.output or edited.with_name(f"{edited.stem}-again.png")
    if not args.output and output.exists():
        raise InputError(f"{output} exists already; name the output with -o")
    output = images.check_output(output, _inputs(args))
    given = vars(recipe.settings) | _same_mask(args, recipe.mask_hash)
    picture = open_any(args.picture)
    job = Job.of(recipe.command, picture, recipe.prompt, recipe.method, given, output)
    if job.picture_hash != recipe.picture_hash:
        log.warning("%s is not what %s was made of: making the same of it", args.picture, edited)
    model = open_model(args, **{name: recipe.made_with[name] for name in ("device", "dtype")})
    check_same(str(edited), recipe.made_with, model)
    repeated = job.perform(model, progress_of(args))
    same = fingerprint(repeated) == fingerprint(images.open_picture(edited))
    log.info("%s has %s pixels as %s", output, "the same" if same else "not the same", edited)


def _same_mask(args: argparse.Namespace, mask_hash: str) -> dict[str, Any]:
    """The mask that an edit was made with, if it was. Raises InputError for any other."""
    given = getattr(args, "mask", None)
    if not mask_hash and given:
        raise InputError(f"{args.edited} was made without a mask of yours; leave --mask out")
    if not mask_hash:
        return {}
    if not given:
        raise InputError(f"{args.edited} was made with a mask of yours; give it with --mask FILE")
    mask = images.open_picture(given)
    if fingerprint(mask) != mask_hash:
        raise InputError(f"{given} is not the mask that {args.edited} was made with; give that one")
    return {"mask": mask}


def generate(args: argparse.Namespace) -> None:
    output = images.check_output(args.output)
    check_prompt(args.prompt, "what the picture should show")
    settings = pipeline.settings_of_generating(**options(args))
    shown = None
    if "show_source" in args:
        shown = images.check_output(args.show_source)
        if not settings.source:
            raise InputError("there is no source's picture to show; give its prompt with --source")
        if shown == output:
            raise InputError("both pictures would go to one file; name another for one of them")
    model, text = open_model(args), None
    if images.carries_text(output):
        text = Recipe("generate", args.prompt, "generate", settings, made_with(model)).chunks()
    z0 = pipeline.generated(model, args.prompt, settings, progress_of(args))
    images.save_picture(model.decode(z0[-1:]), output, text)
    if shown:
        images.save_picture(model.decode(z0[:1]), shown)


def attention(args: argparse.Namespace) -> None:
    output = images.check_output(args.output, _inputs(args))
    check_prompt(args.prompt, "what to look for in the picture")
    picture, given = open_any(args.picture), options(args)
    settings = maps.settings_of_maps(picture, **given)
    count = len(ddim.ladder(settings.steps, settings.encode_ratio))
    for steps in args.at or []:
        maps.check_steps(steps, count)
    model = open_model(args)
    size = picture.picture.size if isinstance(picture, Inversion) else picture.size
    strips = len(set(args.levels or [0])) * len(args.at or [0])
    maps.check_sheet(size, len(model.tokenizer.read(args.prompt)), strips)
    how = picture, args.prompt, args.levels, progress_of(args)
    found = maps.attention_maps(model, *how, **given)
    images.save_picture(found.draw(args.at), output)


def methods(args: argparse.Namespace) -> None:
    usual = Settings()
    for name, row in METHODS.items():
        parts = [row.trajectory.title, *([row.extra.title] if row.extra else [])]
        needs = "; needs --source" if row.needs_source else ""
        print(f"{name}\n    {row.title}\n    from {', '.join(parts)}{needs}")
        if row.defaults:
            print("    " + " ".join(f"{flag(n)} {value}" for n, value in row.defaults.items()))
    shown = [n for n in NAMES if getattr(usual, n) not in (None, {}, False)]
    print("the other defaults\n    " + " ".join(f"{flag(n)} {getattr(usual, n)}" for n in shown))


def _method(args: argparse.Namespace, picture: Image.Image | Inversion) -> str:
    return getattr(args, "method", None) or inverting.method_of(picture)


def _inputs(args: argparse.Namespace) -> list[str]:
    """The files that a command reads and so must not write to."""
    return [getattr(args, name) for name in ("picture", "edited", "mask") if name in args]


COMMANDS = {c.__name__: c for c in (edit, invert, reconstruct, again, generate, attention, methods)}
