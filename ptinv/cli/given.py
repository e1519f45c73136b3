"""What was given on the command line, opened and checked."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from .. import images
from ..errors import InputError
from ..inversion.record import Inversion, is_inversion
from ..model import StableDiffusion, load
from ..sampling import Progress
from ..settings import NAMES

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "tiny", PACKAGE.parent / "weights" / "tiny")  # installed; in a checkout
TINY = next((place for place in PLACES if place.is_dir()), PLACES[0])
TINY_REMARK = (
    "no --model given: using the embedded tiny model, which knows only its own small world of "
    "drawn scenes; for photographs, fetch Stable Diffusion with "
    "`python tools/download_weights.py sd-v1-4` (of ptinv's repository) and give --model sd-v1-4"
)


def open_any(path: str) -> Image.Image | Inversion:
    """A picture, or an inversion that was stored of one."""
    return Inversion.load(path) if is_inversion(path) else images.open_picture(path)


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of the settings that were given, as Python takes them."""
    given = {name: getattr(args, name) for name in NAMES if name in args}
    if "mask" in given:
        if "file" not in given.get("mask_from", "file"):
            raise InputError(
                "--mask-from leaves out the file that --mask gives; "
                "join it, as in attention*file, or leave one of them out"
            )
        given["mask"] = images.open_picture(given["mask"])
    if "no_mask" in args:
        given["mask"] = None
    for name in ("reweight", "cross_replace"):
        if name in given:
            given[name] = dict(given[name])
    return given


def open_model(args: argparse.Namespace, **usual: str) -> StableDiffusion:
    """The model that was given, in the environment or here; `usual` is for what was not."""
    given = getattr(args, "model", None)
    if given == "":
        raise InputError("--model is empty; name a checkpoint, or leave it out for the tiny model")
    path = given or os.environ.get("PTINV_MODEL")
    if not path:
        path = TINY
        logging.getLogger("ptinv").info(TINY_REMARK)
    names = ("device", "dtype", "tokenizer")
    return load(path, **{**usual, **{name: getattr(args, name) for name in names if name in args}})


def progress_of(args: argparse.Namespace) -> Progress:
    """A bar on stderr for each long loop, unless it is to be quiet."""
    from tqdm import tqdm

    return lambda loop, label: tqdm(loop, desc=f"{label:9}", disable=args.quiet, file=sys.stderr)


def flag(name: str) -> str:
    """A setting's name as it is spelt on the command line."""
    return "--" + name.replace("_", "-")
