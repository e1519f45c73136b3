"""One contact sheet: eight edits of held-out scenes, a row a method, beside the true edits.

    python tools/sheet.py OUT.webp --work cells

The methods run with their own defaults. Prints, in Markdown, how near each comes to the true edit,
and how far it leaves alone what the edit is not about. With --work an interrupted run goes on where
it was: finished edits lie in that folder, which is to be emptied when a method has changed.
"""

import argparse
import io
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from evaluation import datasets, edits, runner
from evaluation.command_line import answer
from evaluation.datasets import Case
from evaluation.embedded import table
from evaluation.variants import CAPTION, MASK, Variant
from PIL import Image
from PIL.ImageOps import contain
from world.edits import Edit
from world.edits import edits as benchmark
from world.sheets import Row, Tile, draw_sheet

import ptinv
from ptinv.errors import InputError
from ptinv.methods.table import METHODS, find
from ptinv.settings import check
from ptinv.storage.files import check_output, replacing
from ptinv.storage.pictures import FORMATS, open_picture

# besides every method's own row, which has the source text only if it needs it
TOLD, OWN_MASK = {"source": CAPTION}, {"mask": MASK}
VARIANTS = (
    Variant("pti with the source text", "pti", TOLD),
    Variant("pti, per-object masks", "pti", {"mask_relative_to": "object"}),
    Variant("pti without a mask", "pti", {"mask": None}),
    Variant("pti with the true mask", "pti", OWN_MASK),
    Variant("diffedit with the source text", "diffedit", TOLD),
)
# the number of things in the two scenes of each kind of edit; "all" is about several
THINGS = {"colour": (1, 2), "object": (1, 2), "background": (1, 2), "all": (2, 3)}
UNCHANGED = Variant("the input as it is", "nothing", {})
CEILING = Variant("the true edit through the VAE", "truth", {})
HEADINGS = {"all": "all of a kind"}
SHOWN = (128, 128)  # pixels that a picture on the sheet has at most
LIMIT = 1_200_000  # bytes, of a WebP or JPEG


def chosen(seed: int) -> list[Case]:
    """Two edits of each kind: the benchmark's first in a scene of each size in `THINGS`.

    So nobody chose them, and no result did.
    """
    places = [(kind, number) for kind, numbers in THINGS.items() for number in numbers]
    found: dict[tuple[str, int], Case] = {}
    for i, (kind, scene, edited) in enumerate(benchmark("test", seed)):
        case = datasets.case_of(f"test, seed {seed}", i, kind, scene, edited)
        found.setdefault((kind, len(scene.things)), case)
        if found.keys() >= set(places):
            return [found[place] for place in places]


def rows_of(methods: Iterable[str], steps: int | None = None) -> list[Variant]:
    """The named methods, each followed by its variants; all with so many steps, if given.

    Raises InputError for an unknown method.
    """
    rows = []
    for name in methods:
        rows.append(Variant(name, name, TOLD if find(name).needs_source else {}))
        rows += [row for row in VARIANTS if row.method == name]
    return [replace(row, options=row.options | ({"steps": steps} if steps else {})) for row in rows]


class Made(NamedTuple):
    """A row's results, in the order of the edits."""

    pictures: list[Image.Image]
    figures: list[float]  # the means of: PSNR to the true edit; to the input elsewhere; seconds


def made(
    model: ptinv.StableDiffusion, cases: list[Case], rows: list[Variant], folder: Path
) -> dict[str, Made]:
    """Each row's results by its label, those between which a method can lie among them; what the
    folder holds is read. Raises InputError if an edit failed."""
    rows = [UNCHANGED, CEILING, *rows]
    groups = edits.groups(edits.Bench(model, keep=folder), cases, rows)
    runner.run(groups, folder, kept=lambda result: (folder / result["file"]).is_file())
    known = runner.results(folder)
    results = [[known.get(runner.key_of(item)) for item in group.items] for group in groups]
    if any(result is None for group in results for result in group):
        raise InputError("some edits failed, as said above")
    return {row.label: of_row([group[i] for group in results], folder)
            for i, row in enumerate(rows)}  # fmt: skip


def of_row(results: list[dict[str, Any]], folder: Path) -> Made:
    """The pictures and the mean figures of one row's results."""
    names = ("psnr", "psnr_outside", "seconds")
    means = [mean(result[name] for result in results) for name in names]
    return Made([open_picture(folder / result["file"]) for result in results], means)


def drawn(wanted: list[Edit], rows: list[Variant], results: dict[str, Made]) -> Image.Image:
    """The sheet: the inputs and the true edits, then the methods, with their figures."""
    inputs = [
        Tile(contain(edit.picture, SHOWN), HEADINGS.get(edit.kind, edit.kind), edit.target, new)
        for edit, new in zip(wanted, map(emphasised, wanted), strict=True)
    ]
    truths = [Tile(contain(edit.truth, SHOWN)) for edit in wanted]
    nothing, ceiling = (results[row.label].figures[0] for row in (UNCHANGED, CEILING))
    lines = [
        Row(inputs, "the input", f"{nothing:.1f} dB to the true edit"),
        Row(truths, "the true edit", f"{ceiling:.1f} dB through the VAE"),
        Row([], "the methods"),
    ]
    for row in rows:
        to_truth, to_input, _ = results[row.label].figures
        notes = f"{to_truth:.1f} dB to the true edit\n{to_input:.1f} dB to the input elsewhere"
        notes += "\nneeds the source text" if find(row.method).needs_source else ""
        tiles = [Tile(contain(picture, SHOWN)) for picture in results[row.label].pictures]
        lines.append(Row(tiles, row.label, notes))
    return draw_sheet(lines)


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
    return answer("sheet.py", run, parser(), argv)


def run(args: argparse.Namespace) -> None:
    """Makes the sheet that the command line names."""
    args.cells = args.work  # where an interruption leaves what is finished
    out = check_output(args.out, FORMATS)
    check("seed", args.seed, 0, 2**32 - 1, whole=True)
    if args.steps is not None:
        check("steps", args.steps, 2, 500, whole=True)
    rows = rows_of(args.methods.split(",") if args.methods else METHODS, args.steps)
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    model = ptinv.load(args.model, args.device, args.dtype)
    cases = chosen(args.seed)
    with TemporaryDirectory() as scratch:
        results = made(model, cases, rows, args.work or Path(scratch))
    save(drawn([case.open() for case in cases], rows, results), out)
    headings = ["PSNR to the true edit, dB", "to the input outside the true mask, dB", "seconds"]
    figures = {label: row.figures for label, row in results.items()}
    table(f"{len(cases)} edits", headings, figures, 1)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    top.add_argument("out", metavar="OUT", help=".webp or .jpg; a .png is several times larger")
    top.add_argument("--model", help="(default: the embedded one)")
    top.add_argument("--methods", metavar="A,B", help="only these, in this order (default: all)")
    top.add_argument("--seed", type=int, default=0, help="of the scenes (default 0)")
    top.add_argument("--steps", type=int, help="of every method, for a quick look")
    top.add_argument("--work", type=Path, metavar="FOLDER", help="for finished edits")
    top.add_argument("--device")
    top.add_argument("--dtype")
    return top


if __name__ == "__main__":
    sys.exit(main())
