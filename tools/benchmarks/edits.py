"""Whole edits: their seconds, their UNet rows and their memory, eager and compiled.

A row is one latent at one timestep under one embedding, whatever batch it is in.
"""

import argparse
import gc
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

import ptinv
from ptinv.core import ddim, pti, sampling
from ptinv.core.attention import Control
from ptinv.core.model import StableDiffusion
from ptinv.cost import counted
from ptinv.errors import InputError
from ptinv.storage.pictures import open_picture

from .measure import Row, forget_peak, in_fresh_process, memory, now, timed
from .models import Which

BIRDS = Path(__file__).parents[2] / "weights" / "tiny" / "examples" / "birds.png"
SHOWN, PROMPT = "two pink birds in the snow", "two pink dogs in the snow"
WARM_UP = 2  # steps, which need all shapes that more need
EAGER, COMPILED, GRAPHS = "eager", "compiled", "compiled, CUDA graphs"


class Cost(NamedTuple):
    """Cost of the edits of some pictures, all together."""

    seconds: float  # the median
    forward: int  # UNet rows
    backward: int
    peak: float  # GB, at the highest; of the whole process on the CPU
    added: float  # GB of it that the edit took
    warm_up: float  # seconds of a first edit, of few steps; what a compiler takes is in it


def cost_of(
    model: StableDiffusion, edit: Callable[..., object], repeats: int, warm: bool = True
) -> Cost:
    """Measures edit(model), after a warm-up by edit(model, steps=2) unless it is to be spared."""
    device = model.device.type
    held, _ = memory(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ptinv.Remark)  # of what pictures show, and is new to them
        warm_up = timed(partial(edit, model, steps=WARM_UP)) if warm else 0.0
        model, rows = counted(model)
        forget_peak(device)
        seconds = median(timed(partial(edit, model)) for _ in range(repeats))
    peak = memory(device)[1]
    each = rows.forward // repeats, rows.backward // repeats
    return Cost(seconds, *each, peak / 1000, (peak - held) / 1000, warm_up)


def edit_all(
    model: StableDiffusion, pictures: list[Image.Image], prompt: str, method: str, **options
) -> list[Image.Image]:
    """Several pictures' edits: pti's as one batch without a mask, others one after the other."""
    if method == "pti" and len(pictures) > 1:
        return batch_of_pti(model, pictures, prompt, **options)
    return [ptinv.edit(model, picture, prompt, method, **options) for picture in pictures]


def batch_of_pti(
    model: StableDiffusion, pictures: list[Image.Image], prompt: str, **options
) -> list[Image.Image]:
    """Pictures of one size, edited together by the core's functions."""
    settings = ptinv.METHODS["pti"].settings(**options)
    up, null = ddim.schedule(settings.steps, settings.encode_ratio), model.embed("")
    target, z0 = model.embed([prompt] * len(pictures)), model.encode(pictures)
    trajectory = pti.ddim_inversion(model, z0, up, sampling.constant(null, null), 0.0)
    how = dict(inner_steps=settings.inner_steps, lr=settings.lr, guidance=settings.guidance)
    tuned = pti.tune(model, trajectory, up[::-1], target, null, **how).embeddings
    condition = pti.interpolate(null, tuned, target, settings.eta)
    walk = sampling.sample(model, trajectory[-1], up[::-1], condition, settings.guidance)
    return model.decode(sampling.last(walk, trajectory[-1]))


class Graphs(nn.Module):
    """A UNet compiled into CUDA graphs, which write to the same memory at each call. So what comes
    out is copied, since a step's predictions are used together, and calls under a control, which
    may keep what it sees, are compiled without graphs."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.config, self.without = unet.config, torch.compile(unet)
        self.graphs = torch.compile(unet, mode="reduce-overhead")

    def forward(
        self, z: Tensor, t: Tensor, context: Tensor, control: Control | None = None
    ) -> Tensor:
        if control is not None:
            return self.without(z, t, context, control)
        torch.compiler.cudagraph_mark_step_begin()
        return self.graphs(z, t, context).clone()


COMPILERS = {
    EAGER: lambda unet: unet,
    COMPILED: lambda unet: torch.compile(unet),
    GRAPHS: Graphs,
}


def attempted(call: Callable[[], Cost]) -> Cost | str:
    """Measures by a call, or says in a line why it could not: the other rows are still wanted.
    Raises InputError."""
    try:
        return call()
    except InputError:
        raise
    except BrokenExecutor:  # Linux ends a process that takes more memory than there is
        return "failed: its process was ended, most likely for want of memory"
    except Exception as error:  # compilers and devices have errors of all kinds
        said = " ".join(str(error).split()).replace("|", "/")
        return f"failed: {type(error).__name__}: {said[:200]}"


def cells(cost: Cost | str, count: int = 1) -> Row:
    """A row's end, for some pictures together. One that failed says why under its seconds."""
    if isinstance(cost, str):
        cost = Cost(cost, *[""] * 5)
    rate = "" if isinstance(cost.seconds, str) else count / cost.seconds
    return {
        "seconds": cost.seconds,
        "pictures a second": rate,
        "peak, GB": cost.peak,
        "of it added": cost.added,
        "UNet rows forward": cost.forward,
        "backward": cost.backward,
        "warm-up, s": cost.warm_up,
    }


def compiled_cost(
    model: StableDiffusion, compiler: str, edit: Callable[..., object], repeats: int
) -> Cost:
    """The cost of edit(model), the UNet compiled anew."""
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    if compiler != EAGER:
        torch.compiler.reset()
        model = replace(model, unet=COMPILERS[compiler](model.unet))
    return cost_of(model, edit, repeats)


def present(methods: list[str]) -> list[str]:
    """Those of the methods that there are."""
    return [method for method in methods if method in ptinv.METHODS]


def which(args: argparse.Namespace, dtype: str | None = None) -> Which:
    """The model that a command names, in another precision if one is given. Raises InputError."""
    if args.random and args.model:
        raise InputError("--random and --model are two models; give one")
    how = args.device, dtype or args.dtype, args.size, args.tokenizer
    return Which(args.model, args.random, *how)


def options_of(args: argparse.Namespace) -> dict[str, object]:
    """The options that are given for all edits; the others stay each method's own."""
    given = dict(steps=args.steps, source=args.source)
    return {name: value for name, value in given.items() if value is not None}


def about(args: argparse.Namespace) -> Iterator[str]:
    """Notes to a table of methods, a sentence each."""
    name = "random weights of sd-v1-4's size" if args.random else args.model or "the tiny model"
    yield f"Model: {name}" + (f", latents of side {args.size}." if args.size else ".")
    if missing := [method for method in args.methods if method not in ptinv.METHODS]:
        yield f"There is no method {' or '.join(missing)} here: skipped."
    if args.steps:
        yield f"All of {args.steps} steps; without --steps, of each method's own number."
    if args.source:
        yield f"The source text is given, not read off the picture: {args.source!r}."
    elif args.random:
        yield "What random weights read off a picture is chance, and so are the rows it takes."


def gpu(args: argparse.Namespace) -> Iterator[Row | str]:
    """A row for each UNet, number of pictures and method, as soon as it is measured."""
    start = now()
    model, picture = which(args).open(), open_picture(args.picture)
    yield from about(args)
    yield f"{str(model.dtype).removeprefix('torch.')}; opened in {now() - start:.0f} s."
    if max(args.pictures) > 1:
        yield "Several pictures are one batch of pti, unmasked; other methods take one at a time."
    compilers = [EAGER, COMPILED, GRAPHS] if args.device == "cuda" else [EAGER, COMPILED]
    for compiler in compilers if args.compile else [EAGER]:  # what is sure to work comes first
        for count in args.pictures:
            for method in present(args.methods):
                how = dict(pictures=[picture] * count, prompt=args.prompt, method=method)
                edit = partial(edit_all, **how, **options_of(args))
                cost = attempted(partial(compiled_cost, model, compiler, edit, args.repeats))
                yield {"method": method, "UNet": compiler, "pictures": count, **cells(cost, count)}


def precisions(args: argparse.Namespace) -> Iterator[Row | str]:
    """A row for each precision and method, each measured in a process of its own."""
    args.random, usual = not args.model, ["float32", "bfloat16", "float16"]
    if args.device == "cpu":  # where the rows that reading takes would take an hour
        args.steps, args.source = args.steps or WARM_UP, args.source or SHOWN
        usual.remove("float16")  # which CPUs emulate
    yield from about(args)
    yield "What an edit holds does not grow with its steps, but for 64 kB of latents a step."
    if args.source:
        yield "Reading it takes the UNet batches of 8 rows forward, which may be a higher peak."
    for dtype in args.precisions or usual:
        for method in present(args.methods):
            how = args.picture, args.prompt, method, options_of(args)
            cost = attempted(partial(in_fresh_process, one_edit, which(args, dtype), *how))
            yield {"method": method, "precision": dtype, **cells(cost)}


def one_edit(which: Which, path: Path, prompt: str, method: str, options: dict) -> Cost:
    """The cost of one edit, the model's opening left out; on a CPU, of the process's first."""
    edit = partial(edit_all, pictures=[open_picture(path)], prompt=prompt, method=method, **options)
    return cost_of(which.open(), edit, repeats=1, warm=which.device != "cpu")


def edit(args: argparse.Namespace) -> Iterator[Row]:
    """An edit with the default method: each loop's seconds, the UNet's rows, the memory."""
    model, rows = counted(ptinv.load(args.model, args.device, args.dtype))
    run = partial(ptinv.edit, model, open_picture(args.picture), args.prompt)
    run(steps=WARM_UP)
    row: Row = {}

    def progress(loop: Iterable, label: str) -> Iterator:
        start = now()
        yield from loop
        row[f"{label}, s"] = now() - start

    forget_peak(args.device)
    rows.forward = rows.backward = 0
    row["whole, s"] = timed(partial(run, steps=args.steps, progress=progress))
    counts = {"UNet rows forward": rows.forward, "backward": rows.backward}
    yield row | counts | {"peak, MB": memory(args.device)[1]}
