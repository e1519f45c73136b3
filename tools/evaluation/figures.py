"""The paper's figures: Figs. 3, 5 and 7 as sheets of pictures, Figs. 4 and 6 as curves.

    fig3   reconstructions side by side
    fig4   fidelity against success as the mask's threshold is swept; DDIM-Global has no mask
    fig5   edits side by side
    fig6   the same axes as η is swept, for three learning rates
    fig7   every thing of a kind: where a mask relative to the strongest attention leaves some out

and one of this project's own: `frontier`, how many edits are right for so many rows of the UNet.

On scenes the axes are what the judge sees: success, and preservation of all else. Where LPIPS and
Inception are named, and the means of real classes, they are the paper's: LPIPS and CSFID.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from PIL.ImageOps import contain
from torch import Tensor
from world.sheets import Row, Tile, draw_sheet

import ptinv

from . import metrics, plots, tables
from .datasets import KINDS, Case
from .edits import Bench
from .networks import unpacked, weights_in
from .variants import FREE, TOLD, VARIANTS, parse

SHOWN = (128, 128)  # pixels of a sheet's picture at most
THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)
STRENGTHS = ("eta", "guidance", "encode_ratio")  # that a trade-off is drawn over
ETAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Figure(NamedTuple):
    """A figure: its edits' rows by curve, or, for a sheet, by nothing."""

    about: str
    rows: dict[str, list[str]]  # by curve, each written as in `variants.py`
    kinds: Sequence[str] | None = None  # of scenes' edits; None: all

    @property
    def labels(self) -> list[str]:
        """All rows, each once."""
        return list(dict.fromkeys(row for rows in self.rows.values() for row in rows))


def swept(method: str, option: str, values: Sequence[float], more: str = "") -> list[str]:
    """A method's rows over the values of an option."""
    return [f"{method}:{option}={value:g}{more}" for value in values]


SIDE_BY_SIDE = ["ddim-global", "diffedit", "ddim-edit", "pti", "auto"]
CURVES = {
    "fig4": Figure(
        "edits by the threshold of their mask",
        {name: swept(name, "mask_threshold", THRESHOLDS)
         for name in ("pti", "ddim-edit", "diffedit")} | {"ddim-global": ["ddim-global"]},
    ),
    "fig6": Figure(
        "edits by η and the learning rate",
        {f"β = {lr:g}": swept("pti", "eta", ETAS, f",lr={lr:g}") for lr in (0.01, 0.05, 0.1)},
    ),
}  # fmt: skip
FRONTIER = Figure(
    "edits by what they cost",
    {
        "auto, by steps": swept("auto", "steps", (10, 15, 20, 30, 50)),
        "by encode ratio": swept("auto", "encode_ratio", (0.6, 0.8, 1)),
        "guided on the first part": ["auto:guidance_gate=0:0.5", "auto:guidance_gate=0:0.7"],
        "fast": ["fast"],
        "auto, told": ["auto, told"],
        "fast, told": ["fast, told"],
        "pti, told, by steps": swept("pti", "steps", (10, 20, 50), f",{TOLD}"),
        "by N at 20 steps": swept("pti", "inner_steps", (3, 5), f",steps=20,lr=0.03,{TOLD}"),
        "∅, told, by steps": swept("pti", "steps", (10, 20, 50), f",{FREE},{TOLD}"),
        "pti": ["pti"],
    },
)
SHEETS = {
    "fig5": Figure("edits side by side", {"": SIDE_BY_SIDE}),
    "fig7": Figure(
        "edits of every thing of a kind",
        {"": ["ddim-edit", "pti", "pti:mask_relative_to=object", "auto"]},
        ("all",),
    ),
}


def class_means(path: Path) -> dict[int, Tensor]:
    """The mean features of real pictures by class, of FlexIT's inception_stats_256.pt. Raises
    InputError for another file."""
    try:
        return {int(n): one["mean"].flatten() for n, one in weights_in(path)["classwise"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ptinv.InputError(f"{path} has no means of classes ({error!r})") from error


def curves(figure: Figure, rows: tables.Rows, means: dict[int, Tensor] | None) -> list[plots.Curve]:
    """A curve a method: fidelity and success of each of its rows."""
    drawn = []
    for label, specs in figure.rows.items():
        points = [point(rows[spec], means) for spec in specs]
        notes = [spec.partition(":")[2].partition(",")[0] for spec in specs]
        drawn.append(plots.Curve(label, *zip(*points, strict=True), notes=notes))
    return drawn


def tradeoff(rows: tables.Rows) -> list[plots.Curve]:
    """A curve through all rows that differ in their strengths only, from the weakest on."""
    alike: dict[str, list[str]] = {}
    for label in rows:
        alike.setdefault(split(label)[0], []).append(label)
    drawn = []
    for name, labels in alike.items():
        labels.sort(key=strengths)
        points = [point(rows[label], None) for label in labels]
        notes = [split(label)[1] for label in labels] if len(labels) > 1 else []
        drawn.append(plots.Curve(name if notes else labels[0], *zip(*points, strict=True), notes))
    return drawn


def frontier(rows: tables.Rows) -> list[plots.Curve]:
    """The curves of `FRONTIER`, as far as they were made, and any other row as a mark: how many are
    right, by the rows that they take, forward and backward."""

    def point(items: list[tables.Item]) -> tuple[float, float]:
        results = [item.result for item in items]
        cost = sum(r["forward"] + r["backward"] for r in results) / len(results)
        return cost, 100 * sum(bool(r["right"]) for r in results) / len(results)

    known = {name: [one for one in some if one in rows] for name, some in FRONTIER.rows.items()}
    others = {label: [label] for label in rows if label not in FRONTIER.labels}
    drawn = []
    for name, labels in (known | others).items():
        if labels:
            points = sorted((point(rows[one]), one.partition(":")[2].partition(",")[0])
                            for one in labels)  # fmt: skip
            at, notes = zip(*points, strict=True)
            notes = notes if len(notes) > 1 else ()
            drawn.append(plots.Curve(name, *zip(*at, strict=True), notes=notes))
    return drawn


def split(label: str) -> tuple[str, str]:
    """A row without its strengths, and these: "pti:mask=none", "eta=0.5"."""
    method, _, rest = VARIANTS.get(label, label).partition(":")
    fixed, swept = [], []
    for part in sorted(part.strip() for part in rest.split(",") if part):
        (swept if part.partition("=")[0].strip() in STRENGTHS else fixed).append(part)
    return ":".join([method, *([",".join(fixed)] if fixed else [])]), ",".join(swept)


def strengths(label: str) -> list[float]:
    """The strengths of a row, its method's own where it names none."""
    settings = parse(label).settings("a picture")
    return [settings.get(name, 0.0) for name in STRENGTHS]


def check(cases: list[Case], bench: Bench, means: dict[int, Tensor] | None) -> None:
    """Raises InputError unless a point's two figures will be measured."""
    if means is None:
        if not bench.judge or any(case.kind not in KINDS for case in cases):
            wrong = "these edits have no judge; name --lpips, --inception and --class-means"
            raise ptinv.InputError(f"{wrong}, with --data imagenet")
    elif not (bench.networks.lpips and bench.networks.inception):
        raise ptinv.InputError("CSFID against LPIPS needs both networks; name --lpips, --inception")
    elif any("classes" not in case.about for case in cases):
        raise ptinv.InputError(
            "CSFID is of classes, which only imagenet's have; take --data imagenet"
        )


def axes(means: dict[int, Tensor] | None) -> tuple[str, str]:
    """The names of a point's two figures."""
    judged = "preservation: all else is as it was, %", "success: it shows what was asked for, %"
    return ("LPIPS to the picture", "CSFID") if means else judged


def point(row: list[tables.Item], means: dict[int, Tensor] | None) -> tuple[float, float]:
    """Fidelity and success of a row. Raises InputError where they were not measured."""
    results = [item.result for item in row]
    try:
        if means is None:
            return tuple(100 * sum(r[name] for r in results) / len(results)
                         for name in ("preservation", "success"))  # fmt: skip
        features = torch.stack([unpacked(r["features"]) for r in results])
        targets = [r["classes"][1] for r in results]
        lpips = sum(r["lpips"] for r in results) / len(results)
        return lpips, metrics.csfid(features, targets, means)
    except (KeyError, TypeError) as error:
        wrong = f"{error} was not measured; name the networks, and for CSFID the classes' means"
        raise ptinv.InputError(wrong) from error


def sheet(cases: list[Case], rows: dict[str, list[Path]]) -> Image.Image:
    """The pictures, then a row for each label, the made ones below their pictures. Raises
    InputError if it is too tall."""
    edits = [case.open() for case in cases]
    heads = [Tile(contain(e.picture, SHOWN), "", e.target or e.caption or "") for e in edits]
    drawn = [Row(heads, "the picture")]
    if all(edit.truth for edit in edits):
        drawn.append(Row([Tile(contain(e.truth, SHOWN)) for e in edits], "the true edit"))
    for label, paths in rows.items():
        drawn.append(Row([Tile(opened(path)) for path in paths], label))
    return draw_sheet(drawn)


def opened(path: Path) -> Image.Image:
    """A finished picture, small."""
    with Image.open(path) as picture:
        return contain(picture.convert("RGB"), SHOWN)
