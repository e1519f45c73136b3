"""Opening a checkpoint: its time, and its memory beside the files' size."""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import nn
from world.folder import write_configs

import ptinv
from ptinv.core import model as core
from ptinv.errors import InputError
from ptinv.storage.checkpoint import DTYPES, EMBEDDED, open_checkpoint
from ptinv.storage.layouts import SD_V1

from .measure import MB, Row, in_fresh_process, memory, now, timed
from .models import random_weights
from .networks import empty


def load(args: argparse.Namespace) -> Iterator[Row]:
    """The time and memory that opening a checkpoint takes, on the CPU."""
    if args.make:
        in_fresh_process(make, args.path, args.tokenizer, args.make_dtype)
    checkpoint = open_checkpoint(args.path, args.tokenizer, half=args.dtype == "float16")
    files = {entry.path for entry in checkpoint.tensors.values()}
    size = sum(file.stat().st_size for file in files) / MB
    _, imports = in_fresh_process(memory)
    opened = in_fresh_process(open_and_read, args.path, args.tokenizer, args.dtype)
    ratio = (opened["peak, MB"] - imports) / max(size, opened["weights, MB"])
    yield {"files, MB": size, **opened, "imports alone, MB": imports, "ratio": ratio}


def open_and_read(path: Path, tokenizer: Path | None, dtype: str | None) -> Row:
    start = now()
    model = ptinv.load(path, "cpu", dtype, tokenizer)
    row = {"loading, s": now() - start}
    weights = nn.ModuleList([model.unet, model.vae, model.text_encoder]).state_dict().values()
    row["first reading, s"] = timed(lambda: [weight.sum() for weight in weights])
    row["weights, MB"] = sum(weight.nbytes for weight in weights) / MB
    return row | {"peak, MB": memory()[1]}


def make(folder: Path, tokenizer: Path | None, dtype: str) -> None:
    """Writes a checkpoint of sd-v1-4's size with random weights, a network at a time."""
    if folder.exists():
        raise InputError(f"{folder} exists already; --make writes a new folder")
    shutil.copytree(tokenizer or EMBEDDED / "tokenizer", folder / "tokenizer")
    write_configs(folder, SD_V1)
    for part, file in core.WEIGHTS.items():
        save_file(random_weights(empty(part), "cpu", DTYPES[dtype]), folder / part / file)
