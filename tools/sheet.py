"""One contact sheet: eight edits of held-out scenes, a row a method, beside the true edits.

    python tools/sheet.py OUT.webp --work cells

The methods run with their own defaults. Prints, in Markdown, how near each comes to the true edit,
and how far it leaves alone what the edit is not about. With --work an interrupted run goes on where
it was: finished cells lie in that folder, which is to be emptied when a method has changed.
"""

import argparse
import io
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from evaluation.embedded import table
from PIL import Image
from PIL.ImageOps import contain
from world.cells import Cell, Way, cells_of
from world.edits import Edit, edit_of
from world.edits import edits as benchmark
from world.scenes import Scene
from world.sheets import Row, Tile, draw_sheet

import ptinv
from ptinv.core.pictures import to_tensor
from ptinv.errors import InputError
from ptinv.methods.table import METHODS, find
from ptinv.metrics import psnr
from ptinv.settings import check
from ptinv.storage.files import check_output, replacing
from ptinv.storage.pictures import FORMATS

# besides every method's own row, which has the source text only if it needs it
VARIANTS = (
    Way("pti with the source text", "pti", told=True),
    Way("pti, per-object masks", "pti", {"mask_relative_to": "object"}),
    Way("pti without a mask", "pti", {"mask": None}),
    Way("pti with the true mask", "pti", true_mask=True),
    Way("diffedit with the source text", "diffedit", told=True),
)
# the number of things in the two scenes of each kind of edit; "all" is about several
THINGS = {"colour": (1, 2), "object": (1, 2), "background": (1, 2), "all": (2, 3)}
UNCHANGED, CEILING = "the input as it is", "the true edit through the VAE"
HEADINGS = {"all": "all of a kind"}
SHOWN = (128, 128)  # pixels that a picture on the sheet has at most
LIMIT = 1_200_000  # bytes, of a WebP or JPEG


def chosen(seed: int) -> list[Edit]:
    """Two edits of each kind: the benchmark's first in a scene of each size in `THINGS`.

    So nobody chose them, and no result did.
    """
    places = [(kind, number) for kind, numbers in THINGS.items() for number in numbers]
    found: dict[tuple[str, int], tuple[str, Scene, Scene]] = {}
    for kind, scene, edited in benchmark("test", seed):
        found.setdefault((kind, len(scene.things)), (kind, scene, edited))
        if found.keys() >= set(places):
            return [edit_of(*found[place]) for place in places]


def ways_of(methods: Iterable[str], steps: int | None = None) -> list[Way]:
    """The named methods, each followed by its variants; all with so many steps, if given.

    Raises InputError for an unknown method.
    """
    ways = []
    for name in methods:
        ways.append(Way(name, name, told=find(name).needs_source))
        ways += [way for way in VARIANTS if way.method == name]
    return [replace(way, options=way.options | ({"steps": steps} if steps else {})) for way in ways]


def figures(edits: list[Edit], cells: list[Cell]) -> list[float]:
    """The means of: PSNR to the true edit; to the input outside the true mask; seconds."""
    pairs = list(zip(edits, cells, strict=True))
    return [
        mean(psnr(cell.picture, edit.truth) for edit, cell in pairs),
        mean(psnr_outside(cell.picture, edit) for edit, cell in pairs),
        mean(cell.seconds for cell in cells),
    ]


def psnr_outside(made: Image.Image, edit: Edit) -> float:
    """The PSNR to the input where the true edit leaves it as it is."""
    outside = torch.from_numpy(np.asarray(edit.mask) == 0)
    return psnr(to_tensor(made)[..., outside], to_tensor(edit.picture)[..., outside])


def measured(
    model: ptinv.StableDiffusion, edits: list[Edit], cells: dict[str, list[Cell]]
) -> dict[str, list[float]]:
    """The figures of each row by its label, after those between which a method can lie."""
    unchanged = [Cell(edit.picture, 0.0) for edit in edits]
    coded = [Cell(ptinv.reconstruct(model, edit.truth, method="vae"), 0.0) for edit in edits]
    rows = {UNCHANGED: unchanged, CEILING: coded} | cells
    return {label: figures(edits, row) for label, row in rows.items()}


def drawn(
    edits: list[Edit],
    ways: list[Way],
    cells: dict[str, list[Cell]],
    measures: dict[str, list[float]],
) -> Image.Image:
    """The sheet: the inputs and the true edits, then the methods, with their figures."""
    inputs = [
        Tile(contain(edit.picture, SHOWN), HEADINGS.get(edit.kind, edit.kind), edit.target, new)
        for edit, new in zip(edits, map(emphasised, edits), strict=True)
    ]
    truths = [Tile(contain(edit.truth, SHOWN)) for edit in edits]
    nothing, ceiling = measures[UNCHANGED][0], measures[CEILING][0]
    rows = [
        Row(inputs, "the input", f"{nothing:.1f} dB to the true edit"),
        Row(truths, "the true edit", f"{ceiling:.1f} dB through the VAE"),
        Row([], "the methods"),
    ]
    for way in ways:
        to_truth, to_input, _ = measures[way.label]
        notes = f"{to_truth:.1f} dB to the true edit\n{to_input:.1f} dB to the input elsewhere"
        notes += "\nneeds the source text" if find(way.method).needs_source else ""
        made = [Tile(contain(cell.picture, SHOWN)) for cell in cells[way.label]]
        rows.append(Row(made, way.label, notes))
    return draw_sheet(rows)


def emphasised(edit: Edit) -> set[str]:
    """The words of the target that the caption lacks."""
    return set(edit.target.split()) - set(edit.caption.split()) - {"a", "an"}


def save(sheet: Image.Image, path: Path) -> None:
    """Writes the sheet by its suffix, a WebP or JPEG with the best quality within the limit."""
    kind, options = FORMATS[path.suffix.lower()]
    for quality in range(95, 45, -5):
        written = io.BytesIO()
        sheet.save(written, kind, **(options | {"quality": quality}))
        if kind == "PNG" or written.tell() <= LIMIT:
            break
    with replacing(path) as part:
        part.write_bytes(written.getvalue())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", metavar="OUT", help=".webp or .jpg; a .png is several times larger")
    parser.add_argument("--model", help="(default: the embedded one)")
    parser.add_argument("--methods", metavar="A,B", help="only these, in this order (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes (default 0)")
    parser.add_argument("--steps", type=int, help="of every method, for a quick look")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="for finished cells")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    args = parser.parse_args(argv)
    try:
        out = check_output(args.out, FORMATS)
        check("seed", args.seed, 0, 2**32 - 1, whole=True)
        if args.steps is not None:
            check("steps", args.steps, 2, 500, whole=True)
        ways = ways_of(args.methods.split(",") if args.methods else METHODS, args.steps)
        if args.work:
            args.work.mkdir(parents=True, exist_ok=True)
        model = ptinv.load(args.model, args.device, args.dtype)
        edits = chosen(args.seed)
        cells = cells_of(model, edits, ways, args.work)
        measures = measured(model, edits, cells)
        save(drawn(edits, ways, cells, measures), out)
    except (InputError, OSError, FloatingPointError) as error:
        print(f"sheet.py: {error}", file=sys.stderr)
        return 2
    headings = ["PSNR to the true edit, dB", "to the input outside the true mask, dB", "seconds"]
    table(f"{len(edits)} edits", headings, measures, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
