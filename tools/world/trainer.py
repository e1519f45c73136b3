"""Trains any network: one loop that can be stopped at any time and goes on from its checkpoint."""

import argparse
import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ptinv.errors import InputError
from ptinv.storage.files import replacing

CHECKPOINT_EVERY = 100
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def to_float(pixels: Tensor) -> Tensor:
    """Bytes -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def lasting(args: argparse.Namespace) -> dict[str, str]:
    """The arguments that checkpoints depend on: neither places nor numbers of steps."""
    return {
        name: str(value)
        for name, value in vars(args).items()
        if name not in ("out", "work", "device") and not name.endswith("steps")
    }


def check_run(args: argparse.Namespace) -> None:
    """Raises InputError if a run can't begin, or go on from the work folder's checkpoints."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu")
    for path in sorted(args.work.glob("*.pt")):
        try:
            was = torch.load(path, weights_only=True, mmap=True).get("arguments", {})
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise InputError(f"{path} is damaged; remove it, or give another --work") from error
        differ = [
            f"--{name.replace('_', '-')} {was.get(name, 'unknown')}, not {value}"
            for name, value in lasting(args).items()
            if was.get(name) != value
        ]
        if differ:
            raise InputError(
                f"{path} was made with {', '.join(differ)}; give the same, or another --work"
            )


def fit(
    name: str,
    networks: nn.Module,
    loss_at: Callable[[int], Tensor],
    steps: int,
    lr: float,
    average_decay: float,
    args: argparse.Namespace,
) -> nn.Module:
    """Minimises `loss_at(step)` with AdamW, a warm-up and a cosine; returns the averaged weights.

    Every step draws its batch from its own seed, so a run that was stopped goes on as if it had not
    been.
    """
    networks.to(args.device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(networks).requires_grad_(False)
    optimizer = torch.optim.AdamW(networks.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.01)
    parts = dict(networks=networks, average=average, optimizer=optimizer)
    path, running = args.work / f"{name}.pt", None
    start = resumed(path, parts, args.device) if path.exists() else 0
    bar = tqdm(range(start, steps), desc=name, initial=start, total=steps)
    for step in bar:
        warm_up, cosine = min(1, (step + 1) / 100), 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = lr * warm_up * max(cosine, 0.01)
        with torch.autocast(args.device, dtype=torch.bfloat16):
            loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        decay = min(average_decay, (step + 1) / (step + 10))
        for mean, weight in zip(average.parameters(), networks.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - decay)
        value = loss.item()
        running = value if running is None else 0.98 * running + 0.02 * value
        bar.set_postfix(loss=f"{running:.4f}")
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            keep(path, parts, step + 1, args)
    return average.eval()


def resumed(path: Path, parts: dict[str, Any], device: str) -> int:
    """Gives every part its state of a checkpoint; returns the number of steps made by then."""
    state = torch.load(path, map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]


def keep(path: Path, parts: dict[str, Any], step: int, args: argparse.Namespace) -> None:
    """Writes a checkpoint, whole or not at all."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with replacing(path) as part, open(part, "wb") as file:  # by name, the file would hold it
        torch.save(state | dict(step=step, arguments=lasting(args)), file)
