"""Cells of a sheet: edits of one picture under one prompt, for programs that lay them side by side.

Whatever the edits can share is made once: what the picture is taken to show, its inversion, its
tuning. An edit that cannot be made becomes a cell that says why. Finished cells lie in a folder,
each with its own record, from which a run that was stopped goes on.
"""

import argparse
import json
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from PIL import Image, ImageDraw
from PIL.ImageOps import contain
from world.sheets import GAP, MARGIN, NAMES, NARROW, WIDE, Row, draw_sheet, write

import ptinv
from ptinv.cli.commands import load
from ptinv.cli.options import MODEL, NO_RECORD, Option, Options, Parser, add, group
from ptinv.methods.masks import painted
from ptinv.methods.request import request_edit
from ptinv.methods.table import find
from ptinv.settings import ABOUT, ATTENTION, EDIT, INVERSION, check_prompt
from ptinv.storage.files import check_output
from ptinv.storage.inversion import SUFFIX
from ptinv.storage.pictures import FORMATS, open_picture, save_picture
from ptinv.storage.provenance import fingerprint

from . import runner
from .command_line import sentence
from .edits import result_of
from .meter import Cost

LARGEST, USUAL = 512, 256  # pixels along a shown picture's longer side: at most, and if it can be
EDGE, PAD = (205, 205, 205), 10  # of a cell that says why it is empty


class Cell(NamedTuple):
    """One edit."""

    name: str  # unlike any other cell's
    method: str
    options: dict[str, Any]  # those that the method uses; a mask by its file's name


@dataclass(frozen=True)
class Made:
    """Outcome of a cell."""

    cell: Cell
    shown: Image.Image | None = None  # as large as it is drawn; None where it could not be made
    record: dict[str, str] | None = None  # as its own PNG carries it
    cost: Cost = Cost()  # on its own, with whatever others shared
    error: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """Facts that are known of it, for JSON."""
        about = {"name": self.cell.name, "method": self.cell.method}
        if self.error:
            return about | {"options": self.cell.options, "error": self.error}
        record = {n: json.loads(v) if n == "settings" else v for n, v in self.record.items()}
        return about | record | self.cost._asdict()


def parser(about: str, output: str) -> Parser:
    """A command line for a picture and a prompt; `add` gives it options."""
    top = Parser(description=about)
    top.add_argument("picture", metavar="PICTURE")
    top.add_argument("prompt", metavar="PROMPT", help="what it should become")
    top.add_argument("-o", "--output", type=Path, metavar=output, required=True)
    cells = "keep the single pictures there; an interrupted run goes on from them"
    top.add_argument("--cells", type=Path, metavar="DIR", help=cells)
    add(top, [NO_RECORD, *MODEL[:-1], QUIET])
    return top


QUIET = "--quiet", dict(action="store_true", help="say only what is wrong")
# of an edit, but for what needs a stored inversion
SETTINGS = [
    option
    for name in (INVERSION, ATTENTION, EDIT)
    for option in group(name)
    if option[0] != "--reuse-tuning"
]


def each(options: Options, change: Callable[[Option], Option]) -> Options:
    """The options, each changed."""
    return [[*map(change, one)] if isinstance(one, list) else change(one) for one in options]


def check_inputs(args: argparse.Namespace, pages: Iterable[Path]) -> Image.Image:
    """The picture, if it, the prompt and the outputs can be used. Raises InputError."""
    masks = getattr(args, "mask", None)  # one or several, of which any may be none
    inputs = [args.picture, *filter(None, masks if isinstance(masks, list) else [masks])]
    for path in pages:
        check_output(path, FORMATS, inputs)
    check_prompt(args.prompt, "what the picture should become")
    if args.cells:
        runner.check_folder(args.cells)
    if Path(args.picture).suffix.lower() == SUFFIX:
        raise ptinv.InputError(f"{args.picture}: name the picture itself; it is inverted here")
    return open_picture(args.picture)


def cell(name: str, method: str, options: dict[str, Any]) -> Cell:
    """A cell with those of the options that its method uses. Raises InputError for a method that
    there isn't, and for a value that no method can use."""
    ignored = find(method).ignored
    for setting, value in options.items():
        if setting != "mask" and value is not None:
            ABOUT[setting]["check"](setting, value)
    return Cell(name, method, {n: v for n, v in options.items() if n not in ignored})


def check_used(cells: Iterable[Cell], options: Iterable[str]) -> None:
    """Raises InputError for an option that no cell has kept."""
    used = {name for one in cells for name in one.options}
    if idle := [name for name in options if name not in used]:
        methods = ", ".join(dict.fromkeys(one.method for one in cells))
        raise ptinv.InputError(f"{', '.join(idle)} would change nothing by {methods}; leave it out")


def make(
    args: argparse.Namespace, picture: Image.Image, cells: Sequence[Cell], side: int
) -> list[Made]:
    """Makes the cells that the folder lacks, and draws each at most so large. Raises InputError
    where none can be made."""
    masks = {path: open_picture(path, painted) for one in cells
             if (path := one.options.get("mask"))}  # fmt: skip
    errors = {one.name: refusal(picture, args.prompt, one, masks) for one in cells}
    check_any(errors)
    model = load(args)
    about = runner.made_by(model) | {
        "picture": fingerprint(picture),
        "prompt": args.prompt,
        "record": not args.no_record,
    }
    prints = {path: fingerprint(mask) for path, mask in masks.items()}
    wanted: dict[str, tuple[Cell, dict[str, Any]]] = {}  # by key: cells that come to the same
    keys: dict[str, str] = {}
    for one in (one for one in cells if not errors[one.name]):
        item = about | {"method": one.method} | stand_in(one.options, prints)
        keys[one.name] = runner.key_of(item)
        wanted.setdefault(keys[one.name], (one, item))
    with nullcontext(args.cells) if args.cells else TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            key: folder / f"{file_name(one)}-{key[:6]}.png" for key, (one, _) in wanted.items()
        }
        some = [one for one, _ in wanted.values()]
        job = partial(begin, args, model, picture, some, masks, list(files.values()))
        jobs = runner.Group([item for _, item in wanted.values()], job)
        runner.run([jobs], folder, partial(runner.is_kept, folder), alone=True, quiet=args.quiet)
        results = runner.results(folder)
        made = {name: results[key] for name, key in keys.items()}
        errors |= {name: result.get("error", "") for name, result in made.items()}
        check_any(errors)
        return [
            Made(one, error=error)
            if (error := errors[one.name])
            else drawn(one, made[one.name], folder, side)
            for one in cells
        ]


def file_name(one: Cell) -> str:
    """A cell's name as far as any file system takes it."""
    return re.sub(r"[^\w.=+-]+", "-", one.name)[:60]


def refusal(picture: Image.Image, prompt: str, one: Cell, masks: dict[str, Image.Image]) -> str:
    """Why a cell cannot be made, as far as that is known without a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ptinv.Remark)  # they come when it is made
        try:
            request_edit(picture, prompt, one.method, **stand_in(one.options, masks))
        except ptinv.InputError as error:
            return str(error)
    return ""


def stand_in(options: dict[str, Any], masks: dict[str, Any]) -> dict[str, Any]:
    """The options, with something in the place of a mask's name."""
    mask = options.get("mask")
    return options | ({"mask": masks[mask]} if mask else {})


def check_any(errors: dict[str, str]) -> None:
    """Raises InputError if every cell has failed, with the reasons."""
    if errors and all(errors.values()):
        reasons = dict.fromkeys(errors.values())
        by_name = (f"{name}: {error}" for name, error in errors.items())
        raise ptinv.InputError(next(iter(reasons)) if len(reasons) == 1 else "; ".join(by_name))


def begin(
    args: argparse.Namespace,
    model: ptinv.StableDiffusion,
    picture: Image.Image,
    cells: Sequence[Cell],
    masks: dict[str, Image.Image],
    files: Sequence[Path],
) -> runner.Make:
    """Makes cells, each into its file; what they can share is kept until the last of them."""
    starts = {}

    def make_one(i: int) -> dict[str, Any]:
        one = cells[i]
        given = stand_in(one.options, masks)
        try:
            result, cost = result_of(model, picture, args.prompt, one.method, given, starts)
        except Exception as error:
            if (said := sentence(error)) is None:
                raise
            return {"error": said}
        result.save(files[i], record=not args.no_record)
        return {"output": files[i].name, **cost._asdict()}

    return make_one


def drawn(one: Cell, result: dict[str, Any], folder: Path, side: int) -> Made:
    """A finished cell, from its file."""

    def read(image: Image.Image) -> tuple[Image.Image, dict[str, str]]:
        return contain(image.convert("RGB"), (side, side)), dict(image.text)

    shown, record = open_picture(folder / result["output"], read)
    return Made(one, shown, record, Cost(*(result[name] for name in Cost._fields)))


def side_of(picture: Image.Image, columns: int, named: bool) -> int:
    """Pixels along a drawn picture in so many columns, beside a column of names or without one."""
    room = WIDE - 2 * MARGIN + GAP - (NAMES + GAP if named else 0)
    fits = room // columns - GAP
    return max(NARROW, min(fits, LARGEST, max(USUAL, *picture.size)))


def why(error: str, size: tuple[int, int]) -> Image.Image:
    """An empty cell that says why it is empty, as large as a picture, or taller for the words."""
    text = write("", f"not made: {error}", max(NARROW, size[0]) - 2 * PAD)
    blank = Image.new("RGB", (max(NARROW, size[0]), max(size[1], text.height + 2 * PAD)), "white")
    blank.paste(text, (PAD, PAD))
    ImageDraw.Draw(blank).rectangle((0, 0, blank.width - 1, blank.height - 1), outline=EDGE)
    return blank


def page(
    program: str, path: Path, rows: Sequence[Row], footer: str, made: Iterable[Made], bare: bool
) -> None:
    """Writes a sheet over a line of text. A PNG carries the settings of all its cells, unless it is
    to be bare."""
    cells = json.dumps([one.about for one in made], ensure_ascii=False)
    record = (
        None if bare else {"Software": f"{program} of ptinv {ptinv.__version__}", "cells": cells}
    )
    save_picture(draw_sheet(rows, footer), path, record)
