"""A small procedural world of captioned pictures.

A scene is a frozen specification: one to three things, a background, the light and the seed of the
background's strokes. Drawing it is deterministic, so changing one attribute and drawing again gives
the picture that a perfect editor would have made (`edits.py`). The embedded model is trained on
`random_scene`, `draw` and `caption`.
"""

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar
from zlib import crc32

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm
from world.grounds import BACKGROUNDS
from world.things import COLOURS, FEET, KINDS, Pen

SIDE = 128  # pixels
SPLITS = ("train", "tune", "test")  # no picture is in two of them, whatever the seed
SCALE = 3  # oversampling of the things
SHADOW = 0.42  # the share of light that a cast shadow takes away at its middle
NUMBERS = ("no", "a", "two", "three")
PREFIXES = ("a photo of", "a picture of")
Groups = dict[tuple[int, int], float]
# the share of scenes with these groups of like things: (number of the first, of the second)
GROUPS = {(1, 0): 0.5, (1, 1): 0.28, (2, 0): 0.1, (3, 0): 0.06, (2, 1): 0.06}
# for training the UNet: more of the crowded scenes, which are its hardest
CROWDED = {(1, 0): 0.3, (1, 1): 0.36, (2, 0): 0.12, (3, 0): 0.1, (2, 1): 0.12}
SAME_KIND = 0.2  # the share of pairs of groups that differ in colour only


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
    """Everything that a picture depends on."""

    things: tuple[Thing, ...]  # from left to right
    background: str
    horizon: float
    light: float  # how bright it is
    warmth: float  # how much redder than white the light is
    light_from: str
    texture: int


def split_rng(split: str, seed: int, index: int) -> np.random.Generator:
    """A generator of its own for every picture of every split."""
    return np.random.default_rng([crc32(split.encode()), seed, index])


def random_scene(rng: np.random.Generator, groups: Groups = GROUPS) -> Scene:
    """A scene of the world: things of one or two sorts, which may stand in front of each other."""
    first, second = list(groups)[rng.choice(len(groups), p=list(groups.values()))]
    kinds = [str(kind) for kind in rng.choice(list(KINDS), 2, replace=False)]
    if second and rng.random() < SAME_KIND:
        kinds[1] = kinds[0]
    colours = [str(colour) for colour in rng.choice(list(COLOURS), 2, replace=False)]
    sorts = [(kinds[0], colours[0])] * first + [(kinds[1], colours[1])] * second
    places = _places(len(sorts), rng)
    things = [Thing(*sort, *place) for sort, place in zip(sorts, places, strict=True)]
    return Scene(
        things=tuple(sorted(things, key=lambda thing: thing.x)),
        background=str(rng.choice(list(BACKGROUNDS))),
        horizon=float(rng.uniform(0.44, 0.56)),
        light=float(rng.uniform(0.88, 1.1)),
        warmth=float(rng.uniform(-0.04, 0.04)),
        light_from=str(rng.choice(("left", "right"))),
        texture=int(rng.integers(2**31)),
    )


def _places(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(x, y, size) of each thing; neighbours hide at most two fifths of each other's width."""
    low, high = ((44, 80), (38, 56), (32, 44))[count - 1]
    while True:
        sizes = rng.uniform(low, high, count) / 128
        x = rng.uniform(sizes / 2 + 0.01, 0.99 - sizes / 2)
        apart = np.abs(x[:, None] - x) - 0.3 * (sizes[:, None] + sizes) + np.eye(count)
        if (apart >= 0).all():
            y = rng.uniform(0.74, 0.94, count)
            return [tuple(map(float, place)) for place in zip(x, y, sizes, strict=True)]


def cutout(thing: Thing, scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The shaded thing alone: its colours, and its coverage from 0 to 1."""
    unit, sun = thing.size * side, -1 if scene.light_from == "left" else 1
    x, y = thing.x * side - unit / 2, thing.y * side - unit
    left, top, pixels = math.floor(x), math.floor(y), math.ceil(unit) + 1
    pen = Pen(
        pixels * SCALE, unit * SCALE, (x - left) * SCALE, (y - top) * SCALE, thing.colour, sun
    )
    KINDS[thing.kind](pen)
    small = pen.image.reduce(SCALE)
    whole = Image.new("RGBA", (side, side))
    whole.paste(small, (left, top))
    cover = whole.getchannel("A")
    inner = np.asarray(cover.filter(ImageFilter.MinFilter(3)), np.float32) / 255
    pixel = np.asarray(whole, np.float32)
    # towards the light brighter, away from it darker, and a darker rim to part it from the ground
    across = sun * ((np.arange(side, dtype=np.float32) + 0.5) / side - thing.x) / thing.size
    shade = (0.97 + 0.22 * across)[None, :] * (0.78 + 0.22 * inner)
    return pixel[..., :3] * shade[..., None], pixel[..., 3] / 255


def shadow(thing: Thing, scene: Scene, side: int) -> np.ndarray:
    """The soft ellipse under a thing, from 0 to 1."""
    foot = FEET[thing.kind] * thing.size
    shift = 0.1 * thing.size * (1 if scene.light_from == "left" else -1)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side
    across = ((grid - thing.x - shift) / (1.2 * foot)) ** 2
    down = ((grid - thing.y + 0.01) / (0.1 * thing.size)) ** 2
    return np.clip(1.3 * (1 - across[None, :] - down[:, None]), 0, 1)


def draw(scene: Scene, side: int = SIDE) -> Image.Image:
    """The scene as an RGB picture; what stands nearer hides what is behind it."""
    ground = BACKGROUNDS[scene.background](scene.horizon, scene.texture, side)
    canvas = np.asarray(ground.reduce(2), np.float32)
    for thing in scene.things:
        canvas = canvas * (1 - SHADOW * shadow(thing, scene, side))[..., None]
    for thing in sorted(scene.things, key=lambda thing: thing.y):
        colours, cover = cutout(thing, scene, side)
        canvas = canvas + (colours - canvas) * cover[..., None]
        canvas[cover == 1] = colours[cover == 1]  # exact, whatever lies behind
    light = scene.light * np.array([1 + scene.warmth, 1, 1 - scene.warmth])
    return Image.fromarray(np.clip(canvas * light + 0.5, 0, 255).astype(np.uint8))


class Content(NamedTuple):
    """The contents of a scene, as far as a caption names them."""

    groups: dict[tuple[str, str], int]  # (colour, kind) -> how many
    background: str | None

    @property
    def kinds(self) -> dict[str, int]:
        """The number of things of each kind."""
        totals: Counter[str] = Counter()
        for (_, kind), count in self.groups.items():
            totals[kind] += count
        return dict(totals)


def content(scene: Scene) -> Content:
    """Its groups of like things, from left to right, and its background."""
    counts = Counter((thing.colour, thing.kind) for thing in scene.things)
    return Content(dict(counts), scene.background)


def read(text: str) -> Content:
    """The contents that a caption names, in any of its phrasings: `content` again."""
    background = next((name for name in BACKGROUNDS if text.endswith(name)), None)
    singular = {kind: kind for kind in KINDS} | {plural(kind): kind for kind in KINDS}
    found, count, colour = {}, 1, ""
    for word in text.split():
        if word in NUMBERS:
            count = NUMBERS.index(word)
        elif word in COLOURS:
            colour = word
        elif word in singular:
            found[colour, singular[word]] = count
            count = 1
    return Content(found, background)


def plural(kind: str) -> str:
    return kind if kind == "fish" else kind + "s"


def _named(colour: str, kind: str, count: int) -> str:
    """ "an orange car", "two red cars"."""
    if count == 1:
        return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {kind}"
    return f"{NUMBERS[count]} {colour} {plural(kind)}"


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The canonical caption, "a red car on the grass", or with a generator another phrasing."""
    named = [_named(*sort, count) for sort, count in content(scene).groups.items()]
    things, where = " and ".join(named), scene.background
    if rng is None:
        return f"{things} {where}"
    verb = "is" if named[0].startswith("a") else "are"
    bare = " and ".join(name.removeprefix("an ").removeprefix("a ") for name in named)
    phrasings = {
        f"{things} {where}": 0.4,
        f"{PREFIXES[0]} {things} {where}": 0.12,
        f"{PREFIXES[1]} {things} {where}": 0.08,
        f"there {verb} {things} {where}": 0.08,
        f"{' next to '.join(named)} {where}": 0.1,
        f"{bare} {where}": 0.1,
        things: 0.12,
    }
    shares = np.array(list(phrasings.values()))  # of one thing alone, two of them are the same
    return str(rng.choice(list(phrasings), p=shares / shares.sum()))


WORDS = tuple(
    sorted(
        {
            word
            for text in (*PREFIXES, *BACKGROUNDS, *NUMBERS[1:], "an and there is are next to")
            for word in text.split()
        }
        | {*COLOURS, *KINDS, *map(plural, KINDS)}
    )
)

Described = TypeVar("Described")


def many(
    split: str,
    seed: int,
    count: int,
    describe: Callable[[Scene, np.random.Generator], Described],
    groups: Groups = GROUPS,
) -> tuple[np.ndarray, list[Described]]:
    """The first `count` scenes of a split, drawn on all cores: bytes (count, 3, 128, 128).

    describe: makes the description of each scene; a function that another process can import.
    """
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    descriptions = []
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(partial(_one, split, seed, describe, groups), range(count), chunksize=64)
        for i, (array, description) in enumerate(tqdm(drawn, desc="drawing", total=count)):
            pixels[i] = array
            descriptions.append(description)
    return pixels, descriptions


def _one(
    split: str, seed: int, describe: Callable, groups: Groups, index: int
) -> tuple[np.ndarray, Described]:
    rng = split_rng(split, seed, index)
    scene = random_scene(rng, groups)
    return np.array(draw(scene)).transpose(2, 0, 1), describe(scene, rng)
