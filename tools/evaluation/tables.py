"""Results as tables: means with 95 % bootstrap intervals, and paired differences to one row."""

import csv
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .metrics import csfid, frechet
from .networks import unpacked

DRAWS = 10_000
Values = dict[Any, float]  # by item, so that rows can be paired


class Estimate(NamedTuple):
    """A mean and the interval that holds it in 95 % of resamplings of the items."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate | None:
    """The percentile bootstrap of a mean, the same at every call; None of nothing. An infinite
    value makes an infinite mean, and no interval."""
    if not len(values):
        return None
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        return Estimate(float(array.mean()), math.nan, math.nan)
    low, high = np.quantile(_shares(len(array)) @ array, (0.025, 0.975))
    return Estimate(float(array.mean()), float(low), float(high))


@lru_cache(maxsize=16)
def _shares(count: int) -> np.ndarray:
    """Share of each item in each resampling, (draws, items)."""
    g = np.random.default_rng(0)
    return g.multinomial(count, np.full(count, 1 / count), DRAWS) / count


def difference(row: Values, other: Values) -> Estimate | None:
    """The mean of row - other over the items that both have."""
    return estimate([row[item] - other[item] for item in row if item in other])


class Column(NamedTuple):
    """A figure of an item, and how a table shows it."""

    name: str
    heading: str
    digits: int = 2
    scale: float = 1.0


COLUMNS = (
    Column("right", "right, %", 1, 100.0),
    Column("success", "success, %", 1, 100.0),
    Column("preservation", "preservation, %", 1, 100.0),
    Column("psnr", "PSNR to the truth, dB"),
    Column("psnr_inside", "inside"),
    Column("psnr_outside", "PSNR to the picture outside"),
    Column("ssim_inside", "SSIM to the truth inside", 3),
    Column("ssim_outside", "SSIM to the picture outside", 3),
    Column("perceptual", "perceptual distance", 4),
    Column("lpips", "LPIPS to the picture", 3),
    Column("structure", "structure distance, ×10³", 1, 1000.0),
    Column("clip", "CLIP score", 1),
    Column("clip_edited", "CLIP score within the mask", 1),
    Column("iou", "mask IoU", 3),
    Column("forward", "UNet rows forward", 0),
    Column("backward", "backward", 0),
    Column("seconds", "seconds"),
)
BY_KIND = (COLUMNS[0], COLUMNS[3])


class Item(NamedTuple):
    """One result of one row."""

    case: Any  # which edit, the same in all rows
    kind: str
    result: dict[str, Any]


Rows = dict[str, list[Item]]  # by label


def values(row: list[Item], column: Column, kind: str | None = None) -> Values:
    """A row's figures by case, of one kind or all (None); those not measured are left out."""
    return {
        item.case: column.scale * float(item.result[column.name])
        for item in row
        if kind in (None, item.kind) and item.result.get(column.name) is not None
    }


def kinds_of(rows: Rows) -> list[str]:
    """The kinds of edit that occur, in the order in which they do."""
    return list(dict.fromkeys(item.kind for row in rows.values() for item in row))


def shown(figure: Estimate | None, digits: int, sign: str = "") -> str:
    """ "19.4 [18.1, 20.6]"; a dash for what there is none of."""
    if figure is None or math.isnan(figure.mean):
        return "–"
    mean = f"{figure.mean:{sign}.{digits}f}"
    if math.isnan(figure.low) or figure.low == figure.high:
        return mean
    return f"{mean} [{figure.low:{sign}.{digits}f}, {figure.high:{sign}.{digits}f}]"


def report(rows: Rows, than: str, means: dict[int, torch.Tensor] | None = None) -> str:
    """The tables in Markdown: by kind; every column; the differences to the row `than`; where there
    are features, the distances of sets. means: of real pictures by class, for CSFID."""
    others = {label: row for label, row in rows.items() if label != than}
    parts = [_by_kind(rows, column, than) for column in BY_KIND]
    parts.append(_all_columns(rows, "mean [95 % interval]", {}))
    if than in rows:
        parts.append(_all_columns(others, f"difference to {than}", {than: rows[than]}))
    if any("features" in item.result for row in rows.values() for item in row):
        headings = ["Fréchet distance to the pictures", "CSFID"]
        parts.append(markdown("of all edits", headings, _sets(rows, means)))
    return "\n\n".join(parts)


def _sets(rows: Rows, means: dict[int, torch.Tensor] | None) -> dict[str, list[str]]:
    """The figures that are no mean over edits, of the rows that have features."""
    cells = {}
    for label, row in rows.items():
        results = [item.result for item in row if "features" in item.result]
        if not results:
            cells[label] = ["not measured", "not measured"]
            continue
        made, before = (
            torch.stack([unpacked(result[name]) for result in results])
            for name in ("features", "features_before")
        )
        targets = [result["classes"][1] for result in results if "classes" in result]
        cells[label] = [
            f"{frechet(made, before):.2f}" if len(results) > 1 else "–",
            f"{csfid(made, targets, means):.2f}" if targets and means else "not measured",
        ]
    return cells


def _by_kind(rows: Rows, column: Column, than: str) -> str:
    """A table of one column: of each kind, of all, and the difference to a row."""
    kinds, reference = kinds_of(rows), values(rows.get(than, []), column)
    cells = {}
    for label, row in rows.items():
        each = [estimate([*values(row, column, kind).values()]) for kind in kinds]
        whole = values(row, column)
        other = None if label == than else difference(whole, reference)
        cells[label] = [
            str(len(row)),
            *("–" if e is None else f"{e.mean:.{column.digits}f}" for e in each),
            shown(estimate([*whole.values()]), column.digits),
            shown(other, column.digits, "+"),
        ]
    headings = ["edits", *kinds, "all kinds", f"less {than}'s"]
    return markdown(column.heading, headings, cells)


def _all_columns(rows: Rows, corner: str, than: Rows) -> str:
    """A table of every column: the means, or the differences to the one row of `than`."""
    cells: dict[str, list[str]] = {label: [] for label in rows}
    for column in COLUMNS:
        found = {label: values(row, column) for label, row in rows.items()}
        reference = [values(row, column) for row in than.values()]
        missing = "–" if any(found.values()) else "not measured"
        for label, row in found.items():
            figure = difference(row, *reference) if than else estimate([*row.values()])
            cell = shown(figure, column.digits, "+" if than else "")
            cells[label].append(cell if row else missing)
    return markdown(corner, [column.heading for column in COLUMNS], cells)


def markdown(corner: str, headings: Sequence[str], rows: dict[str, list[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {corner} | {' | '.join(headings)} |", f"|---|{'---|' * len(headings)}"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def write_csv(path: Path, rows: Rows, than: str, columns: Sequence[Column] = COLUMNS) -> None:
    """A line a row and kind (and all of them): the number of edits, and of every column the mean,
    the interval, and the difference to `than` with its own."""
    parts = ("mean", "low", "high", "difference", "difference_low", "difference_high")
    heads = [f"{column.name}_{part}" for column in columns for part in parts]
    lines: list[list[Any]] = [["row", "kind", "edits", *heads]]
    for label, row in rows.items():
        for kind in (*kinds_of(rows), None):
            cells: list[Any] = []
            for column in columns:
                own = values(row, column, kind)
                other = values(rows.get(than, []), column, kind)
                for figure in (estimate([*own.values()]), difference(own, other)):
                    cells += figure or ("", "", "")
            number = sum(kind in (None, item.kind) for item in row)
            lines.append([label, kind or "all", number, *cells])
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
