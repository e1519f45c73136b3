"""Growth of the cost of an edit by `pti` with the picture's area, the steps, N and the pictures.

One of them at a time; each edit is made in a process of its own, unmasked, pictures as one batch.
"""

import argparse
from collections.abc import Iterator
from functools import cache, partial
from importlib import util
from pathlib import Path
from typing import NamedTuple

from evaluation import plots

from ptinv.storage.pictures import open_picture

from .edits import PROMPT, Cost, attempted, batch_of_pti, cells, cost_of, which
from .measure import Row, in_fresh_process
from .models import Which


class Point(NamedTuple):
    """Size of an edit."""

    side: int  # of the square latent
    steps: int
    inner_steps: int  # N
    pictures: int


Curves = dict[str, list[tuple[int, Cost]]]  # by what grows: how much of it, and the cost


def axes(base: Point) -> dict[str, dict[int, Point]]:
    """Edits that differ in one thing alone, by what grows."""
    sides = [base.side * n // 4 for n in (2, 3, 4, 6)]
    return {
        "cells of the latent": {side**2: base._replace(side=side) for side in sides},
        "steps": {n * base.steps: base._replace(steps=n * base.steps) for n in (1, 2, 4)},
        "N": {n: base._replace(inner_steps=n) for n in (1, 2, 4)},
        "pictures": {n: base._replace(pictures=n) for n in (1, 2, 4)},
    }


def growth(args: argparse.Namespace) -> Iterator[Row | str]:
    """A row for each edit, and a plot of all."""
    drawn = args.output and util.find_spec("matplotlib")
    if drawn:
        plots.check(args.output)
    model = which(args)
    base = Point(args.size or in_fresh_process(own_side, model), args.steps, 1, 1)
    said = ("latents of side {}", "{} steps", "N = {}", "{} picture")
    yield f"Each but for what grows: {', '.join(map(str.format, said, base))}."
    measured = cache(partial(in_fresh_process, cost_at, model, args.picture))
    curves: Curves = {}
    for name, points in axes(base).items():
        for amount, point in points.items():
            cost = attempted(partial(measured, point))
            if isinstance(cost, Cost):
                curves.setdefault(name, []).append((amount, cost))
            yield {"what grows": name, "to": amount, **cells(cost, point.pictures)}
    if drawn:
        draw(args.output, curves)
    elif args.output:
        yield "No plot: it needs matplotlib, pip install -e '.[plots]'."


def own_side(which: Which) -> int:
    return which.open().unet.config.trained_size


def cost_at(which: Which, path: Path, point: Point) -> Cost:
    """The cost of an edit of that size, the model's opening left out."""
    model = which._replace(size=point.side).open()
    picture = open_picture(path).resize((point.side * model.pixels_per_cell,) * 2)
    how = dict(pictures=[picture] * point.pictures, prompt=PROMPT, inner_steps=point.inner_steps)
    return cost_of(model, partial(batch_of_pti, **{**how, "steps": point.steps}), repeats=1)


def draw(path: Path, curves: Curves) -> None:
    """Seconds above, memory below, a column for all that grows. Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, max(1, len(curves)), sharey="row", squeeze=False)
    for column, (name, curve) in enumerate(curves.items()):
        amounts = [amount for amount, _ in curve]
        rows[0, column].plot(amounts, [cost.seconds for _, cost in curve], marker="o")
        rows[1, column].plot(amounts, [cost.added for _, cost in curve], marker="o")
        rows[1, column].set_xlabel(name)
    for axis, label in zip(rows[:, 0], ("seconds", "memory added at the peak, GB"), strict=True):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    for axis in rows.flat:
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    figure.savefig(path)
