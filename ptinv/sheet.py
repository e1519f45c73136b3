"""Sheets of pictures in a labelled grid, for the package and its tools.

`draw_strips` puts words under every picture and breaks long strips into lines, `draw_table` puts a
few words over every column and a name beside every row. Both draw on white, whatever the pictures
show. All sizes are in pixels.
"""

from collections.abc import Collection, Hashable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import inf
from typing import NamedTuple

from PIL import Image, ImageDraw
from PIL.ImageFont import load_default

from .core.pictures import resize

Pen, Ink = ImageDraw.ImageDraw, tuple[int, int, int]
Size = tuple[int, int]  # (width, height)

# strips
SIDE = 256  # the longer one of a picture
NARROW = 160  # a column, where pictures are narrower, so that words fit
WIDE, TALL = 2120, 16_000  # a sheet at most; no format's limit is lower than 16383
LEAST = 540  # its width, so that its last lines fit
SPACE, LABEL, HEADING, FOOTER = 10, 26, 40, 64
FONT, REMARK, INK, FAINT = 17, 14, (20, 20, 20), (110, 110, 110)  # type

# tables
TILE = 128  # a picture's side
GAP, WIDE_GAP = 4, 14  # inside a group and between groups
MARGIN, LEFT = 12, 182  # round the page; the names' column
LARGE, MIDDLE, SMALL = 15, 13, 12  # type
LEADING = {size: round(1.25 * size) for size in (LARGE, MIDDLE, SMALL)}  # height of a line
BLACK, GREY = (0, 0, 0), (112, 112, 112)


class Cell(NamedTuple):
    """A picture of a strip with a label and, at the right end of its line, a remark."""

    picture: Image.Image
    label: str
    remark: str = ""


class Strip(NamedTuple):
    """Cells under one heading, in as many lines as they take."""

    heading: str
    cells: list[Cell]


class Column(NamedTuple):
    """The words over a column of a table; neighbours of one heading share it."""

    heading: str
    text: str
    stressed: Collection[str] = ()  # words of the text that stand out


class Row(NamedTuple):
    """A row of a table: a picture for each column, resized to a square."""

    name: str
    notes: tuple[str, ...]  # a line each, in small type
    pictures: list[Image.Image]
    group: Hashable = 0  # neighbours of one group stand closer together


def shown_size(size: Size) -> Size:
    """The size in which a strip shows a picture of another size."""
    scale = SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def lay_out(picture: Size, cells: int, strips: int) -> tuple[list[list[tuple[int, int]]], Size]:
    """Lays out so many strips of so many cells, for pictures of one size.

    Returns the upper left (x, y) of each strip's each cell, and the sheet's size. A strip's lines
    are about equally long. Only the sheet's width is limited; see `TALL`.
    """
    across, down = max(picture[0], NARROW) + SPACE, picture[1] + LABEL + SPACE
    lines = -(-cells // max(1, (WIDE - SPACE) // across))
    columns = -(-cells // lines)
    places = [(SPACE + i % columns * across, i // columns * down) for i in range(cells)]
    tops = [HEADING + i * (HEADING + lines * down) for i in range(strips)]
    size = max(LEAST, SPACE + columns * across), strips * (HEADING + lines * down) + FOOTER
    return [[(x, top + y) for x, y in places] for top in tops], size


def draw_strips(
    strips: Sequence[Strip], key: tuple[str, Image.Image, str], remark: str = ""
) -> Image.Image:
    """Draws strips one under the other, then a key to the colours and a remark.

    All pictures have one size (see `shown_size`), all strips the same number of cells. A text is
    cut where it takes more than its room. key: a bar of colours, 14 pixels high, between two texts.
    """
    width, height = strips[0].cells[0].picture.size
    corners, size = lay_out((width, height), len(strips[0].cells), len(strips))
    paper = Image.new("RGB", size, "white")
    write = partial(_write, ImageDraw.Draw(paper), anchor="ls")
    room, line = max(width, NARROW), paper.width - 2 * SPACE
    for strip, places in zip(strips, corners, strict=True):
        write(SPACE, places[0][1] - 8, strip.heading, FONT, INK, room=line)
        for (x, y), cell in zip(places, strip.cells, strict=True):
            paper.paste(cell.picture, (x, y))
            y += height + 18
            taken = write(x + room, y, cell.remark, REMARK, FAINT, room=room, anchor="rs")
            write(x, y, cell.label, FONT, INK, room=room - taken - 6)
    least, bar, most = key
    top = paper.height - FOOTER + 20
    x = SPACE + write(SPACE, top + 12, least, REMARK, INK, room=line) + 5
    paper.paste(bar, (x, top))
    x += bar.width
    write(x + 5, top + 12, most, REMARK, INK, room=line - x)
    write(SPACE, top + 34, remark, REMARK, INK, room=line)
    return paper


def draw_table(columns: Sequence[Column], rows: Sequence[Row]) -> Image.Image:
    """Draws pictures under their columns' words and beside their rows' names."""
    texts = [wrapped(column.text, MIDDLE, TILE) for column in columns]
    head = MARGIN + LEADING[LARGE] + LEADING[MIDDLE] * max(map(len, texts)) + GAP
    xs = _places(MARGIN + LEFT, [column.heading for column in columns])
    ys = _places(head, [row.group for row in rows])
    paper = Image.new("RGB", (xs[-1] + TILE + MARGIN, ys[-1] + TILE + MARGIN), "white")
    write = partial(_write, ImageDraw.Draw(paper), anchor="la")
    heading = None
    for left, column, lines in zip(xs, columns, texts, strict=True):
        if column.heading != heading:
            heading = column.heading
            write(left, MARGIN, heading, LARGE, BLACK)
        # the last line stands on the pictures, however many there are
        for i, line in enumerate(lines):
            x, y = left, head - GAP - (len(lines) - i) * LEADING[MIDDLE]
            for word in line.split():
                write(x, y, word, MIDDLE, BLACK if word in column.stressed else GREY)
                x += load_default(MIDDLE).getlength(word + " ")
    for top, row in zip(ys, rows, strict=True):
        lines = [(text, LARGE, BLACK) for text in wrapped(row.name, LARGE, LEFT - WIDE_GAP)]
        lines += [(text, SMALL, GREY) for text in row.notes]
        y = top + (TILE - sum(LEADING[size] for _, size, _ in lines)) // 2  # level with the middle
        for text, size, ink in lines:
            write(MARGIN, y, text, size, ink)
            y += LEADING[size]
        for x, picture in zip(xs, row.pictures, strict=True):
            paper.paste(resize(picture, (TILE, TILE)), (x, top))
    return paper


def wrapped(text: str, size: int, width: int) -> list[str]:
    """The text in lines of at most so many pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and load_default(size).getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _places(first: int, groups: list) -> list[int]:
    """The first pixel of each tile along an axis, with a wide gap where the group changes."""
    steps = [TILE + (GAP if a == b else WIDE_GAP) for a, b in pairwise(groups)]
    return list(accumulate(steps, initial=first))


def _write(
    pen: Pen, x: float, y: float, text: str, size: int, ink: Ink, anchor: str, room: float = inf
) -> int:
    """Writes a text, cut where it takes more than `room`; returns the width that it takes."""
    font = load_default(size)
    if font.getlength(text) > room:
        while text and font.getlength(text + "…") > room:
            text = text[:-1]
        text += "…"
    pen.text((x, y), text, ink, font, anchor)
    return round(font.getlength(text))
