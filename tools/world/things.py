"""The things that stand in a scene: twelve kinds, each drawn from several parts in ten colours.

A thing is drawn in unit coordinates, x from -0.5 to 0.5 and y from 0 (the ground) up to 1, so that
one kind can take another's place. Only the parts in `pen.base`, `pen.dark` and `pen.light` take the
thing's colour; wheels, windows and eyes keep their own.
"""

import math
from collections.abc import Callable

from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (216, 44, 42),
    "orange": (246, 136, 26),
    "yellow": (252, 216, 48),
    "green": (34, 140, 62),
    "blue": (36, 88, 208),
    "purple": (126, 58, 172),
    "pink": (248, 140, 188),
    "brown": (120, 72, 40),
    "white": (248, 248, 246),
    "black": (42, 42, 48),
}
WHITE, GLASS, TYRE, METAL = (250, 250, 248), (158, 196, 218), (44, 46, 52), (196, 200, 206)
WOOD, LEAF, DOOR, CREAM = (104, 74, 54), (62, 128, 62), (132, 118, 108), (240, 228, 204)
BEAK, DARK_EYE, LAMP = (240, 150, 40), (24, 24, 30), (255, 240, 180)


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """The colour that lies the given share of the way from a to b."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


class Pen:
    """Draws one thing on a square, transparent picture of its own."""

    def __init__(self, pixels: int, unit: float, left: float, top: float, colour: str, sun: int):
        self.image = Image.new("RGBA", (pixels, pixels))
        self._draw = ImageDraw.Draw(self.image)
        self._unit, self._left, self._top = unit, left, top
        self.base = COLOURS[colour]
        self.dark = mix(self.base, (16, 14, 26), 0.32)
        self.light = mix(self.base, WHITE, 0.38)
        # a stripe has to be seen on white and on yellow as well
        self.stripe = mix(self.base, (70, 76, 96), 0.34) if sum(self.base) > 690 else WHITE
        self.sun = sun  # -1: the light comes from the left, 1: from the right

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._left + (x + 0.5) * self._unit, self._top + (1 - y) * self._unit

    def _corners(self, x: float, y: float, rx: float, ry: float) -> list[tuple[float, float]]:
        return [self._at(x - rx, y + ry), self._at(x + rx, y - ry)]

    def poly(self, fill: Rgb, *points: tuple[float, float]) -> None:
        self._draw.polygon([self._at(*p) for p in points], fill)

    def box(self, fill: Rgb, x0: float, y0: float, x1: float, y1: float, round_: float = 0) -> None:
        corners = [self._at(x0, y1), self._at(x1, y0)]
        self._draw.rounded_rectangle(corners, round_ * self._unit, fill)

    def oval(self, fill: Rgb, x: float, y: float, rx: float, ry: float | None = None) -> None:
        self._draw.ellipse(self._corners(x, y, rx, rx if ry is None else ry), fill)

    def dome(self, fill: Rgb, x: float, y: float, rx: float, ry: float) -> None:
        """The upper half of an oval."""
        self._draw.pieslice(self._corners(x, y, rx, ry), 180, 360, fill)

    def ring(self, fill: Rgb, x: float, y: float, rx: float, ry: float, width: float) -> None:
        corners = self._corners(x, y, rx, ry)
        self._draw.ellipse(corners, outline=fill, width=round(width * self._unit))


def car(pen: Pen) -> None:
    pen.poly(pen.base, (-0.34, 0.38), (-0.2, 0.65), (0.16, 0.65), (0.34, 0.38))
    pen.poly(GLASS, (-0.26, 0.4), (-0.16, 0.59), (-0.04, 0.59), (-0.04, 0.4))
    pen.poly(GLASS, (0.02, 0.4), (0.02, 0.59), (0.13, 0.59), (0.25, 0.4))
    pen.box(pen.base, -0.5, 0.12, 0.5, 0.42, 0.1)
    pen.box(pen.dark, -0.48, 0.12, 0.48, 0.19, 0.04)
    pen.box(pen.light, -0.4, 0.34, 0.4, 0.375, 0.015)
    pen.box(LAMP, 0.42, 0.27, 0.49, 0.34, 0.02)
    for x in (-0.28, 0.28):
        pen.oval(TYRE, x, 0.14, 0.14)
        pen.oval(METAL, x, 0.14, 0.07)


def house(pen: Pen) -> None:
    pen.box(pen.dark, 0.2, 0.6, 0.31, 0.95)
    pen.box(pen.base, -0.4, 0, 0.4, 0.56)
    pen.poly(pen.dark, (-0.5, 0.53), (0, 0.98), (0.5, 0.53))
    pen.box(DOOR, -0.26, 0, -0.06, 0.33)
    pen.oval(METAL, -0.1, 0.16, 0.022)
    pen.box(WHITE, 0.06, 0.17, 0.31, 0.42)
    for x in (0.085, 0.195):
        for y in (0.195, 0.305):
            pen.box(GLASS, x, y, x + 0.085, y + 0.085)


def tree(pen: Pen) -> None:
    pen.poly(WOOD, (-0.11, 0), (-0.06, 0.45), (0.06, 0.45), (0.11, 0))
    for x, y, r in ((-0.22, 0.52, 0.22), (0.22, 0.52, 0.22), (0, 0.45, 0.2), (0, 0.72, 0.27)):
        pen.oval(pen.base, x, y, r)
    pen.oval(pen.dark, -0.2 * pen.sun, 0.42, 0.13, 0.09)
    pen.oval(pen.light, 0.1 * pen.sun, 0.8, 0.12, 0.1)
    pen.oval(pen.light, 0.26 * pen.sun, 0.58, 0.09, 0.07)


def boat(pen: Pen) -> None:
    pen.box(WOOD, -0.022, 0.3, 0.022, 0.98)
    pen.poly(WHITE, (0.05, 0.42), (0.05, 0.95), (0.42, 0.42))
    pen.poly((226, 230, 236), (-0.05, 0.42), (-0.05, 0.84), (-0.32, 0.42))
    pen.poly(pen.base, (-0.5, 0.36), (0.5, 0.36), (0.34, 0), (-0.34, 0))
    pen.poly(pen.light, (-0.5, 0.36), (0.5, 0.36), (0.474, 0.3), (-0.474, 0.3))
    pen.poly(pen.dark, (-0.39, 0.11), (0.39, 0.11), (0.34, 0), (-0.34, 0))


def mug(pen: Pen) -> None:
    pen.ring(pen.base, 0.22, 0.4, 0.24, 0.23, 0.1)
    pen.box(pen.base, -0.42, 0, 0.24, 0.78, 0.09)
    glint = -0.09 + 0.22 * pen.sun
    pen.box(pen.light, glint - 0.04, 0.14, glint + 0.04, 0.6, 0.04)
    pen.oval(pen.light, -0.09, 0.77, 0.33, 0.1)
    pen.oval((78, 50, 38), -0.09, 0.76, 0.27, 0.068)


def ball(pen: Pen) -> None:
    pen.oval(pen.base, 0, 0.43, 0.43)
    pen.oval(pen.stripe, 0, 0.43, 0.23, 0.43)
    pen.oval(pen.base, 0, 0.43, 0.13, 0.43)
    pen.oval(pen.light, 0.26 * pen.sun, 0.62, 0.08, 0.09)


def flower(pen: Pen) -> None:
    pen.box(LEAF, -0.03, 0, 0.03, 0.6)
    pen.poly(LEAF, (0, 0.06), (-0.16, 0.13), (-0.3, 0.3), (-0.1, 0.24))
    pen.poly(LEAF, (0, 0.06), (0.16, 0.13), (0.3, 0.3), (0.1, 0.24))
    turns = [math.tau * (i + 0.25) / 6 for i in range(6)]
    spots = [(0.21 * math.cos(t), 0.66 + 0.21 * math.sin(t)) for t in turns]
    for x, y in spots:
        pen.oval(pen.dark, x, y, 0.145)
        pen.oval(pen.base, x, y, 0.125)
    pen.oval(pen.base, 0, 0.66, 0.17)
    yellowish = pen.base in (COLOURS["yellow"], COLOURS["orange"])
    pen.oval((110, 64, 36) if yellowish else (252, 206, 60), 0, 0.66, 0.11)


def fish(pen: Pen) -> None:
    pen.poly(pen.dark, (-0.2, 0.55), (0.02, 0.76), (0.18, 0.5))
    pen.poly(pen.dark, (-0.08, 0.14), (0.1, 0), (0.12, 0.16))
    pen.poly(pen.dark, (0.2, 0.34), (0.5, 0.62), (0.42, 0.34), (0.5, 0.06))
    pen.oval(pen.base, -0.1, 0.34, 0.4, 0.27)
    pen.oval(pen.light, -0.06, 0.22, 0.22, 0.08)
    pen.poly(pen.dark, (-0.02, 0.38), (0.14, 0.47), (0.11, 0.36), (0.14, 0.27))
    pen.oval(WHITE, -0.32, 0.42, 0.075)
    pen.oval(DARK_EYE, -0.33, 0.42, 0.042)


def dog(pen: Pen) -> None:
    pen.poly(pen.dark, (0.28, 0.46), (0.48, 0.74), (0.5, 0.64), (0.38, 0.42))
    for x in (-0.12, 0.2):
        pen.box(pen.dark, x - 0.055, 0, x + 0.055, 0.3, 0.03)
    for x in (-0.24, 0.3):
        pen.box(pen.base, x - 0.065, 0, x + 0.065, 0.34, 0.03)
    pen.box(pen.base, -0.32, 0.24, 0.38, 0.54, 0.14)
    pen.oval(pen.base, -0.28, 0.66, 0.19, 0.18)
    pen.box(pen.base, -0.5, 0.52, -0.24, 0.67, 0.07)
    pen.oval(pen.dark, -0.15, 0.63, 0.075, 0.17)
    pen.box((206, 60, 60) if pen.base != COLOURS["red"] else GLASS, -0.33, 0.44, -0.1, 0.5, 0.03)
    pen.oval(DARK_EYE, -0.475, 0.635, 0.042, 0.035)
    pen.oval(WHITE, -0.33, 0.7, 0.048)
    pen.oval(DARK_EYE, -0.34, 0.7, 0.028)


def bird(pen: Pen) -> None:
    for x in (0.0, 0.12):
        pen.box(BEAK, x - 0.02, 0, x + 0.02, 0.24)
        pen.box(BEAK, x - 0.1, 0, x + 0.02, 0.035)
    pen.poly(pen.dark, (0.22, 0.46), (0.5, 0.6), (0.42, 0.32), (0.2, 0.28))
    pen.oval(pen.base, 0.04, 0.38, 0.31, 0.2)
    pen.poly(pen.base, (-0.26, 0.4), (-0.32, 0.82), (-0.15, 0.82), (-0.02, 0.5))
    pen.poly(BEAK, (-0.3, 0.89), (-0.5, 0.8), (-0.3, 0.77))
    pen.oval(pen.base, -0.23, 0.84, 0.13, 0.12)
    pen.oval(pen.dark, 0.12, 0.4, 0.19, 0.11)
    pen.oval(pen.light, 0.08, 0.43, 0.11, 0.05)
    pen.oval(WHITE, -0.26, 0.87, 0.045)
    pen.oval(DARK_EYE, -0.27, 0.87, 0.027)


def mushroom(pen: Pen) -> None:
    pen.box(CREAM, -0.15, 0, 0.15, 0.5, 0.06)
    pen.box(mix(CREAM, WOOD, 0.25), -0.15, 0.36, 0.15, 0.5)
    pen.oval(pen.dark, 0, 0.46, 0.46, 0.1)
    pen.dome(pen.base, 0, 0.46, 0.48, 0.48)
    for x, y, r in ((-0.24, 0.62, 0.085), (0.05, 0.8, 0.09), (0.26, 0.6, 0.075), (0, 0.57, 0.05)):
        pen.oval(pen.stripe, x, y, r, 0.85 * r)


def robot(pen: Pen) -> None:
    pen.box(METAL, -0.018, 0.84, 0.018, 0.96)
    pen.oval((236, 70, 60) if pen.base != COLOURS["red"] else LAMP, 0, 0.95, 0.045)
    for side in (-1, 1):
        pen.box(pen.dark, 0.14 * side - 0.07, 0, 0.14 * side + 0.07, 0.2, 0.03)
        pen.box(METAL, 0.36 * side - 0.05, 0.2, 0.36 * side + 0.05, 0.52, 0.05)
        pen.oval(pen.dark, 0.36 * side, 0.2, 0.075)
    pen.box(pen.base, -0.3, 0.16, 0.3, 0.56, 0.05)
    pen.box(pen.light, -0.2, 0.25, 0.2, 0.45, 0.03)
    for x, colour in ((-0.1, (90, 200, 120)), (0.02, LAMP), (0.14, (236, 90, 80))):
        pen.oval(colour, x - 0.02, 0.35, 0.04)
    pen.box(pen.base, -0.25, 0.58, 0.25, 0.86, 0.07)
    for x in (-0.11, 0.11):
        pen.oval(WHITE, x, 0.74, 0.075)
        pen.oval(DARK_EYE, x, 0.74, 0.037)
    pen.box(pen.dark, -0.12, 0.62, 0.12, 0.655, 0.015)


KINDS: dict[str, Callable[[Pen], None]] = {
    draw.__name__: draw
    for draw in (car, house, tree, boat, mug, ball, flower, fish, dog, bird, mushroom, robot)
}
# half the width of each kind where it touches the ground, for its shadow
FEET = dict(
    car=0.52,
    house=0.46,
    tree=0.3,
    boat=0.42,
    mug=0.38,
    ball=0.34,
    flower=0.2,
    fish=0.38,
    dog=0.4,
    bird=0.3,
    mushroom=0.34,
    robot=0.34,
)
