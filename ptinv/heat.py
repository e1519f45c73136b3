"""Maps drawn over a picture as heat, and laid out with their labels on one sheet.

A map (h, w) holds numbers from 0 up, over cells of any size. It is drawn relative to its largest,
by brightness as well as by colour, over the picture in dim grey: brighter is always more.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .errors import InputError

RAMP = torch.tensor(  # matplotlib's "inferno": even steps look even, also without colour
    [
        [0, 0, 4],
        [31, 12, 72],
        [85, 15, 109],
        [136, 34, 106],
        [186, 54, 85],
        [227, 89, 51],
        [249, 140, 10],
        [249, 201, 50],
        [252, 255, 164],
    ],
    dtype=torch.float32,
)
DIM = 0.4  # of the grey picture under the heat

SIDE = 256  # the longer one of a picture on the sheet, in pixels, like all that follows
NARROW = 160  # a column, where pictures are narrower, so that words fit
WIDE, TALL = 2120, 16_000  # a sheet at most; no format's limit is lower than 16383
LEAST = 540  # its width, so that its last lines fit
GAP, LABEL, HEADING, FOOTER = 10, 26, 40, 64
FONT, SMALL = 17, 14
INK, FAINT = (20, 20, 20), (110, 110, 110)


class Cell(NamedTuple):
    """One picture on the sheet, what it shows, and a remark."""

    picture: Image.Image
    label: str
    remark: str = ""


class Strip(NamedTuple):
    """Cells that belong together, in as many lines as they take."""

    heading: str
    cells: list[Cell]


@dataclass(frozen=True)
class Layout:
    """Where things stand on a sheet. Raises InputError if it would be too tall to be saved."""

    cell: tuple[int, int]  # (width, height) of each picture on it
    cells: int  # in a strip
    strips: int

    def __post_init__(self):
        if self.size[1] > TALL:
            raise InputError(
                f"the sheet would be {self.size[1]} pixels tall and may be {TALL}; "
                "ask for fewer levels and steps"
            )

    @property
    def column(self) -> int:
        return max(self.cell[0], NARROW) + GAP

    @property
    def lines(self) -> int:
        """In a strip."""
        return -(-self.cells // max(1, (WIDE - GAP) // self.column))

    @property
    def columns(self) -> int:
        """As many as make the lines about equally long."""
        return -(-self.cells // self.lines)

    @property
    def line(self) -> int:
        return self.cell[1] + LABEL + GAP

    @property
    def strip(self) -> int:
        return HEADING + self.lines * self.line

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the sheet."""
        width = max(LEAST, GAP + self.columns * self.column)
        return width, self.strips * self.strip + FOOTER

    def corner(self, strip: int, cell: int) -> tuple[int, int]:
        """(x, y) of a column's upper left end."""
        line, column = divmod(cell, self.columns)
        return GAP + column * self.column, strip * self.strip + HEADING + line * self.line


def on_a_sheet(size: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) in which a sheet shows a picture of another size."""
    scale = SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def over(picture: Image.Image, heat: Tensor) -> Image.Image:
    """A map (h, w) as heat over an RGB picture, smoothly enlarged to its size."""
    shares = heat.float() / heat.max().clamp(min=1e-12)
    size = picture.size[::-1]
    shares = F.interpolate(shares[None, None], size=size, mode="bicubic", antialias=True)
    colours = ramp(rearrange(shares, "1 1 h w -> h w").clamp(0, 1))
    under = torch.from_numpy(np.array(picture.convert("L"), np.float32))[..., None] * DIM
    shown = 255 - (255 - under) * (255 - colours) / 255  # light added to light: never darker
    return Image.fromarray(shown.round().to(torch.uint8).numpy())


def ramp(shares: Tensor) -> Tensor:
    """Shares (h, w) in [0, 1] -> colours (h, w, 3) from 0 to 255."""
    place = shares * (len(RAMP) - 1)
    below = place.long().clamp(max=len(RAMP) - 2)
    return torch.lerp(RAMP[below], RAMP[below + 1], (place - below)[..., None])


def sheet(strips: list[Strip], most: str, remark: str = "") -> Image.Image:
    """Strips one under the other, then the colours from 0 to `most` and a remark.

    All pictures have one size, all strips the same number of cells. Raises as `Layout`.
    """
    layout = Layout(strips[0].cells[0].picture.size, len(strips[0].cells), len(strips))
    paper = Image.new("RGB", layout.size, "white")
    draw = ImageDraw.Draw(paper)
    for i, strip in enumerate(strips):
        top = i * layout.strip + HEADING - 8
        _write(draw, (GAP, top), strip.heading, FONT, layout.size[0] - 2 * GAP)
        for j, cell in enumerate(strip.cells):
            x, y = layout.corner(i, j)
            paper.paste(cell.picture, (x, y))
            base, room = y + layout.cell[1] + 18, layout.column - GAP
            taken = _write(draw, (x + room, base), cell.remark, SMALL, room, FAINT, "rs")
            _write(draw, (x, base), cell.label, FONT, room - taken - 6)
    _key(paper, draw, most, remark)
    return paper


def _key(paper: Image.Image, draw: ImageDraw.ImageDraw, most: str, remark: str) -> None:
    """The sheet's last two lines."""
    y, length, room = paper.height - FOOTER + 20, 120, paper.width - 2 * GAP
    bar = ramp(torch.linspace(0, 1, length).expand(14, length))
    x = GAP + _write(draw, (GAP, y + 12), "0", SMALL, room) + 5
    paper.paste(Image.fromarray(bar.round().to(torch.uint8).numpy()), (x, y))
    _write(draw, (x + length + 5, y + 12), most, SMALL, room - length - x)
    _write(draw, (GAP, y + 34), remark, SMALL, room)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    room: int,
    ink: tuple[int, int, int] = INK,
    anchor: str = "ls",
) -> int:
    """Writes a text, cut where it takes more than `room`; returns the width that it takes."""
    font = ImageFont.load_default(size)
    if font.getlength(text) > room:
        while text and font.getlength(text + "…") > room:
            text = text[:-1]
        text += "…"
    draw.text(place, text, ink, font, anchor)
    return round(font.getlength(text))
