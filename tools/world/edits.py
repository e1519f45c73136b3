"""Edits of scenes whose true result is known, and the benchmark of them in files."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from world.grounds import BACKGROUNDS
from world.scenes import (
    SIDE,
    Scene,
    caption,
    cutout,
    draw,
    random_scene,
    shadow,
    split_rng,
)
from world.sheets import Row, Tile, draw_sheet
from world.things import COLOURS, KINDS

from ptinv.storage.files import replacing

EDITS = ("colour", "object", "background", "all")


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
            mask |= cutout(thing, scene, side)[1] == 1
        return Image.fromarray((~mask).astype(np.uint8) * 255)
    for before, after in zip(scene.things, edited.things, strict=True):
        for thing in (before, after) if before != after else ():
            mask |= cutout(thing, scene, side)[1] > 0
            mask |= shadow(thing, scene, side) > 0
    grow = 2 * max(1, round(2 * side / 128)) + 1
    return Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(grow))


class Edit(NamedTuple):
    """A picture with the edit that is wanted and, for a scene, its true result."""

    kind: str
    caption: str | None  # of the picture
    target: str | None  # the prompt
    picture: Image.Image
    truth: Image.Image | None
    mask: Image.Image | None  # white where the edit may differ


def edit_of(kind: str, scene: Scene, edited: Scene) -> Edit:
    """The edit that makes one scene another."""
    pictures = draw(scene), draw(edited), edit_mask(scene, edited)
    return Edit(kind, caption(scene), caption(edited), *pictures)


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
    # last and at once: a manifest that exists is complete
    with replacing(out / "manifest.jsonl") as part:
        part.write_text("".join(lines), encoding="utf-8")


def sheet(count: int, split: str, seed: int, columns: int = 8) -> Image.Image:
    """Scenes side by side, each under its caption. Raises InputError if they are too many."""
    tiles = []
    for i in range(count):
        rng = split_rng(split, seed, i)
        scene = random_scene(rng)
        tiles.append(Tile(draw(scene), caption(scene, rng)))
    return draw_sheet([Row(tiles[i : i + columns]) for i in range(0, count, columns)])
