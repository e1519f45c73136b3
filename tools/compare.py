"""Compares methods: a picture and every method's edit of it, on one sheet.

    python tools/compare.py picture.png "two pink dogs in the snow" \\
        --methods auto,pti,diffedit,direct -o sheet.png

Each method has its own defaults; an option of `ptinv edit` is for all methods that use it, as
--source is for a text of the picture. Under each name are the seconds that the edit takes on its
own, though inversions are shared. A method that fails is a cell that says why. The sheet, if it is
a PNG, carries all settings. Ends with 0 if every method made its edit, 2 if any did not.
"""

import argparse
import sys

from evaluation import cells
from evaluation.cells import Cell, Made
from evaluation.command_line import answer
from PIL import Image
from PIL.ImageOps import contain
from world.sheets import Row, Tile

import ptinv
from ptinv.cli.commands import settings
from ptinv.cli.options import add

ACROSS = 6  # pictures in a line at most


def main(argv: list[str] | None = None) -> int:
    return answer("compare.py", run, parser(), argv)


def run(args: argparse.Namespace) -> int:
    """Makes the sheet that the command line names; returns its exit code."""
    picture = cells.check_inputs(args, [args.output])
    wanted = cells_of(args)
    columns = -(-(1 + len(wanted)) // -(-(1 + len(wanted)) // ACROSS))
    side = cells.side_of(picture, columns, named=False)
    made = cells.make(args, picture, wanted, side)
    shown = contain(picture, (side, side))
    row = Row([Tile(shown, "the picture"), *(tile(one, shown) for one in made)])
    given = [f"{name} = {value}" for name, value in settings(args).items()]
    cells.page("compare.py", args.output, [row], "; ".join([f"“{args.prompt}”", *given]), made,
        args.no_record)  # fmt: skip
    for one in made:
        if one.error:
            print(f"compare.py: {one.cell.name}: {one.error}", file=sys.stderr)
        elif not args.quiet:
            print(f"{one.cell.name}: {cost(one)}, {one.cost.backward} backward")
    return 2 if any(one.error for one in made) else 0


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """A cell a method. Raises InputError for a method that there isn't, or an option that is for
    none of them."""
    options = settings(args)
    names = dict.fromkeys(name.strip() for name in args.methods.split(","))
    wanted = [cells.cell(name, name, options) for name in names]
    cells.check_used(wanted, options)
    return wanted


def tile(one: Made, picture: Image.Image) -> Tile:
    """A method's edit under its name, or why there is none."""
    if one.error:
        return Tile(cells.why(one.error, picture.size), one.cell.name)
    return Tile(one.shown, one.cell.name, cost(one))


def cost(one: Made) -> str:
    """Seconds and rows."""
    return f"{one.cost.seconds:.1f} s, {one.cost.forward} UNet rows"


def parser() -> cells.Parser:
    """The command line."""
    top = cells.parser(__doc__.splitlines()[0], "SHEET.png")
    names = f"of: {', '.join(ptinv.METHODS)}"
    top.add_argument("--methods", metavar="A,B", required=True, help=names)
    add(top, cells.SETTINGS)
    return top


if __name__ == "__main__":
    sys.exit(main())
