"""Explains one edit on a page: what happens between a picture and a sentence, step by step.

    python tools/explain.py picture.png "two pink dogs in the snow" -o page.html

The page is one file that opens from disk in any browser, without a network. It tells the paper's
method, pti, of the picture and the prompt: the VAE's round trip, the walk up, why a guided walk
misses the picture, the tuning, Eq. 9 at every strength, and the words' attention and the mask; then
the edit itself, by any method, with what repeats it. PICTURE may be what `ptinv invert` made of
one. A page takes some 1,700 rows of the UNet, as much as fourteen edits by auto.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evaluation.command_line import answer, joined
from explanation.measurements import measure
from explanation.page import Place, page_of
from tqdm import tqdm

from ptinv.api import request_edit
from ptinv.cli.commands import load, settings
from ptinv.cli.options import COMMANDS, OUTPUT, Parser, add, flag
from ptinv.settings import DEFAULT
from ptinv.storage.files import check_output, replacing

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".html", ".htm")
PAGE = OUTPUT[0], OUTPUT[1] | {"metavar": "PAGE.html"}
PICTURES_ONLY = {"--show-mask", "--no-record", "--verbose"}  # of edit's options


def main(argv: list[str] | None = None) -> int:
    return answer("explain.py", explain, parser(), argv)


def explain(args: argparse.Namespace) -> None:
    """Makes the page that the command line names; what can be refused is refused first."""
    inputs = [args.picture, *filter(None, [getattr(args, "mask", None)])]
    output = check_output(args.output, SUFFIXES, inputs)
    given = settings(args)
    request = request_edit(args.picture, args.prompt, args.method, **given)
    model = load(args)
    args.model = args.model or os.environ.get("PTINV_MODEL")  # what the page's commands name

    def progress(loop: Iterable, label: str) -> Iterable:
        return tqdm(loop, desc=f"{label:12}", disable=args.quiet, file=sys.stderr)

    picture = request.inversion or request.image
    story = measure(model, picture, args.prompt, args.method, request.given, progress)
    args.dtype = str(model.dtype).removeprefix("torch.")  # another machine's may be another
    text = page_of(story, Place(base_of(args.repository, output), *commands(args, given)))
    with replacing(output) as part:
        part.write_text(text, encoding="utf-8")


def base_of(repository: str | None, page: Path) -> str:
    """The base of a page's links to the repository's files: an address, or by default the way from
    the page to this checkout."""
    if repository:
        return repository.rstrip("/") + "/"
    try:
        way = os.path.relpath(ROOT, page.resolve().parent)
    except ValueError:  # on another drive
        return ROOT.as_uri() + "/"
    return quote(Path(way).as_posix()) + "/"


def commands(args: argparse.Namespace, given: dict[str, Any]) -> tuple[str, str]:
    """The command that makes the edit, and the one that makes the page. Of files they have the
    names alone: a page is passed on, and where they lie is nobody's matter."""
    words = [Path(args.picture).name, args.prompt]
    for name in ("method", "model", "tokenizer", "device", "dtype"):
        if value := getattr(args, name):
            words += [flag(name), Path(value).name if name in ("model", "tokenizer") else value]
    words += ["--compile"] if args.compile else []
    for name, value in given.items():
        words += spelt(name, value)
    edit = ["ptinv", "edit", *words, "-o", "edited.png"]
    page = ["python", "tools/explain.py", *words, "-o", Path(args.output).name]
    return shlex.join(edit), shlex.join(page)


def spelt(name: str, value: Any) -> list[str]:
    """A setting as it is given on the command line."""
    if name == "mask":
        return ["--no-mask"] if value is None else ["--mask", Path(value).name]
    if value is True:
        return [flag(name)]
    if isinstance(value, dict):
        named = {
            "" if word == DEFAULT else f"{word}=": one_word(name, value[word]) for word in value
        }
        return [part for word in named for part in (flag(name), word + named[word])]
    return [flag(name), one_word(name, value)]


def one_word(name: str, value: Any) -> str:
    """A value, or the two of a gate or a size, as one word."""
    return joined(name, value) if isinstance(value, tuple) else str(value)


def parser() -> argparse.ArgumentParser:
    """The command line: edit's own, with a page for its output."""
    top = Parser(prog="explain.py", description=__doc__.splitlines()[0])
    for option in COMMANDS["edit"][2]:
        several = option if isinstance(option, list) else [option]
        kept = [one for one in several if not PICTURES_ONLY & {*one[0].split()}]
        kept = [PAGE if one is OUTPUT else one for one in kept]
        add(top, [kept] if len(kept) > 1 else kept)
    top.add_argument(
        "--repository",
        metavar="URL",
        help="what the page's links to the source begin with, such as an address on the "
        "web (default: the way from the page to this checkout)",
    )
    return top


if __name__ == "__main__":
    sys.exit(main())
