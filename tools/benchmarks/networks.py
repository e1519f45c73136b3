"""The networks at full size beside diffusers', where it is installed."""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module, util
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from world.folder import write_configs

from ptinv.core import model as core
from ptinv.errors import InputError
from ptinv.storage.checkpoint import precision
from ptinv.storage.layouts import SD_V1

from .measure import Row, added_by, check_device, in_fresh_process, timed
from .models import random_weights


def output(network: nn.Module, z: Tensor, context: Tensor) -> Tensor:
    """The VAE's picture or the UNet's prediction, out of the object that diffusers returns."""
    result = network.decode(z) if hasattr(network, "decode") else network(z, 481, context)
    return result if isinstance(result, Tensor) else result.sample


def gradient(unet: nn.Module, z: Tensor, context: Tensor) -> Tensor:
    context = context.detach().requires_grad_()
    return torch.autograd.grad(output(unet, z, context).square().sum(), context)[0]


JOBS = {  # a network, and what is done with it
    "UNet forward": ("unet", output),
    "UNet forward + backward": ("unet", gradient),
    "VAE decode": ("vae", output),
}


def empty(part: str, library: str = "ptinv") -> nn.Module:
    """A network of sd-v1-4's size, ptinv's or diffusers', frozen, on the meta device."""
    if library == "ptinv":
        network = core.networks(SD_V1)[part]
    else:
        settings = folder_config(part)
        with torch.device("meta"):
            network = getattr(import_module(library), settings.pop("_class_name"))(**settings)
    return network.eval().requires_grad_(False)


def folder_config(part: str) -> dict:
    """A network's `config.json` in sd-v1-4's folder."""
    with TemporaryDirectory() as folder:
        write_configs(Path(folder), SD_V1)
        return json.loads((Path(folder) / part / "config.json").read_text(encoding="utf-8"))


def weights_for(name: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights for the network of a job."""
    return random_weights(empty(JOBS[name][0]), device, dtype)


def prepare(name: str, library: str, weights: dict, size: int, device: str) -> Callable:
    """A job with its network, a latent (1, c, size, size) and a context (1, 77, d)."""
    part, job = JOBS[name]
    network = empty(part, library)
    network.load_state_dict(weights, strict=True, assign=True)
    torch.manual_seed(0)
    z = torch.randn(1, SD_V1.unet.latent_channels, size, size).to(device)
    context = torch.randn(1, 77, SD_V1.unet.context_channels if part == "unet" else 1).to(device)
    dtype = next(network.parameters()).dtype
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    return autocast(partial(job, network, z, context))


def networks(args: argparse.Namespace) -> Iterator[Row]:
    """A row for each job at sd-v1-4's size."""
    if args.repeats < 1 or args.size < 8 or args.size % 8:
        raise InputError("size must be a multiple of 8 and repeats a whole number, both above 0")
    check_device(args.device)
    dtype = precision(args.dtype, torch.device(args.device))
    for name in JOBS:
        yield compare(name, args.repeats, args.size, args.device, dtype)


def compare(name: str, repeats: int, size: int, device: str, dtype: torch.dtype) -> Row:
    """A job's time and memory in ptinv and, where it is installed, in diffusers."""
    libraries = [library for library in ("ptinv", "diffusers") if util.find_spec(library)]
    # first the processes, while this one holds no weights of its own
    added = [in_fresh_process(first_call, name, each, size, device, dtype) for each in libraries]
    weights = weights_for(name, device, dtype)
    calls = [prepare(name, library, weights, size, device) for library in libraries]
    outputs = [call().double() for call in calls]  # the warm-up
    seconds = [[timed(call) for call in calls] for _ in range(repeats)]
    medians = [median(each) for each in zip(*seconds, strict=True)]
    row: Row = {"job": name, "ptinv, s": medians[0]}
    if len(libraries) > 1:
        a, b = outputs
        row |= {"diffusers, s": medians[1], "ratio": medians[0] / medians[1]}
        row |= {"ratio of pairs": median(ours / theirs for ours, theirs in seconds)}
        row |= {"difference": ((a - b).abs().max() / b.abs().max()).item()}
    return row | {f"{library}, MB": mb for library, mb in zip(libraries, added, strict=True)}


def first_call(name: str, library: str, size: int, device: str, dtype: torch.dtype) -> float:
    call = prepare(name, library, weights_for(name, device, dtype), size, device)
    return added_by(call, device)
