"""Pictures to edit: drawn scenes, whose true edits are known, or a folder that scenes.py wrote.

`published.py` has those of published benchmarks.
"""

import json
from collections.abc import Callable, Collection
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from world import edits as scenes_edits
from world.edits import Edit, edit_of
from world.scenes import Scene, caption, draw, random_scene, split_rng

import ptinv

KINDS = scenes_edits.EDITS


class Case(NamedTuple):
    """An edit that is wanted. What it takes is drawn or opened when its turn comes."""

    about: dict[str, Any]  # which one it is, for JSON
    kind: str
    caption: str | None  # of the picture
    target: str | None  # the prompt
    open: Callable[[], Edit]


def drawn(split: str, seed: int, count: int, kinds: Collection[str]) -> list[Case]:
    """The first `count` edits of each kind, the kinds in turn."""
    listed = islice(scenes_edits.edits(split, seed), count * len(KINDS))
    return [
        case_of(f"{split}, seed {seed}", i, *edit)
        for i, edit in enumerate(listed)
        if edit[0] in kinds
    ]


def case_of(data: str, index: int, kind: str, scene: Scene, edited: Scene) -> Case:
    """The edit that makes one scene another."""
    about = {"data": data, "index": index}
    opened = partial(edit_of, kind, scene, edited)
    return Case(about, kind, caption(scene), caption(edited), opened)


def captioned(count: int, seed: int) -> list[Case]:
    """The first scenes of the test split with their captions, to be reconstructed."""
    cases = []
    for i in range(count):
        scene = random_scene(split_rng("test", seed, i))
        about = {"data": f"test scenes, seed {seed}", "index": i}
        opened = partial(_shown, scene)
        cases.append(Case(about, "scene", caption(scene), None, opened))
    return cases


def _shown(scene: Scene) -> Edit:
    return Edit("scene", caption(scene), None, draw(scene), None, None)


def listed(folder: Path, count: int | None, kinds: Collection[str]) -> list[Case]:
    """The first `count` edits of each kind (None: all) that `scenes.py` wrote. Raises InputError
    for a folder of anything else."""
    found: dict[str, list[Case]] = {kind: [] for kind in kinds}
    for index, entry in enumerate(manifest(folder)):
        about = {"data": str(folder), "index": index}
        case = Case(
            about, entry["kind"], entry["caption"], entry["target"], partial(_opened, entry)
        )
        found.get(entry["kind"], []).append(case)
    cases = [case for some in found.values() for case in some[:count]]
    return sorted(cases, key=lambda case: case.about["index"])


def manifest(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's manifest, their paths made whole."""
    path = folder / "manifest.jsonl"
    if not path.is_file():
        raise ptinv.InputError(
            f"there is no {path}; write one with python tools/scenes.py {folder}"
        )
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        paths = ("image", "truth", "mask")
        texts = ("kind", "caption", "target")
        return [
            {name: str(entry[name]) for name in texts}
            | {name: folder / entry[name] for name in paths}
            for entry in entries
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ptinv.InputError(
            f"{path} is not what scenes.py writes ({error!r}); write it again"
        ) from error


def _opened(entry: dict[str, Any]) -> Edit:
    pictures = []
    for name in ("image", "truth", "mask"):
        with Image.open(entry[name]) as picture:
            pictures.append(picture.convert("L" if name == "mask" else "RGB"))
    return Edit(entry["kind"], entry["caption"], entry["target"], *pictures)
