"""Seconds from a command's start to its end, in fresh processes that take turns."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from .edits import BIRDS, PROMPT
from .measure import Row, timed


def start(args: argparse.Namespace) -> Iterator[Row]:
    """The seconds of bare Python, of --help, of all imports, and of first edits."""
    edit = ["-m", "ptinv", "edit", BIRDS, PROMPT, "--quiet"]
    with TemporaryDirectory() as folder:
        out = ["-o", Path(folder) / "edited.png"]
        commands = {
            "bare Python": ["-c", "pass"],
            "ptinv --help": ["-m", "ptinv", "--help"],
            "ptinv methods (the imports)": ["-m", "ptinv", "methods"],
            "first edit": [*edit, *out],
            "first edit, --fast": [*edit, "--fast", *out],
        }
        run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
        calls = [partial(run, [sys.executable, *words]) for words in commands.values()]
        seconds = [[timed(call) for call in calls] for _ in range(args.repeats)]
    for name, each in zip(commands, zip(*seconds, strict=True), strict=True):
        yield {"command": name, "s": median(each)}
