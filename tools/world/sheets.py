"""A labelled grid of pictures with names, and words that wrap, in any letters.

A sheet is rows of tiles. A row's name stands at its left and a tile's label over its picture, so
the labels of the first row can head the columns; a fainter remark may follow either. All sizes are
in pixels.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont, load_default, truetype

from ptinv.errors import InputError

WIDE, TALL = 2120, 16_000  # of a sheet at most; no format's limit is lower than 16383
MARGIN, GAP = 16, 8  # round the sheet; between pictures
FONT, SIZE, LINE = load_default(15), 15, 20  # and a line's height
# for letters that it lacks: what a system may have, the widest first
FALLBACKS = "DejaVuSans NotoSansCJK-Regular arial msyh seguiemj ArialUnicode Symbola".split()
BLACK, GREY = (20, 20, 20), (110, 110, 110)
NAMES = 210  # the width of the names' column
NARROW = 128  # that of any other at least, so that words fit


class Tile(NamedTuple):
    """A picture, drawn as it is, under a few words."""

    picture: Image.Image
    label: str = ""
    remark: str = ""
    stressed: Collection[str] = ()  # words of the remark that are not to be faint


class Row(NamedTuple):
    """Tiles side by side, and on below where a sheet is too narrow; without any, a heading."""

    tiles: Sequence[Tile]
    name: str = ""
    remark: str = ""


def draw_sheet(rows: Sequence[Row], footer: str = "") -> Image.Image:
    """Draws rows one below the other, in columns as wide as the widest picture, then a remark. The
    lines of the longest row are about equally long. Raises InputError if it is too tall to save."""
    across = max([NARROW, *(tile.picture.width for row in rows for tile in row.tiles)]) + GAP
    left = NAMES + GAP if any(row.name or row.remark for row in rows) else 0
    longest = max(len(row.tiles) for row in rows)
    at_most = max(1, (WIDE - 2 * MARGIN - left + GAP) // across)
    columns = ceil(longest / ceil(longest / at_most))
    width = left + columns * across - GAP
    parts, y = [], MARGIN
    for row in rows:
        part = _draw_row(row, left, across, columns)
        parts.append((y, part))
        y += part.height + GAP
        if y > TALL:
            raise InputError(f"the sheet is more than {TALL} pixels tall; ask for fewer pictures")
    below = write("", footer, width)
    sheet = Image.new("RGB", (width + 2 * MARGIN, y + below.height - GAP + MARGIN), "white")
    for top, part in [*parts, (y, below)]:
        sheet.paste(part, (MARGIN, top))
    return sheet


def _draw_row(row: Row, left: int, across: int, columns: int) -> Image.Image:
    """Draws a row whose first tile is at `left` and each next one so far `across`."""
    name = write(row.name, row.remark, NAMES)
    labels = [write(tile.label, tile.remark, across - GAP, tile.stressed) for tile in row.tiles]
    over = max((label.height for label in labels), default=0)
    down = over + max((tile.picture.height for tile in row.tiles), default=0) + GAP
    height = max(over + name.height, ceil(len(row.tiles) / columns) * down - GAP)
    drawn = Image.new("RGB", (left + columns * across, height), "white")
    drawn.paste(name, (0, over))
    for i, (tile, label) in enumerate(zip(row.tiles, labels, strict=True)):
        x, y = left + i % columns * across, i // columns * down + over
        drawn.paste(label, (x, y - label.height))
        drawn.paste(tile.picture, (x, y))
    return drawn


def write(label: str, remark: str, width: int, stressed: Collection[str] = ()) -> Image.Image:
    """Writes a label, then a remark, on as many lines as needed; cuts a word wider than a line."""
    placed, x, y = [], 0.0, 0
    for text, colour in ((label, BLACK), (remark, GREY)):
        for line in text.splitlines():
            for word in line.split():
                ink = BLACK if word in stressed else colour
                word, font = spelt(word)
                while font.getlength(word) > width:
                    word = word[:-2] + "…"
                if x + font.getlength(word) > width:
                    x, y = 0.0, y + LINE
                placed.append(((x, y), word, ink, font))
                x += font.getlength(word) + FONT.getlength(" ")
            x, y = 0.0, y + LINE
    drawn = Image.new("RGB", (width, y), "white")
    pen = ImageDraw.Draw(drawn)
    for corner, word, ink, font in placed:
        pen.text(corner, word, ink, font)
    return drawn


@lru_cache
def fonts() -> list[FreeTypeFont]:
    """Ours, then those that the system has; `truetype` finds them by name."""
    found = [FONT]
    for name in FALLBACKS:
        for ending in (".ttf", ".ttc"):
            with suppress(OSError):
                found.append(truetype(name + ending, SIZE))
    return found


@lru_cache
def spelt(text: str) -> tuple[str, FreeTypeFont]:
    """A text, and a font that has all its letters; its code points where no font has."""
    for font in fonts():
        box = bytes(font.getmask("\U0010ffff"))  # no character: what a missing one looks like
        if text.isprintable() and all(bytes(font.getmask(letter)) != box for letter in text):
            return text, font
    return "+".join(f"U+{ord(letter):04X}" for letter in text), FONT
