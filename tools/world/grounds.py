"""The six places where a scene can be: sky and ground with a horizon, in painted, even strokes.

Each is a function of the horizon's height, the seed of its strokes and the side in pixels; it
returns the picture at twice that side, so that halving it leaves the edges smooth.
"""

import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from world.things import Rgb, mix


class Ground:
    """Draws in fractions of the picture's side, from its upper left corner."""

    def __init__(
        self,
        horizon: float,
        seed: int,
        side: int,
        sky: tuple[Rgb, Rgb],
        earth: tuple[Rgb, Rgb],
    ):
        self.pixels, self.horizon = 2 * side, horizon
        self.random = random.Random(seed)
        rows = (np.arange(self.pixels) + 0.5) / self.pixels
        below = np.clip((rows - horizon) / (1 - horizon), 0, 1)[:, None]
        above = np.clip(rows / horizon, 0, 1)[:, None]
        sky_rows = np.array(sky[0]) * (1 - above) + np.array(sky[1]) * above
        self.earth_rows = np.array(earth[0]) * (1 - below) + np.array(earth[1]) * below
        column = np.where(below > 0, self.earth_rows, sky_rows).round().astype(np.uint8)
        self.image = Image.fromarray(column[:, None]).resize((self.pixels, self.pixels))
        self._draw = ImageDraw.Draw(self.image)

    def oval(self, fill: Rgb, x: float, y: float, rx: float, ry: float) -> None:
        corners = (x - rx, y - ry, x + rx, y + ry)
        self._draw.ellipse([c * self.pixels for c in corners], fill)

    def poly(self, fill: Rgb, *points: tuple[float, float]) -> None:
        self._draw.polygon([(x * self.pixels, y * self.pixels) for x, y in points], fill)

    def box(self, fill: Rgb, x0: float, y0: float, x1: float, y1: float) -> None:
        self.poly(fill, (x0, y0), (x1, y0), (x1, y1), (x0, y1))

    def cut(self) -> None:
        """Restores the ground where far things were drawn across the horizon."""
        top = math.ceil(self.horizon * self.pixels - 0.5)
        rows = self.earth_rows[top:, None].round().astype(np.uint8)
        self.image.paste(Image.fromarray(rows).resize((self.pixels, len(rows))), (0, top))

    def clouds(self, fill: Rgb, count: int) -> None:
        for _ in range(count):
            x, y = self.random.uniform(0.05, 0.95), self.random.uniform(0.06, self.horizon - 0.22)
            self.oval(fill, x, y, 0.13, 0.03)
            self.oval(fill, x + 0.02, y - 0.022, 0.07, 0.04)

    def spots(self, count: int):
        """Random places on the ground, nearer ones larger: x, y, scale, and the colour there."""
        for _ in range(count):
            depth = self.random.uniform(0.1, 0.97)
            x, y = self.random.random(), self.horizon + depth * (1 - self.horizon)
            earth = tuple(self.earth_rows[int(y * self.pixels)])
            yield x, y, 0.4 + 0.6 * depth, earth

    def strokes(self, toward: Rgb, share: float, count: int, rx: float, ry: float) -> None:
        """Broad flat strokes."""
        for x, y, scale, earth in self.spots(count):
            self.oval(mix(earth, toward, share), x, y, rx * scale, ry * scale)


def grass(horizon: float, seed: int, side: int) -> Image.Image:
    sky, earth = ((112, 182, 236), (206, 232, 246)), ((150, 198, 92), (128, 184, 76))
    land = Ground(horizon, seed, side, sky, earth)
    land.clouds((246, 250, 252), 2)
    for x in (land.random.uniform(0, 0.4), land.random.uniform(0.6, 1)):
        land.oval((120, 172, 96), x, land.horizon + 0.06, 0.42, 0.13)
    land.cut()
    land.strokes((206, 226, 120), 0.4, 4, 0.16, 0.022)
    land.strokes((84, 140, 56), 0.3, 4, 0.14, 0.02)
    for x, y, scale, earth in land.spots(9):  # tufts
        blade, height = mix(earth, (70, 128, 48), 0.5), 0.05 * scale
        for lean in (-0.018, 0.0, 0.018):
            root = (x + 0.4 * lean - 0.006, y), (x + 0.4 * lean + 0.006, y)
            land.poly(blade, *root, (x + lean * scale, y - height))
    return land.image


def sand(horizon: float, seed: int, side: int) -> Image.Image:
    sky, earth = ((126, 200, 226), (254, 238, 206)), ((240, 216, 166), (226, 194, 138))
    land = Ground(horizon, seed, side, sky, earth)
    land.oval((255, 246, 206), land.random.uniform(0.15, 0.85), 0.14, 0.065, 0.065)
    for x in (land.random.uniform(0, 0.4), land.random.uniform(0.6, 1)):
        land.oval((226, 190, 138), x, land.horizon + 0.04, 0.36, 0.09)
    land.cut()
    land.strokes((252, 236, 200), 0.55, 5, 0.24, 0.016)
    land.strokes((190, 150, 96), 0.28, 5, 0.22, 0.012)
    for x, y, scale, earth in land.spots(5):  # pebbles
        land.oval(mix(earth, (150, 110, 70), 0.45), x, y, 0.016 * scale, 0.009 * scale)
    return land.image


def snow(horizon: float, seed: int, side: int) -> Image.Image:
    sky, earth = ((156, 176, 208), (214, 222, 236)), ((204, 216, 234), (186, 202, 226))
    land = Ground(horizon, seed, side, sky, earth)
    for x in (land.random.uniform(0.05, 0.4), land.random.uniform(0.6, 0.95)):
        foot, peak = land.horizon + 0.01, land.horizon - land.random.uniform(0.2, 0.28)
        cap = peak + 0.4 * (foot - peak)
        land.poly((136, 152, 186), (x - 0.36, foot), (x, peak), (x + 0.36, foot))
        land.poly((226, 232, 242), (x - 0.144, cap), (x, peak), (x + 0.144, cap))
    land.cut()
    land.strokes((226, 234, 246), 0.6, 5, 0.22, 0.026)
    land.strokes((150, 172, 208), 0.35, 4, 0.2, 0.018)
    for _ in range(14):  # falling flakes
        x, y = land.random.random(), land.random.random()
        land.oval((236, 240, 248), x, y, 0.009, 0.009)
    return land.image


def sea(horizon: float, seed: int, side: int) -> Image.Image:
    sky, earth = ((88, 158, 226), (200, 230, 246)), ((34, 126, 158), (104, 196, 204))
    land = Ground(horizon, seed, side, sky, earth)
    land.clouds((244, 249, 252), 3)
    land.strokes((206, 240, 240), 0.45, 8, 0.14, 0.011)
    land.strokes((24, 104, 140), 0.35, 4, 0.15, 0.012)
    shore, phase = land.horizon + 0.24, land.random.uniform(0, math.tau)
    columns = [i / 32 for i in range(33)]
    waves = [shore + 0.012 * math.sin(9 * x + phase) for x in columns]
    foam = [(x, y - 0.018) for x, y in zip(columns, waves, strict=True)]
    land.poly((238, 246, 244), *foam, (1, 1), (0, 1))
    land.poly((236, 214, 168), *zip(columns, waves, strict=True), (1, 1), (0, 1))
    wet = [(x, y + 0.03) for x, y in zip(columns, waves, strict=True)]
    land.poly((228, 202, 152), *wet, (1, 1), (0, 1))
    return land.image


def road(horizon: float, seed: int, side: int) -> Image.Image:
    sky, earth = ((164, 170, 198), (236, 222, 212)), ((140, 140, 146), (120, 120, 127))
    land = Ground(horizon, seed, side, sky, earth)
    x = -land.random.uniform(0, 0.1)
    while x < 1:
        width, height = land.random.uniform(0.1, 0.18), land.random.uniform(0.07, 0.22)
        roof = land.horizon - height
        land.box((172, 170, 190), x, roof, x + width, land.horizon + 0.01)
        for row in range(int(height / 0.055)):
            low = roof + 0.02 + 0.055 * row
            land.box((206, 202, 208), x + 0.2 * width, low, x + 0.8 * width, low + 0.022)
        x += width + land.random.choice((0.0, 0.05))
    land.cut()
    kerb, lane = land.horizon + 0.025, land.horizon + 0.62 * (1 - land.horizon)
    land.box((184, 184, 186), 0, land.horizon, 1, kerb)
    land.strokes((168, 168, 172), 0.4, 6, 0.1, 0.012)
    land.strokes((96, 96, 104), 0.35, 4, 0.12, 0.012)
    start = -land.random.uniform(0, 0.36)
    for x in (start + 0.36 * i for i in range(4)):
        low = lane + 0.035
        land.poly((238, 238, 234), (x, low), (x + 0.02, lane), (x + 0.22, lane), (x + 0.2, low))
    return land.image


def room(horizon: float, seed: int, side: int) -> Image.Image:
    wall, floor = ((214, 196, 206), (226, 210, 216)), ((168, 118, 84), (190, 136, 96))
    land = Ground(horizon, seed, side, wall, floor)
    for x in (0.04 + 0.115 * i for i in range(9)):  # wallpaper
        land.box((206, 186, 198), x, 0, x + 0.035, land.horizon)
    x = land.random.uniform(0.1, 0.62)  # a window
    top, low = 0.09, land.horizon - 0.1
    land.box((246, 242, 238), x, top, x + 0.28, low)
    land.box((150, 200, 236), x + 0.025, top + 0.025, x + 0.255, low - 0.025)
    land.box((246, 242, 238), x + 0.13, top, x + 0.15, low)
    land.cut()
    land.box((240, 234, 230), 0, land.horizon - 0.012, 1, land.horizon + 0.018)
    start = -land.random.uniform(0, 0.2)
    for i in range(12):  # the gaps between the boards, towards a vanishing point
        far, near = 0.5 + 0.45 * (start + 0.2 * i - 1), 0.5 + 1.3 * (start + 0.2 * i - 1)
        land.poly((150, 102, 72), (far, land.horizon + 0.018), (near, 1), (near + 0.014, 1))
    return land.image


BACKGROUNDS: dict[str, Callable[[float, int, int], Image.Image]] = {
    "on the grass": grass,
    "on the sand": sand,
    "in the snow": snow,
    "by the sea": sea,
    "on the road": road,
    "in a room": room,
}
