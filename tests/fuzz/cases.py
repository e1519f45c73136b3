"""A case is a command line and the files that it runs on, drawn from a number alone.

A kind of case is a function that writes files into a folder and returns the case; `KINDS` has
them by name, and `draw` makes case n of them in turn.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from small import PROMPT

from ptinv.methods.table import METHODS

SOURCE = "a red car on the grass"
CHEAP = ["--quiet", "--steps", "2"]
OF_AN_EDIT = ["--mask-draws", "1", "--inner-steps", "1"]  # which methods have many of


class Case(NamedTuple):
    """A command line, run in the folder of its files."""

    words: list[str]
    outputs: list[str]  # what it may write
    picture: str | None = None  # whose size the result has; without one it is the model's


Kind = Callable[[Random, Path], Case]
KINDS: dict[str, Kind] = {}


def kind(draw: Kind) -> Kind:
    """Adds a kind of case by the name of its function."""
    KINDS[draw.__name__] = draw
    return draw


def name_of(n: int) -> str:
    """The name of case n: its kind's first, so that `-k` finds those of one kind."""
    return f"{list(KINDS)[n % len(KINDS)]}-{n}"


def draw(n: int, here: Path) -> Case:
    """Makes case n, and its files in a folder."""
    name = name_of(n)
    return KINDS[name.partition("-")[0]](Random(name), here)


def over(rng: Random, picture: str, *more: str, prompt: str = PROMPT) -> Case:
    """A command over a picture or a stored inversion."""
    match rng.choice(["edit", "edit", "reconstruct", "invert"]):
        case "invert":
            words, outputs = ["invert", picture, prompt], ["out.safetensors"]
        case "reconstruct":
            words, outputs = ["reconstruct", picture, prompt], ["out.png"]
        case _:
            method = rng.choice(list(METHODS))
            words, outputs = ["edit", picture, prompt, "--method", method], ["out.png"]
            words += ["--source", SOURCE] * (rng.random() < 0.7) + OF_AN_EDIT
    return Case([*words, *CHEAP, *more, "-o", *outputs], outputs, picture)


def generate(*more: str, prompt: str = PROMPT) -> Case:
    """A picture from noise."""
    return Case(["generate", prompt, *CHEAP, *more, "-o", "out.png"], ["out.png"])
