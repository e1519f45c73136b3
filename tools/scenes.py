"""A small procedural world of captioned pictures, and of edits whose true result is known.

A scene is a frozen specification: one or two things, a background, the light and the seed of the
background's strokes. Drawing it is deterministic, so changing one attribute and drawing again gives
the picture a perfect editor would have made. A model is trained on ``random_scene``, ``draw`` and
``caption``; run as a program, this file writes a benchmark of edits:

    python tools/scenes.py OUT --count 30 --seed 0
"""

import argparse
import json
import math
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

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
KINDS = ("car", "house", "tree", "boat", "mug", "ball", "flower", "fish")
EDITS = ("colour", "object", "background")

WHITE, GLASS, TYRE, METAL = (250, 250, 248), (158, 196, 218), (44, 46, 52), (196, 200, 206)
WOOD, LEAF, DOOR = (104, 74, 54), (62, 128, 62), (132, 118, 108)
SCALE = 3  # oversampling of the things
SHADOW = 0.42  # how much light a cast shadow takes away at its middle
FOOT = dict(zip(KINDS, (0.52, 0.46, 0.3, 0.42, 0.38, 0.34, 0.2, 0.38), strict=True))


@dataclass(frozen=True)
class Thing:
    """An object: x is its centre, y the ground under it, all in fractions of the side."""

    kind: str
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """Everything a picture depends on."""

    things: tuple[Thing, ...]
    background: str
    horizon: float
    light: float
    light_from: str
    texture: int


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """The colour that lies the given share of the way from a to b."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


class Pen:
    """Draws one thing in unit coordinates: x from -0.5 to 0.5, y from 0 (ground) up to 1."""

    def __init__(self, pixels: int, unit: float, left: float, top: float, colour: str, sun: int):
        self.image = Image.new("RGBA", (pixels, pixels))
        self._draw = ImageDraw.Draw(self.image)
        self._unit, self._left, self._top = unit, left, top
        self.base = COLOURS[colour]
        self.dark = mix(self.base, (16, 14, 26), 0.32)
        self.light = mix(self.base, WHITE, 0.38)
        # A stripe has to be seen on white and on yellow as well.
        self.stripe = mix(self.base, (70, 76, 96), 0.34) if sum(self.base) > 690 else WHITE
        self.sun = sun  # -1: the light comes from the left, 1: from the right

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._left + (x + 0.5) * self._unit, self._top + (1 - y) * self._unit

    def poly(self, fill: Rgb, *points: tuple[float, float]) -> None:
        self._draw.polygon([self._at(*p) for p in points], fill)

    def box(self, fill: Rgb, x0: float, y0: float, x1: float, y1: float, round_: float = 0) -> None:
        corners = [self._at(x0, y1), self._at(x1, y0)]
        self._draw.rounded_rectangle(corners, round_ * self._unit, fill)

    def oval(self, fill: Rgb, x: float, y: float, rx: float, ry: float | None = None) -> None:
        ry = rx if ry is None else ry
        self._draw.ellipse([self._at(x - rx, y + ry), self._at(x + rx, y - ry)], fill)

    def ring(self, fill: Rgb, x: float, y: float, rx: float, ry: float, width: float) -> None:
        corners = [self._at(x - rx, y + ry), self._at(x + rx, y - ry)]
        self._draw.ellipse(corners, outline=fill, width=round(width * self._unit))


def car(pen: Pen) -> None:
    pen.poly(pen.base, (-0.34, 0.38), (-0.2, 0.65), (0.16, 0.65), (0.34, 0.38))
    pen.poly(GLASS, (-0.26, 0.4), (-0.16, 0.59), (-0.04, 0.59), (-0.04, 0.4))
    pen.poly(GLASS, (0.02, 0.4), (0.02, 0.59), (0.13, 0.59), (0.25, 0.4))
    pen.box(pen.base, -0.5, 0.12, 0.5, 0.42, 0.1)
    pen.box(pen.dark, -0.48, 0.12, 0.48, 0.19, 0.04)
    pen.box(pen.light, -0.4, 0.34, 0.4, 0.375, 0.015)
    pen.box((255, 240, 180), 0.42, 0.27, 0.49, 0.34, 0.02)
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
    pen.box(
        pen.light, -0.09 + 0.22 * pen.sun - 0.04, 0.14, -0.09 + 0.22 * pen.sun + 0.04, 0.6, 0.04
    )
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
    pen.oval((24, 24, 30), -0.33, 0.42, 0.042)


DRAW: dict[str, Callable[[Pen], None]] = dict(
    zip(KINDS, (car, house, tree, boat, mug, ball, flower, fish), strict=True)
)


class Ground:
    """Draws a background in fractions of the picture's side, at twice its size."""

    def __init__(self, scene: Scene, side: int, sky: tuple[Rgb, Rgb], earth: tuple[Rgb, Rgb]):
        self.pixels, self.horizon = 2 * side, scene.horizon
        self.random = random.Random(scene.texture)
        rows = (np.arange(self.pixels) + 0.5) / self.pixels
        below = np.clip((rows - self.horizon) / (1 - self.horizon), 0, 1)[:, None]
        above = np.clip(rows / self.horizon, 0, 1)[:, None]
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

    def cut(self) -> None:
        """Restore the ground where far things were drawn across the horizon."""
        top = math.ceil(self.horizon * self.pixels - 0.5)
        rows = self.earth_rows[top:, None].round().astype(np.uint8)
        self.image.paste(Image.fromarray(rows).resize((self.pixels, len(rows))), (0, top))

    def clouds(self, fill: Rgb, count: int) -> None:
        for _ in range(count):
            x, y = self.random.uniform(0.05, 0.95), self.random.uniform(0.06, self.horizon - 0.22)
            self.oval(fill, x, y, 0.13, 0.03)
            self.oval(fill, x + 0.02, y - 0.022, 0.07, 0.04)

    def strokes(self, toward: Rgb, share: float, count: int, rx: float, ry: float) -> None:
        """Broad flat strokes, larger where the ground is nearer."""
        for _ in range(count):
            depth = self.random.uniform(0.12, 0.97)
            x, y = self.random.random(), self.horizon + depth * (1 - self.horizon)
            earth = tuple(self.earth_rows[int(y * self.pixels)])
            grown = 0.4 + 0.6 * depth
            self.oval(mix(earth, toward, share), x, y, rx * grown, ry * grown)


def grass(scene: Scene, side: int) -> Image.Image:
    land = Ground(scene, side, ((112, 182, 236), (206, 232, 246)), ((150, 198, 92), (128, 184, 76)))
    land.clouds((246, 250, 252), 2)
    for x in (land.random.uniform(0, 0.4), land.random.uniform(0.6, 1)):
        land.oval((120, 172, 96), x, land.horizon + 0.06, 0.42, 0.13)
    land.cut()
    land.strokes((206, 226, 120), 0.4, 4, 0.16, 0.022)
    land.strokes((84, 140, 56), 0.3, 4, 0.14, 0.02)
    return land.image


def sand(scene: Scene, side: int) -> Image.Image:
    land = Ground(
        scene, side, ((126, 200, 226), (254, 238, 206)), ((240, 216, 166), (226, 194, 138))
    )
    land.oval((255, 246, 206), land.random.uniform(0.15, 0.85), 0.14, 0.065, 0.065)
    for x in (land.random.uniform(0, 0.4), land.random.uniform(0.6, 1)):
        land.oval((226, 190, 138), x, land.horizon + 0.04, 0.36, 0.09)
    land.cut()
    land.strokes((252, 236, 200), 0.55, 4, 0.24, 0.016)
    land.strokes((190, 150, 96), 0.28, 3, 0.22, 0.014)
    return land.image


def snow(scene: Scene, side: int) -> Image.Image:
    land = Ground(
        scene, side, ((156, 176, 208), (214, 222, 236)), ((204, 216, 234), (186, 202, 226))
    )
    for x in (land.random.uniform(0.05, 0.4), land.random.uniform(0.6, 0.95)):
        foot, peak = land.horizon + 0.01, land.horizon - land.random.uniform(0.2, 0.28)
        cap = peak + 0.4 * (foot - peak)
        land.poly((136, 152, 186), (x - 0.36, foot), (x, peak), (x + 0.36, foot))
        land.poly((226, 232, 242), (x - 0.144, cap), (x, peak), (x + 0.144, cap))
    land.cut()
    land.strokes((226, 234, 246), 0.6, 4, 0.22, 0.026)
    land.strokes((150, 172, 208), 0.35, 3, 0.2, 0.018)
    return land.image


def sea(scene: Scene, side: int) -> Image.Image:
    land = Ground(scene, side, ((88, 158, 226), (200, 230, 246)), ((34, 126, 158), (84, 184, 196)))
    land.clouds((244, 249, 252), 3)
    land.strokes((206, 240, 240), 0.45, 7, 0.14, 0.011)
    land.strokes((24, 104, 140), 0.35, 4, 0.15, 0.012)
    return land.image


def road(scene: Scene, side: int) -> Image.Image:
    land = Ground(
        scene, side, ((164, 170, 198), (236, 222, 212)), ((140, 140, 146), (120, 120, 127))
    )
    x = -land.random.uniform(0, 0.1)
    while x < 1:
        width, height = land.random.uniform(0.1, 0.18), land.random.uniform(0.07, 0.22)
        roof, foot = land.horizon - height, land.horizon + 0.01
        land.poly((172, 170, 190), (x, foot), (x, roof), (x + width, roof), (x + width, foot))
        x += width + land.random.choice((0.0, 0.05))
    land.cut()
    kerb, lane = land.horizon + 0.025, land.horizon + 0.62 * (1 - land.horizon)
    land.poly((184, 184, 186), (0, land.horizon), (1, land.horizon), (1, kerb), (0, kerb))
    start = -land.random.uniform(0, 0.36)
    for x in (start + 0.36 * i for i in range(4)):
        low = lane + 0.035
        land.poly((238, 238, 234), (x, low), (x + 0.02, lane), (x + 0.22, lane), (x + 0.2, low))
    return land.image


BACKGROUNDS: dict[str, Callable[[Scene, int], Image.Image]] = {
    "on the grass": grass,
    "on the sand": sand,
    "in the snow": snow,
    "by the sea": sea,
    "on the road": road,
}
PREFIXES = ("a photo of ", "a picture of ")
WORDS = tuple(
    sorted(
        {
            w
            for text in (*PREFIXES, *BACKGROUNDS, *COLOURS, *KINDS, "a", "an", "and")
            for w in text.split()
        }
    )
)


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; two things in it differ in kind and colour and do not overlap."""
    count = 2 if rng.random() < 0.35 else 1
    kinds = rng.choice(KINDS, count, replace=False)
    colours = rng.choice(list(COLOURS), count, replace=False)
    things = []
    for i in range(count):
        size = rng.uniform(40, 72) / 128 if count == 1 else rng.uniform(34, 50) / 128
        low, high = i / count + 0.02 + size / 2, (i + 1) / count - 0.02 - size / 2
        x, y = rng.uniform(low, high), rng.uniform(0.74, 0.93)
        things.append(Thing(str(kinds[i]), str(colours[i]), float(x), float(y), float(size)))
    return Scene(
        things=tuple(things),
        background=str(rng.choice(list(BACKGROUNDS))),
        horizon=float(rng.uniform(0.46, 0.6)),
        light=float(rng.uniform(0.9, 1.1)),
        light_from=str(rng.choice(("left", "right"))),
        texture=int(rng.integers(2**31)),
    )


def _cutout(thing: Thing, scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The shaded thing alone: its colours, and its coverage from 0 to 1."""
    unit, sun = thing.size * side, -1 if scene.light_from == "left" else 1
    x, y = thing.x * side - unit / 2, thing.y * side - unit
    left, top, pixels = math.floor(x), math.floor(y), math.ceil(unit) + 1
    pen = Pen(
        pixels * SCALE, unit * SCALE, (x - left) * SCALE, (y - top) * SCALE, thing.colour, sun
    )
    DRAW[thing.kind](pen)
    small = pen.image.reduce(SCALE)
    whole = Image.new("RGBA", (side, side))
    whole.paste(small, (left, top))
    cover = whole.getchannel("A")
    inner = np.asarray(cover.filter(ImageFilter.MinFilter(3)), np.float32) / 255
    pixel = np.asarray(whole, np.float32)
    # Towards the light brighter, away from it darker, and a darker rim to part it from the ground.
    across = sun * ((np.arange(side, dtype=np.float32) + 0.5) / side - thing.x) / thing.size
    shade = (0.97 + 0.22 * across)[None, :] * (0.78 + 0.22 * inner)
    return pixel[..., :3] * shade[..., None], pixel[..., 3] / 255


def _shadow(thing: Thing, scene: Scene, side: int) -> np.ndarray:
    """The soft ellipse under a thing, from 0 to 1."""
    foot = FOOT[thing.kind] * thing.size
    shift = 0.1 * thing.size * (1 if scene.light_from == "left" else -1)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side
    across = ((grid - thing.x - shift) / (1.2 * foot)) ** 2
    down = ((grid - thing.y + 0.01) / (0.1 * thing.size)) ** 2
    return np.clip(1.3 * (1 - across[None, :] - down[:, None]), 0, 1)


def draw(scene: Scene, side: int = 128) -> Image.Image:
    """The scene as an RGB picture."""
    backdrop = BACKGROUNDS[scene.background](scene, side).reduce(2)
    canvas = np.asarray(backdrop, np.float32)
    for thing in scene.things:
        canvas = canvas * (1 - SHADOW * _shadow(thing, scene, side))[..., None]
    for thing in scene.things:
        colours, cover = _cutout(thing, scene, side)
        canvas = canvas + (colours - canvas) * cover[..., None]
        canvas[cover == 1] = colours[cover == 1]  # exact, whatever lies behind
    return Image.fromarray(np.clip(canvas * scene.light + 0.5, 0, 255).astype(np.uint8))


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The canonical caption, or with a generator one of a few phrasings."""
    names = (f"{'an' if t.colour[0] in 'aeiou' else 'a'} {t.colour} {t.kind}" for t in scene.things)
    things = " and ".join(names)
    full = f"{things} {scene.background}"
    pick = 0.0 if rng is None else rng.random()
    if pick < 0.6:
        return full
    if pick < 0.75:
        return things
    return PREFIXES[0 if pick < 0.9 else 1] + full


def edit(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """Change one attribute: a thing's colour, a thing's kind, or the background."""
    if kind == "background":
        others = [b for b in BACKGROUNDS if b != scene.background]
        return replace(scene, background=str(rng.choice(others)))
    field, values = {"colour": ("colour", COLOURS), "object": ("kind", KINDS)}[kind]
    taken = {getattr(t, field) for t in scene.things}
    value = str(rng.choice([v for v in values if v not in taken]))
    things = list(scene.things)
    index = int(rng.integers(len(things)))
    things[index] = replace(things[index], **{field: value})
    return replace(scene, things=tuple(things))


def edit_mask(scene: Scene, edited: Scene, kind: str, side: int = 128) -> Image.Image:
    """White where the true edit may differ from the picture, black where it must not."""
    mask = np.zeros((side, side), bool)
    if kind == "background":
        for thing in scene.things:
            mask |= _cutout(thing, scene, side)[1] == 1
        return Image.fromarray((~mask).astype(np.uint8) * 255)
    for before, after in zip(scene.things, edited.things, strict=True):
        for thing in (before, after) if before != after else ():
            mask |= _cutout(thing, scene, side)[1] > 0
            mask |= _shadow(thing, scene, side) > 0
    grow = 2 * max(1, round(2 * side / 128)) + 1
    return Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(grow))


def split_rng(split: str, seed: int, index: int) -> np.random.Generator:
    """A generator of its own for every picture of every split."""
    return np.random.default_rng([crc32(split.encode()), seed, index])


def write_benchmark(out: Path, count: int, seed: int) -> None:
    """Write pictures, truths and masks, then the manifest that lists them."""
    for name in ("images", "truth", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        rng, kind = split_rng("test", seed, i), EDITS[i % 3]
        scene = random_scene(rng)
        edited = edit(scene, kind, rng)
        image, truth, mask = (f"{name}/{i:04}.png" for name in ("images", "truth", "masks"))
        draw(scene).save(out / image)
        draw(edited).save(out / truth)
        edit_mask(scene, edited, kind).save(out / mask)
        line = {"image": image, "caption": caption(scene), "target": caption(edited)}
        lines.append(json.dumps(line | {"truth": truth, "mask": mask, "kind": kind}) + "\n")
    # Last and at once: a manifest that is there is complete.
    partial = out / "manifest.jsonl.partial"
    partial.write_text("".join(lines), encoding="utf-8")
    os.replace(partial, out / "manifest.jsonl")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write pictures with edits whose truth is known.")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=30, help="number of edits (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default 0)")
    args = parser.parse_args(argv)
    wrong = next((name for name in ("count", "seed") if getattr(args, name) < 0), None)
    if wrong:
        print(f"scenes.py: --{wrong} must not be negative", file=sys.stderr)
        return 2
    if args.out.exists() and not args.out.is_dir():
        print(f"scenes.py: {args.out} is a file, not a folder", file=sys.stderr)
        return 2
    try:
        write_benchmark(args.out, args.count, args.seed)
    except OSError as error:
        print(f"scenes.py: cannot write to {args.out}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
