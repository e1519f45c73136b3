"""What each command does, and how it ends: 0 done, 2 something given is wrong, 130 interrupted.

Whatever can be refused is refused before the model is loaded, and the output is written last and
at once. Progress and remarks go to stderr, results to stdout.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from ..errors import InputError
from ..settings import NAMES
from .parser import build

TINY = Path(__file__).parents[2] / "weights" / "tiny"
TINY_REMARK = (
    "no --model given: using the embedded tiny model, which knows only its own small world of "
    "drawn scenes; for photographs, fetch Stable Diffusion with "
    "`python tools/download_weights.py sd-v1-4` and give --model sd-v1-4"
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = build()
    args = parser.parse_args(argv)
    if args.version:
        from .. import __version__

        print(f"ptinv {__version__}")
        return 0
    if args.command is None:
        parser.error("say what to do")
    quiet = getattr(args, "quiet", False)
    logging.basicConfig(format="ptinv: %(message)s", level=logging.WARNING)
    logging.getLogger("ptinv").setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        {"edit": edit, "reconstruct": reconstruct, "generate": generate, "methods": methods}[
            args.command
        ](args)
        return 0
    except InputError as error:
        return _say(_with_flags(str(error)), 2)
    except (FloatingPointError, OSError) as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("interrupted; nothing was written", 130)


def edit(args: argparse.Namespace) -> None:
    from .. import images, pipeline

    output, picture, options = _checked(args)
    if not args.prompt.strip():
        raise InputError("the prompt is empty; say what the picture should become")
    model = _load(args)
    edited = pipeline.edit(model, picture, args.prompt, args.method, _progress(args), **options)
    images.save_picture(edited, output)


def reconstruct(args: argparse.Namespace) -> None:
    from .. import images, metrics, pipeline

    output, picture, options = _checked(args)
    model = _load(args)
    z0, size = pipeline.reconstructed_latent(
        model, picture, args.prompt, args.method, _progress(args), **options
    )
    decoded, ceiling = model.decode(z0), model.decode(model.encode(picture))
    images.save_picture(images.resize(decoded, size), output)
    wanted = images.resize(picture, model.picture_size(size))
    print(f"{args.method}: {metrics.psnr(decoded, wanted):.2f} dB")
    print(f"vae: {metrics.psnr(ceiling, wanted):.2f} dB (the ceiling)")


def generate(args: argparse.Namespace) -> None:
    from .. import images, pipeline
    from ..settings import Settings

    output = images.check_output(args.output)
    given = {name: getattr(args, name) for name in ("seed", "steps", "guidance") if name in args}
    Settings(**given)
    model = _load(args)
    picture = pipeline.generate(model, args.prompt, progress=_progress(args), **given)
    images.save_picture(picture, output)


def methods(args: argparse.Namespace) -> None:
    from ..methods import METHODS

    for name, row in METHODS.items():
        print(f"{name:12} {row.title}")
        settings = row.settings()
        shown = [n for n in NAMES if n not in ("source", "focus", "reweight", "mask", "seed")]
        if not row.tunes:
            shown = [n for n in shown if n not in ("inner_steps", "lr", "init_embedding", "eta")]
        if not row.blends:
            shown.remove("mask_threshold")
        print(" " * 13 + " ".join(f"{_flag(n)} {getattr(settings, n)}" for n in shown))


def _checked(args: argparse.Namespace):
    """Output path, picture and settings, refused here if they can't be used."""
    from .. import images
    from ..methods import find

    output = images.check_output(args.output)
    picture = images.open_picture(args.picture)
    options = {name: getattr(args, name) for name in NAMES if name in args}
    if "mask" in options:
        options["mask"] = images.open_picture(options["mask"])
    if "no_mask" in args:
        options["mask"] = None
    if "reweight" in options:
        options["reweight"] = dict(options["reweight"])
    aliases = {"vae": "pti", "ddim": "pti"} if args.command == "reconstruct" else {}
    find(aliases.get(args.method, args.method)).settings(**options)
    return output, picture, options


def _load(args: argparse.Namespace):
    from ..model import load

    path = getattr(args, "model", None) or os.environ.get("PTINV_MODEL")
    if not path:
        path = TINY
        logging.getLogger("ptinv").info(TINY_REMARK)
    options = {
        name: getattr(args, name) for name in ("device", "dtype", "tokenizer") if name in args
    }
    return load(path, **options)


def _progress(args: argparse.Namespace):
    from tqdm import tqdm

    return lambda loop, label: tqdm(loop, desc=f"{label:9}", disable=args.quiet, file=sys.stderr)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _with_flags(message: str) -> str:
    """A setting's name at the start of a message, as it is spelt on the command line."""
    first, _, rest = message.partition(" ")
    return f"{_flag(first)} {rest}" if first in NAMES else message


def _say(message: str, code: int) -> int:
    print(f"ptinv: {message}", file=sys.stderr)
    return code
