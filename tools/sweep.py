"""Sweeps settings: an edit at every combination of the values of one to three settings, as a grid.

    python tools/sweep.py picture.png "two pink dogs in the snow" \\
        --eta 0.3,0.6,0.9 --guidance 3,5,7.5 -o grid.png

The first setting with several values goes across, the second down, and a third makes pages,
grid-1.png, grid-2.png and so on. Any option of `ptinv edit` can have several: numbers and choices
are divided by commas, texts and files are given by repeating the option, a word's factors are
written dogs=1,2,4. So can --method. Whatever the edits can share is made once: over η the picture
is inverted and tuned once. A page, if it is a PNG, carries all settings. An edit that fails is a
cell that says why. Ends with 0 if all were made, 2 if any was not.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple

from evaluation import cells
from evaluation.cells import Cell, Made
from evaluation.command_line import answer, joined
from PIL import Image
from PIL.ImageOps import contain
from world.sheets import Row, Tile

import ptinv
from ptinv.cli.options import NO_MASK, Option, add
from ptinv.settings import DEFAULT, NAMES

ACROSS = 13  # pictures in a line at most
BY_WORD = ("reweight", "cross_replace")
SUPPRESS = argparse.SUPPRESS


class Knob(NamedTuple):
    """Something that has values: a setting, or its part for one word."""

    setting: str
    word: str | None
    values: list[Any]

    def label(self, i: int) -> str:
        """The i-th value under its name."""
        word = f" of {self.word}" if self.word not in (None, DEFAULT) else ""
        return f"{self.setting}{word} = {spelt(self.setting, self.values[i])}"


def main(argv: list[str] | None = None) -> int:
    return answer("sweep.py", run, parser(), argv)


def run(args: argparse.Namespace) -> int:
    """Makes the pages that the command line names; returns its exit code."""
    fixed, swept = knobs(args)
    across, down, leaves = (swept + [None] * 3)[:3]
    paths = [args.output]
    if leaves:
        paths = [args.output.with_stem(f"{args.output.stem}-{i + 1}")
                 for i in range(len(leaves.values))]  # fmt: skip
    picture = cells.check_inputs(args, paths)
    places = list(product(*(range(len(knob.values)) for knob in reversed(swept))))
    wanted = [cell(fixed, swept, place[::-1]) for place in places]
    cells.check_used(wanted, [knob.setting for knob in fixed + swept if knob.setting != "method"])
    columns = len(across.values) + (down is None)
    side = cells.side_of(picture, columns, named=down is not None)
    made = cells.make(args, picture, wanted, side)
    shown = contain(picture, (side, side))
    a_page = len(made) // len(paths)
    for i, path in enumerate(paths):
        some = made[i * a_page : (i + 1) * a_page]
        texts = [f"“{args.prompt}”", *(knob.label(0) for knob in fixed)]
        if all(knob.setting != "method" for knob in fixed + swept):
            texts.insert(1, "method = auto")
        texts += [leaves.label(i)] if leaves else []
        rows = grid(shown, some, across, down)
        cells.page("sweep.py", path, rows, "; ".join(texts), some, args.no_record)
    failed = sum(bool(one.error) for one in made)
    for reason in dict.fromkeys(f"{one.cell.name}: {one.error}" for one in made if one.error):
        print(f"sweep.py: {reason}", file=sys.stderr)
    if not args.quiet:
        print(f"{len(made) - failed} edits are on {', '.join(map(str, paths))}, {failed} failed")
    return 2 if failed else 0


def knobs(args: argparse.Namespace) -> tuple[list[Knob], list[Knob]]:
    """The settings given, in the order of the command line: with one value, and with several.
    Raises InputError unless one to three have several."""
    found: dict[tuple[str, str | None], list[Any]] = {}
    for setting, given in vars(args).items():
        if setting not in (*NAMES, "method"):
            continue
        for value in given if isinstance(given, list) else [given]:
            word, value = value if setting in BY_WORD else (None, value)
            values = found.setdefault((setting, word), [])
            if value not in values:
                values.append(value)
    every = [Knob(*key, values) for key, values in found.items()]
    swept = [knob for knob in every if len(knob.values) > 1]
    if not swept:
        raise ptinv.InputError("give a setting several values, as in --eta 0.3,0.6,0.9")
    if len(swept) > 3:
        names = ", ".join(knob.setting for knob in swept)
        raise ptinv.InputError(f"{names} have several values; three settings can, at most")
    if len(swept[0].values) > ACROSS:
        many = f"{swept[0].setting} has {len(swept[0].values)} values, and {ACROSS} go across"
        raise ptinv.InputError(f"{many}; name a setting with fewer before it, or leave some out")
    return [knob for knob in every if len(knob.values) == 1], swept


def cell(fixed: list[Knob], swept: list[Knob], place: Sequence[int]) -> Cell:
    """The cell at a place: the number of each swept setting's value."""
    options: dict[str, Any] = {}
    for knob, i in [*((knob, 0) for knob in fixed), *zip(swept, place, strict=True)]:
        if knob.word is None:
            options[knob.setting] = knob.values[i]
        else:
            options.setdefault(knob.setting, {})[knob.word] = knob.values[i]
    name = " ".join(knob.label(i).replace(" = ", "=") for knob, i in zip(swept, place, strict=True))
    return cells.cell(name, options.pop("method", "auto"), options)


def grid(picture: Image.Image, made: list[Made], across: Knob, down: Knob | None) -> list[Row]:
    """The rows of a page: one with the picture before it; or several, and the picture above."""
    width = len(across.values)
    heads = [across.label(i) for i in range(width)]
    lines = [made[i : i + width] for i in range(0, len(made), width)]
    blank = [""] * width  # only the first line has its columns' heads
    tiles = [[tile(*each, picture) for each in zip(line, blank if i else heads, strict=True)]
             for i, line in enumerate(lines)]  # fmt: skip
    if down is None:
        return [Row([Tile(picture, "the picture"), *tiles[0]])]
    rows = [Row(line, down.label(i)) for i, line in enumerate(tiles)]
    return [Row([Tile(picture)], "the picture"), *rows]


def tile(one: Made, label: str, picture: Image.Image) -> Tile:
    """An edit under its column's head, or why there is none."""
    return Tile(cells.why(one.error, picture.size) if one.error else one.shown, label)


def spelt(name: str, value: Any) -> str:
    """A setting's value as it is written on the command line."""
    if isinstance(value, tuple):
        return joined(name, (f"{end:g}" for end in value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "none" if value is None else str(value)


def several(option: Option) -> Option:
    """An option that takes several values of its kind, divided by commas unless they are texts."""
    names, how = option
    kind, choices = how.get("type"), how.get("choices")
    if how.get("action") == "store_true" or option == NO_MASK:
        return option

    def values(text: str) -> list[Any]:
        if kind is str and not choices:
            return [text]
        word, equals, rest = text.rpartition("=")
        with suppress(ValueError):
            return [kind(word + equals + part.strip()) for part in rest.split(",")]
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers, such as 3,5,7.5")

    metavar = ",".join(choices) if choices else how["metavar"]
    return names, how | dict(type=values, action="extend", choices=None, metavar=metavar)


METHOD = "--method", dict(type=lambda text: [name.strip() for name in text.split(",")],
    action="extend", metavar="A,B", default=SUPPRESS,
    help="see `ptinv methods` (default: auto)")  # fmt: skip
FAST = "--fast", dict(dest="method", action="append_const", const="fast", default=SUPPRESS,
    help="as --method fast")  # fmt: skip


def parser() -> cells.Parser:
    """The command line."""
    top = cells.parser(__doc__.splitlines()[0], "GRID.png")
    add(top, [METHOD, FAST, *cells.each(cells.SETTINGS, several)])
    return top


if __name__ == "__main__":
    sys.exit(main())
