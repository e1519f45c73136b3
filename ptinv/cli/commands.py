"""The commands: each function carries out the one of its name, with what `options.py` has read.

Whatever can be refused is refused before the model is loaded, and the output is written last and
at once. Progress and remarks go to stderr, results to stdout.
"""

import os
import sys
from argparse import Namespace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from tqdm import tqdm

from .. import api
from ..core.model import StableDiffusion
from ..core.pictures import resize
from ..cost import Rows, counted
from ..errors import Doubt, InputError, remark
from ..methods.masks import over, painted
from ..methods.request import opened
from ..methods.stages import Progress
from ..methods.table import METHODS
from ..metrics import psnr
from ..settings import DEFAULTS, NAMES, check_prompt
from ..storage import checkpoint, files, pictures
from ..storage.inversion import SUFFIX
from ..storage.provenance import Recipe, check_same, fingerprint
from .options import flag


def edit(args: Namespace) -> None:
    output = _output(args, args.output)
    shown = args.show_mask and _output(args, args.show_mask, output)
    request = api.request_edit(args.picture, args.prompt, args.method, **settings(args))
    result = _make(args, request, load(args), output)
    if shown:
        mask = torch.ones(1, 1, 1, 1) if result.mask is None else result.mask
        pictures.save_picture(over(request.image, mask), shown)


def invert(args: Namespace) -> None:
    output = _output(args, args.output)
    if args.prompt is not None:
        check_prompt(args.prompt, "what the picture should become, or leave it out")
    method = "pti" if args.method is None else args.method
    request = api.request_inversion(args.picture, args.prompt, method, **settings(args))
    edit, inversion = api.begin(load(args), request, _progress(args))
    inversion.save(output)
    _say_cost(args, edit.model, edit.rows)


def reconstruct(args: Namespace) -> None:
    output = _output(args, args.output)
    request = api.request_reconstruction(args.picture, args.prompt, args.method, **settings(args))
    _make(args, request, load(args), output)


def again(args: Namespace) -> None:
    recipe, edited = Recipe.read(args.edited), Path(args.edited)
    if recipe.command == "generate":
        raise InputError(f"{edited} is made of nothing but its prompt and seed; use ptinv generate")
    output = args.output or edited.with_name(f"{edited.stem}-again.png")
    if not args.output and output.exists():
        raise InputError(f"{output} exists already; name the output with -o")
    output = _output(args, output)
    mask = getattr(args, "mask", None)
    if recipe.mask_hash != (fingerprint(opened(mask, painted)) if mask else ""):
        asked, told = "a mask of yours; give that one with --mask", "none; leave --mask out"
        raise InputError(f"{edited} was made with {asked if recipe.mask_hash else told}")
    given = vars(recipe.settings) | ({"mask": mask} if mask else {})
    if mask and "file" not in (given["mask_from"] or ""):
        del given["mask_from"]
    if recipe.command == "reconstruct":
        del given["eta"]  # it is always 0
    verb = api.request_edit if recipe.command == "edit" else api.request_reconstruction
    request = verb(args.picture, recipe.prompt, recipe.method, **given)
    model = load(args, recipe.made_with["device"], recipe.made_with["dtype"])
    check_same(str(edited), recipe.made_with, model)
    if api.input_hash(request) != recipe.picture_hash:
        remark(f"{args.picture} is not what {edited} was made of: making the same of it", Doubt)
    repeated = _make(args, request, model, output).picture
    same = fingerprint(repeated) == fingerprint(pictures.open_picture(edited))
    remark(f"{output} has {'the same' if same else 'not the same'} pixels as {edited}")


def generate(args: Namespace) -> None:
    output = _output(args, args.output)
    shown = args.show_source and _output(args, args.show_source, output)
    check_prompt(args.prompt, "what the picture should show")
    request = api.request_generation(args.prompt, **settings(args))
    if shown and not request.settings.source:
        raise InputError("there is no source's picture to show; give its prompt with --source")
    model, rows = counted(load(args))
    latents = api.run_generation(model, request, _progress(args))  # the source's before the edit's
    record = None if args.no_record else api.record_of(model, request, rows)
    pictures.save_picture(model.decode(latents[-1:]), output, record)
    if shown:
        pictures.save_picture(model.decode(latents[:1]), shown)
    _say_cost(args, model, rows)


def methods(args: Namespace) -> None:
    def spelt(given: dict[str, Any]) -> str:
        return " ".join("--no-mask" if v is None else f"{flag(n)} {v}" for n, v in given.items())

    for name, method in METHODS.items():
        print(f"{name}\n    {method.title}\n    from {', '.join(filter(None, method.stages))}")
        if method.defaults:
            print(f"    {spelt(method.defaults)}")
        for kind, strength in method.strengths.items():
            print(f"    {spelt(strength)} for a new {kind}")
    usual = {n: v for n, v in DEFAULTS.items() if isinstance(v, int | float | str) and n != "mask"}
    print(f"the other defaults\n    {spelt({n: v for n, v in usual.items() if v})}")


def _make(args: Namespace, request: api.Request, model: StableDiffusion, path: Path) -> api.Result:
    """Makes and saves the picture; a reconstruction's PSNR is printed."""
    result = api.run(model, request, _progress(args))
    result.save(path, record=not args.no_record)
    if request.command == "reconstruct":
        wanted = resize(request.image, result.decoded.size)
        ceiling = model.decode(result.inversion.trajectory[0])
        print(f"{request.name}: {psnr(result.decoded, wanted):.2f} dB")
        print(f"vae: {psnr(ceiling, wanted):.2f} dB (the ceiling)")
    _say_cost(args, model, result.rows)
    return result


def _say_cost(args: Namespace, model: StableDiffusion, rows: Rows) -> None:
    """Says what a command took, if it is to be verbose: rows, seconds and precision."""
    if args.verbose:
        on = f"{str(model.dtype).removeprefix('torch.')} on the {model.device.type}"
        remark(f"{rows}; {perf_counter() - args.begun:.1f} s, in {on}")


def _output(args: Namespace, path: str | Path, other: Path | None = None) -> Path:
    """A path to save at, checked against the command's inputs, model and other output."""
    suffixes = [SUFFIX] if args.command == "invert" else pictures.FORMATS
    if other and os.path.realpath(path) == os.path.realpath(other):
        raise InputError("both pictures would go to one file; name another for one of them")
    model = Path(args.model or os.environ.get("PTINV_MODEL") or checkpoint.EMBEDDED)
    inputs = [getattr(args, name, None) for name in ("picture", "edited", "mask")]
    inputs += [model, *model.glob("*/*.safetensors")]
    return files.check_output(path, suffixes, filter(None, inputs))


def settings(args: Namespace) -> dict[str, Any]:
    """The settings that were given, as Python takes them."""
    given = {name: getattr(args, name) for name in NAMES if name in args}
    return given | {n: dict(given[n]) for n in ("reweight", "cross_replace") if n in given}


def load(args: Namespace, device: str | None = None, dtype: str | None = None) -> StableDiffusion:
    """Loads the model given here or in the environment; `device` and `dtype` if none were given."""
    if args.model == "":
        raise InputError("--model is empty; name a checkpoint, or leave it out for the tiny model")
    if not (path := args.model or os.environ.get("PTINV_MODEL")):
        remark(
            "no --model given: using the embedded tiny model, which knows only its own small world "
            "of drawn scenes; for photographs, fetch Stable Diffusion with `python "
            "tools/download_weights.py sd-v1-4` (of ptinv's repository) and give --model sd-v1-4"
        )
    how = args.device or device, args.dtype or dtype, args.tokenizer
    return checkpoint.load(path or None, *how, compile=args.compile)


def _progress(args: Namespace) -> Progress:
    """A bar on stderr for each long loop, unless it is to be quiet."""
    return lambda loop, label: tqdm(loop, desc=f"{label:9}", disable=args.quiet, file=sys.stderr)
