"""Edits of scenes by many methods, where every inversion is made once for all that it serves.

A cell is the result of `ptinv.edit` on one picture by one method, and the seconds that this takes
on its own. Finished cells can lie in a folder, so that an interrupted run goes on where it was.
"""

import hashlib
import json
import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm
from world.edits import Edit

import ptinv
from ptinv.methods.stages import Stage
from ptinv.methods.table import find
from ptinv.settings import Settings, of_an_inversion
from ptinv.storage.pictures import open_picture, read_text, save_picture
from ptinv.storage.provenance import fingerprint, model_hash


@dataclass(frozen=True)
class Way:
    """A method with all that it is given besides picture and prompt."""

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)  # where they are not its defaults
    told: bool = False  # the picture's caption, as the source text
    true_mask: bool = False  # the true edit's mask

    def given(self, edit: Edit) -> dict[str, Any]:
        """The options for one edit."""
        source = {"source": edit.caption} if self.told else {}
        mask = {"mask": edit.mask} if self.true_mask else {}
        return self.options | source | mask


class Cell(NamedTuple):
    """The result of one edit by one method."""

    picture: Image.Image
    seconds: float  # from the picture to the edit, as if nothing had been shared


class Start(NamedTuple):
    """An inversion to go on from."""

    inversion: ptinv.Inversion
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
                path = folder and folder / file_name(model, edit, way, column)
                cells[way.label].append(stored(path) or made(model, edit, way, starts, path))
                bar.update()
    return cells


def file_name(model: ptinv.StableDiffusion, edit: Edit, way: Way, column: int) -> str:
    """The name of a cell's file, with a digest of all that the cell is made from but the code."""
    about = [model_hash(model), str(model.dtype), fingerprint(edit.picture)]
    about += [edit.caption, edit.target, fingerprint(edit.mask)]
    about += [way.method, way.options, way.told, way.true_mask]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"{way.label.replace(',', '').replace(' ', '-')}-{column}-{digest[:12]}.png"


def stored(path: Path | None) -> Cell | None:
    """The cell in a file, if there is one."""
    if not path or not path.exists():
        return None
    return Cell(open_picture(path), float(read_text(path)["seconds"]))


def made(
    model: ptinv.StableDiffusion,
    edit: Edit,
    way: Way,
    starts: dict[Hashable, Start],
    path: Path | None = None,
) -> Cell:
    """Makes a cell from whichever of the picture's starts fits, and adds the starts it makes.

    path: a file to write the cell to.
    """
    method, given = find(way.method), way.given(edit)
    if method.strengths:  # it chooses its own inversion
        clock = time.perf_counter()
        made_alone = ptinv.edit(model, edit.picture, edit.target, way.method, **given)
        return written(Cell(made_alone, time.perf_counter() - clock), path)
    settings = method.settings(**given)
    options = of_an_inversion(settings) | given  # all, lest a start's own fill what is not given
    inverted = shared_by(method.trajectory, settings, edit)
    whole = inverted, shared_by(method.extra, settings, edit)
    if inverted not in starts:
        clock = time.perf_counter()
        bare = replace(method, extra=None)  # with the extra it might serve fewer
        inversion = ptinv.invert(model, edit.picture, method=bare, **options)
        starts[inverted] = Start(inversion, time.perf_counter() - clock)
    start, beforehand = starts.get(whole, starts[inverted]), []

    def progress(items: Iterable, stage: str) -> Iterator:
        begun = time.perf_counter()
        yield from items
        if stage != "sampling":
            beforehand.append(time.perf_counter() - begun)

    clock = time.perf_counter()
    result = ptinv.result(model, start.inversion, edit.target, way.method, progress, **options)
    cell = Cell(result.picture, start.seconds + time.perf_counter() - clock)
    starts.setdefault(whole, Start(result.inversion, start.seconds + sum(beforehand)))
    return written(cell, path)


def written(cell: Cell, path: Path | None) -> Cell:
    """The cell, in its file, too, if there is to be one."""
    if path:
        save_picture(cell.picture, path, {"seconds": f"{cell.seconds:.3f}"})
    return cell


def shared_by(stage: Stage | None, settings: Settings, edit: Edit) -> Hashable:
    """A key that is equal for all ways that can share what the stage makes of a picture."""
    return stage and (stage, *stage.key(settings, edit.target).items())
