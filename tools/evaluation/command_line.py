"""Command lines of the programs: options of `ptinv`, values as they are read, and one way to end.

They end with 0 done, 2 something given is wrong, 130 interrupted, 1 the memory is full.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

import ptinv
from ptinv.cli.options import Options
from ptinv.errors import is_full

FULL = "the memory is full; use --fast, --dtype bfloat16 or --device cpu"


def add(top: argparse.ArgumentParser, options: Options) -> None:
    """Gives a parser some of the command line's options; those in a list exclude each other."""
    for option in options:
        parent = top.add_mutually_exclusive_group() if isinstance(option, list) else top
        for names, how in option if isinstance(option, list) else [option]:
            parent.add_argument(*names.split(), **how)


def joined(name: str, values: Iterable[object]) -> str:
    """The values of a setting as one word: 0.2:0.6 of a gate, 768x512 of a size."""
    return ("x" if name == "size" else ":").join(map(str, values))


def sentence(error: Exception) -> str | None:
    """The sentence of an error that is a user's to mend; None for a program's own mistake."""
    if isinstance(error, ptinv.InputError | FloatingPointError | OSError):
        return str(error)
    return FULL if isinstance(error, MemoryError | RuntimeError) and is_full(error) else None


def answer(
    program: str,
    run: Callable[[argparse.Namespace], int | None],
    top: argparse.ArgumentParser,
    argv: list[str] | None,
) -> int:
    """Runs a program, and says in a line whatever ends it; remarks are said once each."""
    said = set()

    def say(message: object, *_: Any) -> None:
        line = " ".join(str(message).split())
        if line not in said:
            tqdm.write(f"{program}: {line}", file=sys.stderr)  # above a bar
        said.add(line)

    try:
        args = top.parse_args(argv)
    except SystemExit as end:  # it has said why
        return end.code
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries warn of is no user's to mend
            warnings.simplefilter("ignore" if args.quiet else "always", ptinv.Remark)
            warnings.simplefilter("always", ptinv.Doubt)
            warnings.showwarning = say
            return run(args) or 0
    except KeyboardInterrupt:
        kept = getattr(args, "cells", None)
        say(f"interrupted; {f'what is finished is kept in {kept}' if kept else 'nothing is kept'}")
        return 130
    except Exception as error:
        if (said_of_it := sentence(error)) is None:
            raise
        say(said_of_it)
        return 1 if said_of_it is FULL else 2
