"""Runs a case through the command line, and says what is wrong with how it ended."""

import contextlib
import io
import os
import re
import shlex
import signal
import traceback
from pathlib import Path

from forked import forked
from fuzz.cases import Case
from PIL import Image, ImageOps
from safetensors import safe_open

from ptinv import cli
from ptinv.storage.inversion import Inversion

BUSY, IDLE = 20, 90  # seconds of the processor's time, and of waiting, after which a case hangs
LONGEST, MOST_LINES = 700, 8  # characters of a line on stderr; each of three texts has two doubts
MEMORY, ROOM = 2**30, 2**32  # bytes that a case may take; address space, so that it can
PYTHONS = re.compile(  # words of Python's own errors, which no user has a use for
    r"Traceback|\w+Error\b|Errno|object has no attribute|NoneType|'(int|str|list|dict|float|bool)'"
    r"|maximum recursion|unsupported operand|subscriptable|unhashable|iterable|positional"
    r"|keyword arg|out of range|codec can't|could not convert|invalid literal|<class|max_str_digits"
)
UNPRINTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def fault(case: Case, here: Path, said: Path) -> str:
    """What is wrong with how a case ends, in a child of this process; empty where nothing is."""
    ended = forked(lambda: judged(case, here), said, BUSY, IDLE, ROOM)
    if ended.answer is None:
        how = {-signal.SIGXCPU: "hangs", -signal.SIGKILL: "waits for ever"}
        return f"{how.get(ended.code, f'dies of {ended.code}')}\n{said.read_text()[-3000:]}"
    return ended.answer or (f"takes {ended.memory} bytes" if ended.memory > MEMORY else "")


def judged(case: Case, here: Path) -> str:
    """Runs a case in this process, and says what is wrong with how it ends."""
    before = files_in(here)
    size = size_of(case.picture) if case.picture else (32, 32)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(case.words)
    except Exception as error:
        return f"{type(error).__name__}\n{traceback.format_exc(limit=-6)[-3000:]}"
    new = {path for path, file in files_in(here).items() if before.get(path) != file}
    said = f"says {err.getvalue()[:2000]!r}"
    if gone := before.keys() - files_in(here).keys():
        return f"removes {sorted(gone)}, and {said}"
    if code not in (0, 2):
        return f"ends with {code} and {said}"
    if wrong := wrong_with(err.getvalue(), refused=code == 2):
        return f"{wrong}: {said}"
    if code == 2:
        return (
            f"leaves {sorted(new)}, and {said}" if new else out.getvalue() and f"prints, and {said}"
        )
    allowed = {os.path.realpath(path) for path in case.outputs}
    if stray := {path for path in new if os.path.realpath(path) not in allowed}:
        return f"writes to {sorted(stray)}"
    if "--size" in " ".join(case.words) and not case.picture:
        size = None
    return next(filter(None, (wrong_output(path, size) for path in case.outputs)), "")


def wrong_with(said: str, refused: bool) -> str:
    """What is wrong with stderr: a refusal is one line at its end, after doubts if any."""
    lines = said.split("\n")
    if refused and (len(lines) < 2 or lines[-1]):
        return "no line at the end"
    if any(not line.startswith("ptinv") for line in lines[:-1]):
        return "more than lines of its own"
    if len(lines) > MOST_LINES or max(map(len, lines)) > LONGEST:
        return "too long"
    if UNPRINTED.search("".join(lines)):
        return "unprintable"
    return "Python's words" if PYTHONS.search(said) else ""


def wrong_output(path: str, size: tuple[int, int] | None) -> str:
    """What is wrong with a file that was made."""
    try:
        if path.lower().endswith(".safetensors"):
            Inversion.load(path)
            return ""
        with Image.open(path) as image:
            image.load()
            right = image.mode == "RGB" and size in (None, image.size)
            return "" if right else f"{path} is {image.mode} of {image.size}, not {size}"
    except Exception as error:
        return f"{path} is not whole: {error!r}"


def size_of(path: str) -> tuple[int, int] | None:
    """The size of what a picture shows, or an inversion holds; None if it can't be read."""
    if not os.path.isfile(path) or "\0" in path:
        return None
    try:
        if path.endswith(".safetensors"):
            with safe_open(path, framework="pt") as file:
                _, height, width = file.get_slice("pixels").get_shape()
                return width, height
        with open(path, "rb") as file, Image.open(file) as image:
            image.load()
            with contextlib.suppress(Exception):  # damaged EXIF turns nothing
                return ImageOps.exif_transpose(image).size
            return image.size
    except Exception:
        return None


def files_in(folder: Path) -> dict[str, tuple]:
    """All that is in a folder, by path: what changes when a file does."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            about = os.lstat(path)
            kept = (about.st_mtime_ns, about.st_size) if not os.path.isdir(path) else ()
            found[path] = about.st_ino, about.st_mode, *kept
    return found


def spelt(case: Case) -> str:
    """A case's command line as a shell takes it, as far as it can be read."""
    words = (
        word if len(word) < 200 else f"{word[:60]}… ({len(word)} characters)" for word in case.words
    )
    return "ptinv " + shlex.join(words)
