"""Views for the notebooks: the picture they edit, pictures in a row, curves and heat."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from PIL.ImageOps import contain
from torch import Tensor

TOOLS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOOLS))

from attention import over as over_grey  # noqa: E402
from trajectories import FAINT, GREEN, GREY, INK, RED, Paper  # noqa: E402
from world.sheets import Row, Tile, draw_sheet  # noqa: E402

import ptinv  # noqa: E402
from ptinv.core.pictures import resize  # noqa: E402
from ptinv.methods.masks import over as over_dim  # noqa: E402
from ptinv.storage.pictures import open_picture  # noqa: E402

BIRDS = TOOLS.parent / "weights" / "tiny" / "examples" / "birds.png"
SIDE = 128  # pixels that a picture in a row has at most
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 680, 250, 60, 170, 40, 44
COLOURS = (GREY, GREEN, RED, INK)


def opened(model: ptinv.StableDiffusion, path: str | Path) -> Image.Image:
    """A picture in the size that the model works in."""
    picture = open_picture(path)
    return resize(picture, model.picture_size(picture.size))


def row(pictures: Mapping[str, Image.Image]) -> Image.Image:
    """Pictures side by side under their labels; what follows a line's end in one is fainter."""
    tiles = [Tile(contain(picture, (SIDE, SIDE)), *label.split("\n", 1))
             for label, picture in pictures.items()]  # fmt: skip
    return draw_sheet([Row(tiles)])


def heat(picture: Image.Image, shares: Tensor) -> Image.Image:
    """A map (h, w) as heat over a picture."""
    return over_grey(contain(picture, (SIDE, SIDE)), shares)


def masked(picture: Image.Image, mask: Tensor | None) -> Image.Image:
    """A picture, dim where a mask (1, 1, h, w) shuts an edit out and red where it lets it in."""
    return picture if mask is None else over_dim(picture, mask)


def curves(lines: Mapping[str, Sequence[float]], across: str, up: str) -> Image.Image:
    """Lines over 0, 1, 2 …, each with its label at its end."""
    paper = Paper(WIDTH, HEIGHT)
    longest = max(map(len, lines.values())) - 1
    largest = max(map(max, lines.values()))

    def at(x: float, y: float) -> tuple[float, float]:
        right = LEFT + x / longest * (WIDTH - LEFT - RIGHT)
        return right, HEIGHT - BOTTOM - y / largest * (HEIGHT - TOP - BOTTOM)

    paper.line([at(0, largest), at(0, 0), at(longest, 0)], FAINT, 1)
    paper.text((LEFT - 8, at(0, 0)[1]), "0", FAINT, 14, "r")
    paper.text((LEFT - 8, at(0, largest)[1]), f"{largest:.2g}", FAINT, 14, "r")
    paper.text((LEFT, TOP / 2), up, FAINT, 14, "l")
    paper.text((at(longest, 0)[0], HEIGHT - BOTTOM / 2), across, FAINT, 14, "r")
    ends, taken = sorted(lines, key=lambda label: lines[label][-1]), HEIGHT
    places = {}
    for label in ends:  # from below, none on another
        taken = places[label] = min(at(0, lines[label][-1])[1], taken - 18)
    for (label, line), colour in zip(lines.items(), COLOURS, strict=False):
        paper.curve([at(x, y) for x, y in enumerate(line)], colour, 2)
        paper.text((WIDTH - RIGHT + 10, places[label]), label, colour, 14, "l")
    return paper.done()
