"""The paper's tables and figures and PIE-Bench, from their cases to what is printed and drawn.

Each is run by `runner.py` into its folder, and reported once none of its items is missing.
"""

import sys
from dataclasses import replace
from pathlib import Path

import ptinv

from . import figures, paper, pie, plots, runner, tables
from .datasets import Case
from .edits import Bench, groups
from .plots import Drawing
from .variants import parse


def made(
    groups: list[runner.Group], cases: list[Case], labels: list[str], folder: Path
) -> tables.Rows | None:
    """Makes this process's share of all items; their results by label once none is missing."""
    runner.run(groups, folder)
    results = runner.results(folder)
    rows: tables.Rows = {label: [] for label in labels}
    for case, group in zip(cases, groups, strict=True):
        for label, settings in zip(labels, group.items, strict=True):
            if result := results.get(runner.key_of(settings)):
                rows[label].append(tables.Item(case.about["index"], case.kind, result))
    if missing := len(cases) * len(labels) - sum(map(len, rows.values())):
        print(f"evaluate.py: {missing} items are not made yet, or failed", file=sys.stderr)
        return None
    return rows


def table(name: str, model: ptinv.StableDiffusion, cases: list[Case], out: Path) -> None:
    """Reconstructs as one of the paper's tables: prints it, writes it, and draws it over its axis,
    if it has one."""
    rows = paper.TABLES[name]
    found = made(paper.groups(model, cases, rows), cases, [row.label for row in rows], out)
    if not found:
        return
    print(paper.report(rows, found))
    paper.write_csv(out / "table.csv", rows, found)
    if axis := paper.AXES.get(name):
        curves = {figure: paper.curves(rows, found, figure) for figure in ("psnr", "loss")}
        drawings = [Drawing(out / "figure.png", curves["psnr"], axis, "PSNR, dB")]
        if curves["loss"]:
            loss = axis, "the tuning's mean loss", True
            drawings.append(Drawing(out / "losses.png", curves["loss"], *loss))
        plotted(drawings)


def reconstructions(model: ptinv.StableDiffusion, cases: list[Case], out: Path) -> None:
    """Fig. 3: the reconstructions below their pictures."""
    labels = [row.label for row in paper.FIG3]
    if found := made(paper.groups(model, cases, paper.FIG3, out), cases, labels, out):
        sheet(cases, found, out)


def figure(name: str, bench: Bench, cases: list[Case], out: Path, means: Path | None) -> None:
    """Makes one of the paper's figures of edits. means: of real classes, for CSFID."""
    curved = name in figures.CURVES
    of_classes = figures.class_means(means) if means else None
    if curved:
        figures.check(cases, bench, of_classes)
    wanted = (figures.CURVES | figures.SHEETS)[name]
    bench = bench if curved else replace(bench, keep=out)
    variants = [parse(label) for label in wanted.labels]
    found = made(groups(bench, cases, variants), cases, wanted.labels, out)
    if not found:
        return
    if not curved:
        return sheet(cases, found, out)
    print(tables.report(found, wanted.labels[0], of_classes))
    tables.write_csv(out / "table.csv", found, wanted.labels[0])
    curves = figures.curves(wanted, found, of_classes)
    plotted([Drawing(out / "figure.png", curves, *figures.axes(of_classes))])


def pie_bench(bench: Bench, cases: list[Case], out: Path) -> None:
    """Runs PIE-Bench and prints its table."""
    groups = pie.groups_of(pie.bench_of(bench), cases)
    if found := made(groups, cases, [*pie.ENGINES, *pie.ALONE], out):
        print(f"{pie.versions()}\n\n{pie.report(found)}")
        tables.write_csv(out / "table.csv", found, "DDIM + P2P", pie.COLUMNS)


def sheet(cases: list[Case], found: tables.Rows, out: Path) -> None:
    """Draws the pictures that a run kept."""
    paths = {name: [out / item.result["file"] for item in row] for name, row in found.items()}
    figures.sheet(cases, paths).save(out / "figure.png")


def plotted(drawings: list[Drawing]) -> None:
    """Draws plots beside a table that stands without them, too."""
    try:
        for drawing in drawings:
            plots.draw(*drawing)
    except ptinv.InputError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
