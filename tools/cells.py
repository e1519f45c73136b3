"""Edits of scenes by many methods, where every inversion is made once for all that it serves.

A cell is what `ptinv.edit` makes of one scene by one method, and the seconds that this takes on its
own. Finished cells can lie in a folder, so that an interrupted run goes on where it was.
"""

import hashlib
import json
import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import scenes
from PIL import Image
from tqdm import tqdm

import ptinv
from ptinv import images
from ptinv.inversion.record import Inversion
from ptinv.methods import find
from ptinv.pipeline import run
from ptinv.provenance import fingerprint
from ptinv.settings import Settings
from ptinv.stages import Extra, Trajectory


@dataclass(frozen=True)
class Edit:
    """A scene and what it should become."""

    kind: str
    scene: scenes.Scene
    edited: scenes.Scene

    @cached_property
    def picture(self) -> Image.Image:
        return scenes.draw(self.scene)

    @cached_property
    def truth(self) -> Image.Image:
        return scenes.draw(self.edited)

    @cached_property
    def mask(self) -> Image.Image:
        return scenes.edit_mask(self.scene, self.edited)

    @property
    def caption(self) -> str:
        return scenes.caption(self.scene)

    @property
    def target(self) -> str:
        return scenes.caption(self.edited)


@dataclass(frozen=True)
class Way:
    """A method with what it is given."""

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)  # where they are not its defaults
    told: bool = False  # what the picture shows, as the source text
    true_mask: bool = False  # where the true edit is

    def given(self, edit: Edit) -> dict[str, Any]:
        """The options for one edit."""
        source = {"source": edit.caption} if self.told else {}
        mask = {"mask": edit.mask} if self.true_mask else {}
        return self.options | source | mask


class Cell(NamedTuple):
    picture: Image.Image
    seconds: float  # from the picture to the edit, as if nothing had been shared


class Start(NamedTuple):
    """An inversion to go on from."""

    inversion: Inversion
    seconds: float  # that making it took


def cells_of(
    model: ptinv.StableDiffusion, edits: list[Edit], ways: list[Way], folder: Path | None = None
) -> dict[str, list[Cell]]:
    """Each way's cells by its label, in the order of the edits; those in the folder are read."""
    cells: dict[str, list[Cell]] = {way.label: [] for way in ways}
    with tqdm(total=len(edits) * len(ways), unit="edit") as bar:
        for column, edit in enumerate(edits):
            starts: dict[Hashable, Start] = {}
            for way in ways:
                bar.set_postfix_str(way.label)
                cells[way.label].append(_cell(model, edit, way, starts, folder, column))
                bar.update()
    return cells


def _cell(
    model: ptinv.StableDiffusion,
    edit: Edit,
    way: Way,
    starts: dict[Hashable, Start],
    folder: Path | None,
    column: int,
) -> Cell:
    """Read from the folder, or made and written there."""
    path = folder and folder / _file_name(model, edit, way, column)
    if path and path.exists():
        return Cell(images.open_picture(path), float(images.read_text(path)["seconds"]))
    cell = made(model, edit, way, starts)
    if path:
        images.save_picture(cell.picture, path, {"seconds": f"{cell.seconds:.3f}"})
    return cell


def _file_name(model: ptinv.StableDiffusion, edit: Edit, way: Way, column: int) -> str:
    """Where a cell stands, with a digest of all that it is made from but the code."""
    about = [model.hash, str(model.dtype), fingerprint(edit.picture), edit.caption, edit.target]
    about += [fingerprint(edit.mask), way.method, way.options, way.told, way.true_mask]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"{way.label.replace(',', '').replace(' ', '-')}-{column}-{digest[:12]}.png"


def made(model: ptinv.StableDiffusion, edit: Edit, way: Way, starts: dict[Hashable, Start]) -> Cell:
    """A cell that goes on from whichever of the picture's starts fits; puts new ones there."""
    method, options = find(way.method), way.given(edit)
    settings = method.settings(**options)
    walked = _depends(method.trajectory, settings, edit)
    whole = walked, _depends(method.extra, settings, edit)
    if walked not in starts:
        clock = time.perf_counter()
        bare = replace(method, extra=None)  # with the extra it might serve fewer
        inversion = ptinv.invert(model, edit.picture, method=bare, **options)
        starts[walked] = Start(inversion, time.perf_counter() - clock)
    start, beforehand = starts.get(whole, starts[walked]), []

    def progress(items: Iterable, stage: str) -> Iterator:
        begun = time.perf_counter()
        yield from items
        if stage != "sampling":
            beforehand.append(time.perf_counter() - begun)

    clock = time.perf_counter()
    result = run(model, start.inversion, edit.target, method, settings, progress)
    cell = Cell(result.picture, start.seconds + time.perf_counter() - clock)
    starts.setdefault(whole, Start(result.inversion, start.seconds + sum(beforehand)))
    return cell


def _depends(stage: Trajectory | Extra | None, settings: Settings, edit: Edit) -> Hashable:
    """What ways must have in common to share what the stage makes of a picture."""
    return stage and (stage, *stage.depends(settings, edit.target).items())
