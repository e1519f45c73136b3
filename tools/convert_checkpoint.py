"""Turns a pickle checkpoint into safetensors, the only kind of weights that ptinv opens:

    python tools/convert_checkpoint.py MODEL.ckpt OUT.safetensors [--half]

MODEL.ckpt is a Stable Diffusion v1 model in the original single-file layout, or a `.bin` in the
layout of diffusers. A pickle can carry code: one that asks for more than tensors is not opened.
"""

import argparse
import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ptinv.errors import InputError
from ptinv.storage.files import replacing
from ptinv.storage.layouts import is_left_out


class Inert:
    """Stands for a class that a checkpoint only names; the real one is not imported."""


# the training callback by which the original sd-v1-4.ckpt files its best score
NAMED_ONLY = [(Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]


class ConversionError(InputError):
    """The reason why a checkpoint was not converted, in a sentence."""


def read(path: Path) -> dict:
    """The state dict in a pickle checkpoint, opened without running any code that is in it."""
    if not path.is_file():
        raise ConversionError(f"{path} is not a file")
    if _is_safetensors(path):
        raise ConversionError(f"{path} is a safetensors file already")
    try:
        mmap = zipfile.is_zipfile(path)  # files of before PyTorch 1.6 are not, and cannot be mapped
        with warnings.catch_warnings(), torch.serialization.safe_globals(NAMED_ONLY):
            warnings.simplefilter("ignore")  # about pickles that are then refused
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # bytes that are no pickle can lead to nearly any exception
        refused = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise ConversionError(
                f"{path} holds code or objects besides tensors ({refused[1]}) and was not opened"
            ) from error
        raise ConversionError(
            f"{path} was not opened: it is damaged, or no checkpoint of tensors"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    return content if isinstance(content, dict) else {}


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except SafetensorError:
        return False


def _needed(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and not is_left_out(name)


def select(state: dict, half: bool = False) -> dict[str, Tensor]:
    """The tensors that inference needs, each with memory of its own; `half` makes floats float16.

    safetensors stores neither tensors that share memory nor transposed views. Raises
    ConversionError for a tensor that is no plain array of numbers.
    """
    chosen: dict[str, Tensor] = {}
    seen = set()
    for name, value in state.items():
        if not _needed(name, value):
            continue
        if value.is_quantized or value.is_meta or value.layout != torch.strided:
            raise ConversionError(f"{name} is quantised, sparse or without data; save it as floats")
        if half and value.is_floating_point():
            value = value.half()
        storage = value.untyped_storage().data_ptr()
        if storage in seen or not value.is_contiguous():
            value = value.clone(memory_format=torch.contiguous_format)
        seen.add(storage)
        chosen[name] = value.detach()
    return chosen


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes `path` whole or not at all; raises InputError."""
    try:
        with replacing(path) as part:
            save_file(tensors, part, metadata={"format": "pt"})
    except (RuntimeError, KeyError) as error:  # a type of numbers that safetensors does not know
        raise ConversionError(f"{path} cannot be written: {error}") from error


def convert(source: Path, out: Path, half: bool = False) -> str:
    """Converts a checkpoint; returns a line about the file written. Raises InputError."""
    if out.suffix != ".safetensors":
        raise ConversionError(f"{out} does not end in .safetensors")
    if not out.parent.is_dir():
        raise ConversionError(f"there is no folder {out.parent}")
    state = read(source)
    tensors = select(state, half)
    if not tensors:
        raise ConversionError(f"{source} holds no tensors to keep")
    write(tensors, out)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    left_out = len(state) - len(tensors)
    return f"{out}: {len(tensors)} tensors, {size} bytes; {left_out} entries left out"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0, 2 after an error and 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Convert a pickle checkpoint to safetensors.")
    parser.add_argument("source", metavar="MODEL.ckpt", type=Path, help="the pickle checkpoint")
    parser.add_argument("out", metavar="OUT.safetensors", type=Path, help="the file to write")
    parser.add_argument("--half", action="store_true", help="write floats in half precision")
    args = parser.parse_args(argv)
    try:
        print(convert(args.source, args.out, args.half))
    except (InputError, OSError) as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
