"""The command line: `parser.py` says what can be asked for, `commands.py` does it."""

from .commands import main

__all__ = ["main"]
