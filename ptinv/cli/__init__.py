"""The command line: `options.py` has what can be given, `commands.py` what is done.

It ends with 0 done, 2 something given is wrong, 130 interrupted, 143 terminated, 1 anything else.
"""

import gc
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from io import TextIOWrapper
from itertools import takewhile
from time import perf_counter

from ..errors import Doubt, InputError, Remark, is_full, line

FULL = "the memory is full; use --fast, --dtype bfloat16 or --device cpu"
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. After a plain KeyboardInterrupt that went through an `exec`, as many imports do,
    Python would end itself by the signal, whatever exit code it is given."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return guarded(lambda: _run(argv), _say)


def guarded(run: Callable[[], int], say: Callable[[str, int], int]) -> int:
    """Runs a program; what else may end it, signals among it, becomes a line and an exit code."""
    received = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a letter that a terminal lacks is no error
            stream.reconfigure(errors="replace")

    def interrupt(number, _):
        received.append(number)
        raise Interrupted

    main_thread = threading.current_thread() is threading.main_thread()
    ours = {n: h for n, h in USUAL.items() if main_thread and signal.getsignal(n) == h}
    try:
        for number in ours:
            signal.signal(number, interrupt)
        try:
            return run()
        finally:
            print(end="", flush=True)  # here, where it can be answered if it fails
    except BaseException as error:
        # some libraries make an error of their own of an interruption during their import
        if received or isinstance(error, KeyboardInterrupt):
            code = 128 + (received or [signal.SIGINT])[0]
            return say("interrupted; no part of the output is left", code)
        if is_full(error):
            return say(FULL, 1)
        if not isinstance(error, OSError):
            raise
        if error.filename:
            return say(f"{error.filename} cannot be used ({error.strerror})", 2)
        # of what is unwritten Python would complain again as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # there is nothing to report where the output's reader has closed it, as `head` does
        return 1 if isinstance(error, BrokenPipeError) else say(f"the output: {error.strerror}", 1)
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _run(argv: list[str] | None) -> int:
    """Parses and carries out; what takes a while to import is imported late."""
    from .options import build

    try:
        # Pythons before 3.13 take a "--" for no value at all, even the one of --option=--
        words = sys.argv[1:] if argv is None else argv
        args = build().parse_args([re.sub("^(--[^=]+=)--$", r"\1", word) for word in words])
    except SystemExit as end:  # --help, --version and mistakes are answered already
        return end.code
    args.begun = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of is no user's to mend
        warnings.simplefilter("ignore" if getattr(args, "quiet", False) else "always", Remark)
        warnings.simplefilter("always", Doubt)
        warnings.showwarning = lambda message, *_: _say(str(message), 0)
        if argv is None:  # the process is the command's own: what it imports stays, and to look
            gc.disable()  # for garbage in it, now and again at the end, takes seconds
        from . import commands

        if argv is None:
            gc.freeze()
            gc.enable()
        try:
            getattr(commands, args.command)(args)
            return 0
        except (InputError, FloatingPointError) as error:
            return _say(str(error), 2)


def _say(message: str, code: int) -> int:
    """Prints a line on stderr, settings that it begins with spelt as options; returns the code."""
    from ..settings import NAMES
    from .options import flag

    words = line(message).split(" ")
    named = list(takewhile(lambda word: word.strip(",") in NAMES, words))
    print("ptinv:", *map(flag, named), *words[len(named) :], file=sys.stderr)
    return code
