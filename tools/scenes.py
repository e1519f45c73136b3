"""A small procedural world of captioned pictures, and of edits whose true result is known.

A scene is a frozen specification: one to three things, a background, the light and the seed of the
background's strokes. Drawing it is deterministic, so changing one attribute and drawing again gives
the picture that a perfect editor would have made. A model is trained on `random_scene`, `draw` and
`caption`; run as a program, this file writes a benchmark of edits, or a sheet to look at:

    python tools/scenes.py OUT --count 32 --seed 0
    python tools/scenes.py OUT.png --sheet
"""

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple, TypeVar
from zlib import crc32

import numpy as np
from grounds import BACKGROUNDS
from PIL import Image, ImageDraw, ImageFilter
from things import COLOURS, FEET, KINDS, Pen
from tqdm import tqdm

SIDE = 128  # pixels
EDITS = ("colour", "object", "background", "all")
SPLITS = ("train", "tune", "test")  # no picture is in two of them, whatever the seed
SCALE = 3  # oversampling of the things
SHADOW = 0.42  # how much light a cast shadow takes away at its middle
NUMBERS = ("no", "a", "two", "three")
PREFIXES = ("a photo of", "a picture of")
Groups = dict[tuple[int, int], float]
# how often a scene has these groups of like things: (how many of the first, of the second)
GROUPS = {(1, 0): 0.5, (1, 1): 0.28, (2, 0): 0.1, (3, 0): 0.06, (2, 1): 0.06}
# what the UNet is trained on: more of the crowded scenes, which it finds hardest
CROWDED = {(1, 0): 0.3, (1, 1): 0.36, (2, 0): 0.12, (3, 0): 0.1, (2, 1): 0.12}
SAME_KIND = 0.2  # how often two groups differ in colour only


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


def _cutout(thing: Thing, scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
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


def _shadow(thing: Thing, scene: Scene, side: int) -> np.ndarray:
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
        canvas = canvas * (1 - SHADOW * _shadow(thing, scene, side))[..., None]
    for thing in sorted(scene.things, key=lambda thing: thing.y):
        colours, cover = _cutout(thing, scene, side)
        canvas = canvas + (colours - canvas) * cover[..., None]
        canvas[cover == 1] = colours[cover == 1]  # exact, whatever lies behind
    light = scene.light * np.array([1 + scene.warmth, 1, 1 - scene.warmth])
    return Image.fromarray(np.clip(canvas * light + 0.5, 0, 255).astype(np.uint8))


class Content(NamedTuple):
    """What a caption can tell of a scene."""

    groups: dict[tuple[str, str], int]  # (colour, kind) -> how many
    background: str | None

    @property
    def kinds(self) -> dict[str, int]:
        """How many there are of each kind."""
        totals: Counter[str] = Counter()
        for (_, kind), count in self.groups.items():
            totals[kind] += count
        return dict(totals)


def content(scene: Scene) -> Content:
    """Its groups of like things, from left to right, and its background."""
    counts = Counter((thing.colour, thing.kind) for thing in scene.things)
    return Content(dict(counts), scene.background)


def read(text: str) -> Content:
    """What a caption says, in any of its phrasings: `content` again."""
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


def edit(scene: Scene, kind: str, rng: np.random.Generator) -> Scene | None:
    """Changes one attribute; None where the scene offers nothing of that kind to change.

    colour, object: of a thing that is the only one of its kind; background; all: every thing of a
    kind that there are several of takes another kind, or one colour.
    """
    if kind == "background":
        others = [name for name in BACKGROUNDS if name != scene.background]
        return replace(scene, background=str(rng.choice(others)))
    several = kind == "all"
    counts = Counter(thing.kind for thing in scene.things)
    candidates = [name for name, count in counts.items() if (count > 1) == several]
    if not candidates:
        return None
    chosen = str(rng.choice(candidates))
    field = {"colour": "colour", "object": "kind"}.get(kind) or str(rng.choice(["colour", "kind"]))
    taken = {getattr(thing, field) for thing in scene.things}
    values = [value for value in (COLOURS if field == "colour" else KINDS) if value not in taken]
    change = {field: str(rng.choice(values))}
    things = (replace(t, **change) if t.kind == chosen else t for t in scene.things)
    return replace(scene, things=tuple(things))


def edit_mask(scene: Scene, edited: Scene, side: int = SIDE) -> Image.Image:
    """White where the true edit may differ from the picture, black where it must not."""
    mask = np.zeros((side, side), bool)
    if edited.background != scene.background:
        for thing in scene.things:
            mask |= _cutout(thing, scene, side)[1] == 1
        return Image.fromarray((~mask).astype(np.uint8) * 255)
    for before, after in zip(scene.things, edited.things, strict=True):
        for thing in (before, after) if before != after else ():
            mask |= _cutout(thing, scene, side)[1] > 0
            mask |= _shadow(thing, scene, side) > 0
    grow = 2 * max(1, round(2 * side / 128)) + 1
    return Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(grow))


Described = TypeVar("Described")


def many(
    split: str,
    seed: int,
    count: int,
    describe: Callable[[Scene, np.random.Generator], Described],
    groups: Groups = GROUPS,
) -> tuple[np.ndarray, list[Described]]:
    """The first `count` scenes of a split, drawn on all cores: bytes (count, 3, 128, 128).

    describe: what to say of each scene; a function that another process can import.
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


def random_edit(kind: str, split: str, seed: int, index: int) -> tuple[Scene, Scene]:
    """A scene of a split that offers an edit of the given kind, and the scene edited."""
    rng = split_rng(split, seed, index)
    while True:
        scene = random_scene(rng)
        if edited := edit(scene, kind, rng):
            return scene, edited


def edits(split: str, seed: int) -> Iterator[tuple[str, Scene, Scene]]:
    """Edits without end, the kinds in turn: each one's kind, its scene, and the scene edited."""
    for i, kind in enumerate(cycle(EDITS)):
        yield kind, *random_edit(kind, split, seed, i)


def write_benchmark(out: Path, count: int, split: str, seed: int) -> None:
    """Writes pictures, truths and masks, then the manifest that lists them."""
    for name in ("images", "truth", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (kind, scene, edited) in enumerate(islice(edits(split, seed), count)):
        image, truth, mask = (f"{name}/{i:04}.png" for name in ("images", "truth", "masks"))
        draw(scene).save(out / image)
        draw(edited).save(out / truth)
        edit_mask(scene, edited).save(out / mask)
        line = {"image": image, "caption": caption(scene), "target": caption(edited)}
        lines.append(json.dumps(line | {"truth": truth, "mask": mask, "kind": kind}) + "\n")
    # last and at once: a manifest that is there is complete
    partial = out / "manifest.jsonl.partial"
    partial.write_text("".join(lines), encoding="utf-8")
    os.replace(partial, out / "manifest.jsonl")


def sheet(count: int, split: str, seed: int, columns: int = 8) -> Image.Image:
    """Scenes side by side, each over its caption."""
    width, height, rows = SIDE + 8, SIDE + 28, -(-count // columns)
    page = Image.new("RGB", (columns * width + 8, rows * height + 8), "white")
    pen = ImageDraw.Draw(page)
    for i in range(count):
        rng = split_rng(split, seed, i)
        scene = random_scene(rng)
        x, y = 8 + i % columns * width, 8 + i // columns * height
        page.paste(draw(scene), (x, y))
        for line, text in enumerate(_two_lines(caption(scene, rng))):
            pen.text((x, y + SIDE + 1 + 10 * line), text, "black", font_size=9)
    return page


def _two_lines(text: str) -> tuple[str, str]:
    words = text.split()
    cut = min(range(len(words) + 1), key=lambda i: abs(len(" ".join(words[:i])) - len(text) / 2))
    return " ".join(words[:cut]), " ".join(words[cut:])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write pictures with edits whose truth is known.")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=32, help="number of edits (default 32)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default 0)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="(default test)")
    parser.add_argument(
        "--sheet", action="store_true", help="write one picture OUT of COUNT captioned scenes"
    )
    args = parser.parse_args(argv)
    if args.count < 1 or args.seed < 0:
        print("scenes.py: --count must be at least 1, and --seed at least 0", file=sys.stderr)
        return 2
    if args.out.exists() and args.out.is_dir() == args.sheet:
        was, wanted = ("folder", "file") if args.sheet else ("file", "folder")
        print(f"scenes.py: {args.out} is a {was}, not a {wanted}", file=sys.stderr)
        return 2
    try:
        if args.sheet:
            sheet(args.count, args.split, args.seed).save(args.out)
        else:
            write_benchmark(args.out, args.count, args.split, args.seed)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"scenes.py: cannot write to {args.out}: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
