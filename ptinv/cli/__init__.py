"""The command line: `options.py` has what can be given, `commands.py` what is done.

Here is how it ends: 0 done, 2 something given is wrong, 130 interrupted, 1 anything else.
"""

import gc
import os
import signal
import sys
import threading
import warnings
from io import TextIOWrapper
from itertools import takewhile
from time import perf_counter

from ..errors import Doubt, InputError, Remark, is_full


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. After a plain KeyboardInterrupt that went through an `exec`, as many imports do,
    Python would end itself by the signal, whatever exit code it is given."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code. Ctrl-C is handled from the first import on."""
    interruptions = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a letter that a terminal lacks is no error
            stream.reconfigure(errors="replace")

    def interrupt(*_):
        interruptions.append(True)
        raise Interrupted

    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if ours:
            signal.signal(signal.SIGINT, interrupt)
        try:
            return _run(argv)
        finally:
            print(end="", flush=True)  # here, where it can be answered if it fails
    except BaseException as error:
        # some libraries make an error of their own of an interruption during their import
        if interruptions or isinstance(error, KeyboardInterrupt):
            return _say("interrupted; no part of the output is left", 130)
        if not isinstance(error, OSError):
            raise
        try:
            print(end="", flush=True)
        except OSError:  # else Python would complain again, as it ends, of what is unwritten
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # there is nothing to report where the output's reader has closed it, as `head` does
        return 1 if isinstance(error, BrokenPipeError) else _say(str(error), 1)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(argv: list[str] | None) -> int:
    """Parses and carries out; what takes a while to import is imported late."""
    from .options import build

    try:
        args = build().parse_args(argv)
    except SystemExit as end:  # --help, --version and mistakes are answered already
        return end.code
    args.begun = perf_counter()
    if argv is None:  # the process is the command's own: what it imports stays, and to look
        gc.disable()  # for garbage in it, now and again at the end, takes seconds
    from . import commands

    if argv is None:
        gc.freeze()
        gc.enable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if getattr(args, "quiet", False) else "always", Remark)
            warnings.simplefilter("always", Doubt)
            warnings.showwarning = lambda message, *_: _say(str(message), 0)
            getattr(commands, args.command)(args)
        return 0
    except (InputError, FloatingPointError) as error:
        return _say(str(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        return _say("the memory is full; use --fast, --dtype bfloat16 or --device cpu", 1)


def _say(message: str, code: int) -> int:
    """Prints a line on stderr, settings that it begins with spelt as options; returns the code."""
    from ..settings import NAMES
    from .options import flag

    words = " ".join(message.splitlines()).split(" ")
    named = list(takewhile(lambda word: word.strip(",") in NAMES, words))
    print("ptinv:", *map(flag, named), *words[len(named) :], file=sys.stderr)
    return code
