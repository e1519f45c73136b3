"""The paper's tables of reconstruction, on held-out scenes or on COCO's pictures.

    table1   DDIM by ω on the way up and ω on the way down
    table2   AE, DDIM, NTI and PTI, inverted at ω = 0 and sampled at 7.5 with the caption; besides
             them NPI, Direct and c_t = ∅, which the paper does not have
    table3   NTI and PTI by N, the iterations a step, and β, the learning rate

Figures are the mean PSNR to the picture in dB, as the paper's; its own stand beside them where they
are known. A picture is inverted once for all rows that start alike.
"""

import csv
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

import ptinv
from ptinv import api
from ptinv.core.pictures import resize
from ptinv.metrics import psnr
from ptinv.storage.pictures import save_picture

from .datasets import Case
from .edits import Start
from .meter import Cost, Meter
from .plots import Curve
from .runner import Group, Make, key_of, made_by
from .tables import Rows, estimate, markdown, shown

# NTI as PTI's paper compares with it: from the same trajectory, one learning rate, every iteration
NTI = dict(
    method="null-text", encode_ratio=0.8, inversion_guidance=0.0, lr_decay=0.0, stop_below=0.0
)
PTI = dict(method="pti")
FREE = dict(method="pti", init_embedding="null", inner_steps=0)


@dataclass(frozen=True)
class Row:
    """A way to reconstruct: options of `ptinv.reconstruct`, and the paper's figure if known."""

    label: str
    options: dict[str, Any] = field(default_factory=dict)
    published: float | None = None
    curve: str = ""  # of a plot, and where on it
    at: float = 0.0


def tuned(inner_steps: int, lr: float) -> list[Row]:
    """NTI and PTI with so many iterations a step at a learning rate."""
    how = dict(inner_steps=inner_steps, lr=lr)
    stated = {(5, 0.01): (24.45, 25.71)}.get((inner_steps, lr), (None, None))
    pairs = zip((("NTI", NTI), ("PTI", PTI)), stated, strict=True)
    return [
        Row(f"{name}, N={inner_steps}, β={lr}", base | how, paper, f"{name}, β={lr}", inner_steps)
        for (name, base), paper in pairs
    ]


def ddim(up: float, down: float, paper: float | None = None) -> Row:
    """DDIM with an ω on the way up and one on the way down."""
    options = dict(method="ddim", inversion_guidance=up, guidance=down)
    return Row(f"DDIM, ω={up:g} up, {down:g} down", options, paper, f"ω={up:g} up", down)


AE = Row("AE: the VAE alone, the ceiling", dict(method="vae"))
SCALES = (0.0, 1.0, 2.5, 5.0, 7.5)
BETAS = (0.01, 0.03, 0.05, 0.1)
TABLES = {
    "table1": [ddim(up, down) for up in SCALES for down in SCALES],
    "table2": [
        AE,
        ddim(0.0, 7.5, 13.64),
        *tuned(5, 0.01),
        ddim(0.0, 0.0),
        Row("NPI", dict(method="npi", encode_ratio=0.8)),
        Row("Direct", dict(method="direct", encode_ratio=0.8)),
        Row("c_t = ∅, no tuning", FREE),
    ],
    "table3": [row for n in range(1, 6) for lr in BETAS for row in tuned(n, lr)],
}
AXES = {"table1": "ω on the way down", "table3": "N: iterations a step"}  # of those with a plot
FIG3 = [AE, *TABLES["table2"][1:4], TABLES["table2"][-1]]


def groups(
    model: ptinv.StableDiffusion, cases: list[Case], rows: list[Row], keep: Path | None = None
) -> list[Group]:
    """A group a picture, an item a row. keep: a folder for the reconstructions."""
    about = made_by(model)
    return [
        Group([about | case.about | {"caption": case.caption, "reconstruct": row.options}
               for row in rows],
              partial(_begin, model, case, rows, keep))
        for case in cases
    ]  # fmt: skip


def _begin(model: ptinv.StableDiffusion, case: Case, rows: list[Row], keep: Path | None) -> Make:
    edit, starts = case.open(), {}

    def make(i: int) -> dict[str, Any]:
        result, cost = reconstructed(model, edit.picture, edit.caption or "", rows[i], starts)
        figures = {"row": rows[i].label, **measured(result, edit.picture), **cost._asdict()}
        if keep:
            name = key_of({"picture": case.about, "row": rows[i].label}) + ".png"
            save_picture(result.picture, keep / name)
            figures["file"] = name
        return figures

    return make


def reconstructed(
    model: ptinv.StableDiffusion,
    picture: Image.Image,
    caption: str,
    row: Row,
    starts: dict[Hashable, Start],
) -> tuple[ptinv.Result, Cost]:
    """A reconstruction by a row, and what it costs on its own. starts: the picture's inversions so
    far, to which its own is added."""
    options = dict(row.options)
    method = options.pop("method")
    vae = method == "vae"  # the one that inverts nothing
    start = None if vae else inverted(model, picture, caption, method, options, starts)
    meter = Meter(model)
    begun = start.inversion if start else picture
    request = api.request_reconstruction(begun, caption, method, **options)
    result = api.run(meter.model, request)
    _ = result.decoded  # kept with it, and part of what it costs
    own = meter.so_far()
    return result, start.cost.plus(own) if start else own


def inverted(
    model: ptinv.StableDiffusion,
    picture: Image.Image,
    caption: str,
    method: str,
    options: dict[str, Any],
    starts: dict[Hashable, Start],
) -> Start:
    """The inversion that a method goes on from: all that are inverted alike have one."""
    known = ptinv.METHODS["ddim-global" if method == "ddim" else method]
    told = {"source": caption} if known.needs_source else {}
    settings = known.settings(**options, **told)
    key = tuple(known.trajectory.key(settings, caption).items())
    if key not in starts:
        how = {name: getattr(settings, name) for name in known.trajectory.uses}
        meter = Meter(model)
        inversion = ptinv.invert(meter.model, picture, caption, "ddim-global", **how)
        starts[key] = Start(inversion, meter.so_far())
    return starts[key]


def measured(result: ptinv.Result, picture: Image.Image) -> dict[str, Any]:
    """The PSNR at the model's size, and the tuning's loss, the mean of all steps; None without."""
    made, losses = result.decoded, result.losses
    return {
        "psnr": psnr(made, resize(picture, made.size)),
        "loss": None if losses is None else float(losses.mean()),
    }


def report(rows: list[Row], found: Rows) -> str:
    """The table in Markdown, with the paper's figures beside."""
    cells = {}
    for row in rows:
        whole = estimate([item.result["psnr"] for item in found[row.label]])
        paper = "–" if row.published is None else f"{row.published:.2f}"
        cells[row.label] = [shown(whole, 2), paper]
    number = len(found[rows[0].label])
    return markdown(f"{number} pictures", ["PSNR, dB [95 %]", "the paper's, on COCO"], cells)


def write_csv(path: Path, rows: list[Row], found: Rows) -> None:
    """A line a row: its mean PSNR with the interval, the paper's, and its tuning's mean loss."""
    lines: list[list[Any]] = [["row", "pictures", "psnr", "low", "high", "paper", "loss"]]
    for row in rows:
        results = [item.result for item in found[row.label]]
        losses = [r["loss"] for r in results if r["loss"] is not None]
        loss = sum(losses) / len(losses) if losses else None
        whole = estimate([r["psnr"] for r in results])
        lines.append([row.label, len(results), *whole, row.published, loss])
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def curves(rows: list[Row], found: Rows, figure: str) -> list[Curve]:
    """The mean of a figure over the rows' places: a curve for each that the rows name."""
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        values = [item.result[figure] for item in found[row.label]]
        if None not in values:
            points.setdefault(row.curve, {})[row.at] = sum(values) / len(values)
    return [Curve(name, [*of], [*of.values()]) for name, of in points.items()]
