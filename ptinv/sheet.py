"""A labelled grid of pictures: rows of tiles under a heading each, in any letters."""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont, load_default, truetype

from .errors import InputError

WIDE, TALL = 2120, 16_000  # pixels of a sheet at most; no format's limit is lower than 16383
MARGIN, GAP, NARROW = 16, 8, 128  # round the sheet; between pictures; of a column at least
FONT, SIZE, LINE = load_default(15), 15, 20  # and a line's height
# for letters that it lacks: what a system may have, the widest first
FALLBACKS = "DejaVuSans NotoSansCJK-Regular arial msyh seguiemj ArialUnicode Symbola".split()
HEADING = 680  # the width that one may need
BLACK, GREY = (20, 20, 20), (110, 110, 110)


class Tile(NamedTuple):
    """A picture, drawn as it is, under two lines."""

    picture: Image.Image
    label: str
    remark: str = ""


def draw_sheet(rows: Sequence[tuple[str, Sequence[Tile]]]) -> Image.Image:
    """Draws headings and their tiles one below the other; a row that is too long goes on below.
    Raises InputError if the sheet is too tall to save."""
    across = GAP + max(NARROW, *(tile.picture.width for _, tiles in rows for tile in tiles))
    columns = max(1, (WIDE - 2 * MARGIN + GAP) // across)
    lines, pictures, y = [], [], MARGIN
    for heading, tiles in rows:
        lines.append((MARGIN, y, heading, GREY, WIDE))
        y += LINE
        for start in range(0, len(tiles), columns):
            for i, tile in enumerate(tiles[start : start + columns]):
                x = MARGIN + i * across
                lines.append((x, y, tile.label, BLACK, across - GAP))
                lines.append((x, y + LINE, tile.remark, GREY, across - GAP))
                pictures.append((tile.picture, (x, y + 2 * LINE)))
            y += 2 * LINE + max(tile.picture.height for tile in tiles) + GAP
    if y > TALL:
        raise InputError(f"the sheet is more than {TALL} pixels tall; ask for fewer pictures")
    widest = max(len(tiles) for _, tiles in rows)
    width = max(HEADING, min(widest, columns) * across - GAP)
    sheet = Image.new("RGB", (2 * MARGIN + width, y + MARGIN - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for x, y, text, ink, room in lines:
        text, font = spelt(text)
        while font.getlength(text) > room:
            text = text[:-2] + "…"
        pen.text((x, y), text, ink, font)
    for picture, corner in pictures:
        sheet.paste(picture, corner)
    return sheet


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
        if all(bytes(font.getmask(letter)) != box for letter in text):
            return text, font
    return "+".join(f"U+{ord(letter):04X}" for letter in text), FONT
