"""The tensors of one safetensors file: what there is, and into a network, strictly.

Nothing but safetensors is opened, and nothing is read before it is needed: tensors are views into
the memory-mapped file until they are converted.
"""

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from .errors import InputError

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # as safetensors calls them


class CheckpointError(InputError):
    """What is wrong with a checkpoint, in a sentence."""


class Entry(NamedTuple):
    """One tensor in a file."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it


Entries = dict[str, Entry]  # by the name that the network gives the tensor


def entries(path: Path) -> Entries:
    """The names, shapes and types in one safetensors file, from its header."""
    if path.suffix in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is opened; convert it first: "
            f"python tools/convert_checkpoint.py {path} {path.with_suffix('.safetensors')}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            found = {}
            for key in file.keys():
                tensor = file.get_slice(key)
                found[key] = Entry(path, key, tuple(tensor.get_shape()), tensor.get_dtype())
            return found
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); fetch it again"
        ) from error


def fill(network: nn.Module, found: Entries, device: torch.device, dtype: torch.dtype) -> None:
    """Gives a network that was built on the meta device its tensors, strictly.

    Where nothing is converted the tensors stay views into the file. Otherwise the file is mapped
    anew every few tensors, so that the pages already read are let go.
    Raises CheckpointError naming tensors that are missing, extra, of another shape or no floats.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    _check(wanted, found, type(network).__name__)
    path = next(iter(found.values())).path
    state, names = {}, iter(wanted)
    while batch := list(islice(names, 16)):
        with safe_open(path, framework="pt") as file:
            for name in batch:
                tensor = file.get_tensor(found[name].key).reshape(wanted[name])
                state[name] = tensor.to(device, dtype)
    network.load_state_dict(state, strict=True, assign=True)
    network.eval().requires_grad_(False)


def _check(wanted: dict[str, tuple[int, ...]], found: Entries, network: str) -> None:
    problems = []
    if missing := sorted(wanted.keys() - found.keys()):
        problems.append(f"missing: {some(missing)}")
    if extra := sorted(found.keys() - wanted.keys()):
        problems.append(f"not of this network: {some(extra)}")
    # the original VAE writes its attention's linear layers as 1×1 convolutions
    misshapen = [
        f"{name} is {list(found[name].shape)}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in found
        and found[name].shape != shape
        and not (is_vae_projection(name) and found[name].shape == (*shape, 1, 1))
    ]
    if misshapen:
        problems.append(f"of another shape: {some(misshapen)}")
    if whole := [f"{n} is {e.dtype}" for n, e in found.items() if e.dtype not in FLOATING]:
        problems.append(f"not floating-point: {some(whole)}")
    if problems:
        path = next(iter(found.values())).path if found else "the checkpoint"
        raise CheckpointError(f"{path} does not hold the {network}; {'; '.join(problems)}")


def is_vae_projection(name: str) -> bool:
    return "mid_block.attentions.0.to_" in name and "transformer_blocks" not in name


def some(names: list[str], shown: int = 3) -> str:
    """A few of the names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
