"""Command lines of the programs: options of `ptinv`, values as they are read, and one way to end.

They end as `ptinv` does: with 0 done, 2 something given is wrong, 130 interrupted, 143 terminated,
1 the memory is full.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable

from tqdm import tqdm

import ptinv
from ptinv.cli import FULL, guarded
from ptinv.errors import is_full


def joined(name: str, values: Iterable[object]) -> str:
    """The values of a setting as one word: 0.2:0.6 of a gate, 768x512 of a size."""
    return ("x" if name == "size" else ":").join(map(str, values))


def sentence(error: Exception) -> str | None:
    """The sentence of an error that is a user's to mend; None for a program's own mistake."""
    if isinstance(error, ptinv.InputError | FloatingPointError | OSError):
        return str(error)
    return FULL if is_full(error) else None


def answer(
    program: str,
    run: Callable[[argparse.Namespace], int | None],
    top: argparse.ArgumentParser,
    argv: list[str] | None,
) -> int:
    """Runs a program, and says in a line whatever ends it; remarks are said once each."""
    said, args = set(), argparse.Namespace()

    def say(message: str, code: int = 0) -> int:
        line = " ".join(message.split())
        if code > 128 and (kept := getattr(args, "cells", None)):  # by a signal
            line = f"interrupted; what is finished is kept in {kept}"
        if line not in said:
            tqdm.write(f"{program}: {line}", file=sys.stderr)  # above a bar
        said.add(line)
        return code

    def work() -> int:
        try:
            top.parse_args(argv, args)
        except SystemExit as end:  # it has said why
            return end.code
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries warn of is no user's to mend
            quiet = getattr(args, "quiet", False)
            warnings.simplefilter("ignore" if quiet else "always", ptinv.Remark)
            warnings.simplefilter("always", ptinv.Doubt)
            warnings.showwarning = lambda message, *_: say(str(message))
            try:
                return run(args) or 0
            except Exception as error:
                if isinstance(error, BrokenPipeError) or (line := sentence(error)) is None:
                    raise
                return say(line, 1 if line is FULL else 2)

    return guarded(work, say)
