"""Curves as PNG, by matplotlib, which the extra `plots` brings."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ptinv


class Curve(NamedTuple):
    """A method over its strengths: a point and a note for each."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    notes: Sequence[str] = ()


class Drawing(NamedTuple):
    """Arguments of `draw`."""

    path: Path
    curves: Sequence[Curve]
    x: str
    y: str
    logarithmic: bool = False


def check(path: Path) -> None:
    """Raises InputError where there is no matplotlib, and for a path of something else."""
    if path.suffix.lower() != ".png":
        raise ptinv.InputError(f"a plot is a PNG; name it {path.stem or 'plot'}.png, not {path}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ptinv.InputError("plots need an extra: pip install -e '.[plots]'") from error


def draw(path: Path, curves: Sequence[Curve], x: str, y: str, logarithmic: bool = False) -> None:
    """Draws curves with their points' notes; one of a single point is a mark. Raises InputError as
    `check`, and OSError where it cannot write."""
    check(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for i, curve in enumerate(curves):
        mark = "osD^vPX*"[i % 8]
        axes.plot(curve.x, curve.y, marker=mark, markersize=6, linewidth=1.2, label=curve.label)
        for at in zip(curve.x, curve.y, curve.notes, strict=False):
            axes.annotate(at[2], at[:2], xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path)
