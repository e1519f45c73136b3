"""The errors that are the caller's to mend, and remarks, each a sentence fit for a user.

Remarks are Python's warnings; `warnings.simplefilter("ignore", ptinv.Remark)` silences them.
"""

import re
import sys
import warnings


class InputError(ValueError):
    """Something given cannot be used: the message is what is wrong and what to do."""

    def __init__(self, message: str):
        super().__init__(line(message))


class OutputError(InputError, OSError):
    """A file that cannot be written, such as one on a full disk."""


class CheckpointError(InputError):
    """A checkpoint that is not whole, or not of Stable Diffusion v1."""


class PictureError(InputError):
    """A picture that cannot be used."""


class Remark(UserWarning):
    """Note of what was decided where nothing was said, such as the words that an edit is about."""


class Doubt(Remark):
    """Something that was given does nothing, or not what it seems to do."""


def remark(message: str, kind: type[Remark] = Remark) -> None:
    """Warns at the line that called the package, wherever in it this is."""
    depth, within = 1, (__package__, "torch", "contextlib")
    while sys._getframe(depth).f_globals.get("__name__", "").partition(".")[0] in within:
        depth += 1
    warnings.warn(line(message), kind, stacklevel=depth + 1)


def line(message: str) -> str:
    """A message as one line, cut where it quotes at length, without what a terminal would obey."""
    printed = "".join(c if c.isprintable() else " " for c in message)
    words = re.sub(r"(\S{80})\S{21,}(\S{60})", r"\1…\2", " ".join(printed.split()))
    words = re.sub(r"""(?<!\w)(['"][^'"]{40})[^'"]{21,}([^'"]{40}['"])""", r"\1…\2", words)
    return re.sub(r"^(.{400}).{21,}(.{80})$", r"\1 … \2", words)


def because(error: Exception) -> str:
    """An error's words in brackets, if they are fit for a user: a sentence, or a lacking key."""
    return f" ({error})" if isinstance(error, InputError | KeyError) else ""


def not_finite(what: str) -> FloatingPointError:
    """The error for numbers that overflowed: a damaged checkpoint, or float16's range."""
    mend = "the checkpoint may be damaged, or try --dtype float32 or bfloat16"
    return FloatingPointError(f"{what} is not finite (NaN or infinity): {mend}")


def is_full(error: BaseException) -> bool:
    """True if memory ran out. PyTorch says so of a GPU by a class of its own, else in words."""
    said = re.search("(out of|allocate|enough) memory|ALLOC_FAILED|failed to map", str(error))
    in_words = isinstance(error, RuntimeError | ImportError) and said is not None
    return in_words or isinstance(error, MemoryError)
