"""Pictures in a grid, every column under a few words and every row beside a name.

Columns that share a heading stand closer together, and so do rows of one group. A pure function of
what is shown: nothing here knows what the pictures are.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate, pairwise

from PIL import Image, ImageDraw, ImageFont

TILE = 128  # pixels: a picture's side
GAP, WIDE_GAP = 4, 14  # inside a group and between groups
MARGIN, LEFT = 12, 182  # round the page; the names' column
LARGE, MIDDLE, SMALL = 15, 13, 12  # type
BLACK, GREY = (0, 0, 0), (112, 112, 112)


@dataclass(frozen=True)
class Column:
    heading: str  # shared by neighbours
    text: str
    stressed: Collection[str] = ()  # words of the text that stand out


@dataclass(frozen=True)
class Row:
    name: str
    notes: tuple[str, ...]  # a line each, in small type
    pictures: list[Image.Image]
    group: int = 0


def page(columns: list[Column], rows: list[Row]) -> Image.Image:
    """The whole grid on white."""
    texts = [wrapped(column.text, MIDDLE, TILE) for column in columns]
    head = MARGIN + _leading(LARGE) + _leading(MIDDLE) * max(map(len, texts)) + GAP
    xs = _places(MARGIN + LEFT, [column.heading for column in columns])
    ys = _places(head, [row.group for row in rows])
    sheet = Image.new("RGB", (xs[-1] + TILE + MARGIN, ys[-1] + TILE + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (x, column) in enumerate(zip(xs, columns, strict=True)):
        if i == 0 or column.heading != columns[i - 1].heading:
            pen.text((x, MARGIN), column.heading, BLACK, _font(LARGE))
        # the last line stands on the pictures, however many there are
        top = head - GAP - _leading(MIDDLE) * len(texts[i])
        _write(pen, x, top, texts[i], column.stressed)
    for y, row in zip(ys, rows, strict=True):
        _name(pen, y, row)
        for x, picture in zip(xs, row.pictures, strict=True):
            sheet.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))
    return sheet


def wrapped(text: str, size: int, width: int) -> list[str]:
    """The text in lines of at most so many pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _places(first: int, groups: list) -> list[int]:
    """Where each tile begins: a wide gap where the group changes."""
    steps = [TILE + (GAP if a == b else WIDE_GAP) for a, b in pairwise(groups)]
    return list(accumulate(steps, initial=first))


def _write(
    pen: ImageDraw.ImageDraw, x: int, y: int, lines: list[str], stressed: Collection[str]
) -> None:
    """Lines of middle-sized type, grey but for the words that are stressed."""
    font = _font(MIDDLE)
    for i, line in enumerate(lines):
        along = float(x)
        for word in line.split():
            at = (along, y + i * _leading(MIDDLE))
            pen.text(at, word, BLACK if word in stressed else GREY, font)
            along += font.getlength(word + " ")


def _name(pen: ImageDraw.ImageDraw, y: int, row: Row) -> None:
    """A row's name and notes, level with the middle of its pictures."""
    lines = [(text, LARGE, BLACK) for text in wrapped(row.name, LARGE, LEFT - WIDE_GAP)]
    lines += [(text, SMALL, GREY) for text in row.notes]
    top = y + (TILE - sum(_leading(size) for _, size, _ in lines)) // 2
    for text, size, colour in lines:
        pen.text((MARGIN, top), text, colour, _font(size))
        top += _leading(size)


def _leading(size: int) -> int:
    return round(1.25 * size)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
