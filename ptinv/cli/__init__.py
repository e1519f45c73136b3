"""The command line: `parser.py` says what can be asked for, `commands.py` does it.

Here is how it ends: 0 done, 2 something given is wrong, 130 interrupted, 1 anything else.
"""

import argparse
import logging
import os
import signal
import sys
import threading


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. After a plain KeyboardInterrupt that went through an `exec`, as many imports do,
    Python would end itself by the signal, whatever exit code it is given."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code. Ctrl-C is answered from the first import on."""
    interruptions = []

    def interrupt(*_):
        interruptions.append(True)
        raise Interrupted

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
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
        if isinstance(error, OSError):
            return _failed(error)
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(argv: list[str] | None) -> int:
    """What is imported here is imported late because it takes a while."""
    from .parser import build

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
    return _do(args)


def _do(args: argparse.Namespace) -> int:
    from ..errors import InputError
    from ..settings import NAMES
    from .commands import COMMANDS
    from .given import flag

    try:
        COMMANDS[args.command](args)
        return 0
    except InputError as error:
        # a setting's name at the start of a message, as it was spelt
        first, _, rest = str(error).partition(" ")
        return _say(f"{flag(first)} {rest}" if first in NAMES else str(error), 2)
    except FloatingPointError as error:  # of the checkpoint or its precision
        return _say(str(error), 2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        return _say("the device's memory is full; use --dtype float16 or --device cpu", 1)


def _failed(error: OSError) -> int:
    """Says what went wrong; nothing where whoever read the output had seen enough, as `head`."""
    try:
        print(end="", flush=True)
    except OSError:  # of what is still unwritten Python would complain again as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if isinstance(error, BrokenPipeError) else _say(str(error), 1)


def _say(message: str, code: int) -> int:
    """One line on stderr; returns the exit code that goes with it."""
    print(f"ptinv: {' '.join(message.splitlines())}", file=sys.stderr)
    return code
