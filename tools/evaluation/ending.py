"""How a program ends: 0 done, 2 something given is wrong, 130 interrupted, 1 the memory is full."""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

import ptinv
from ptinv.errors import is_full

FULL = "the memory is full; use --fast, --dtype bfloat16 or --device cpu"


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
    except (ptinv.InputError, OSError, FloatingPointError) as error:
        say(error)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        say(FULL)
        return 1
