"""Curves as SVG that stands in a page: axes with labels, names at the curves' ends, no legend.

Colours and widths are the page's style sheet's, by the class of a curve, so that a drawing suits
light and dark alike. All lengths are in the drawing's own units, of which it has WIDTH × HEIGHT.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 520, 300
LEFT, TOP, BOTTOM = 58, 30, 48  # margins
NAMED, PLAIN = 118, 16  # on the right, with names and without
SAMPLE = 20  # of a curve before its name
LINE = 17  # between names that would lie on one another
TICKS = 5  # about so many an axis


class Curve(NamedTuple):
    """Points under a name."""

    name: str
    kind: str  # its class in the style sheet
    x: Sequence[float]
    y: Sequence[float]


class Axes(NamedTuple):
    """Names of the axes, and how they are drawn."""

    x: str
    y: str
    falling: bool = False  # x falls from left to right
    logarithmic: bool = False  # y
    x_ticks: Sequence[float] = ()


class Scale(NamedTuple):
    """Numbers to places along an axis."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, number: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            number, low, high = (math.log10(max(x, self.low)) for x in (number, low, high))
        share = (number - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def x_scale(curves: Sequence[Curve], axes: Axes) -> Scale:
    """The places of a drawing's x, also for what follows a slider along it."""
    every = [x for curve in curves for x in curve.x]
    right = WIDTH - (NAMED if any(curve.name for curve in curves) else PLAIN)
    ends = (right, LEFT) if axes.falling else (LEFT, right)
    return Scale(min(every), max(every), *ends)


def y_scale(curves: Sequence[Curve], axes: Axes) -> Scale:
    """The places of a drawing's y between two round numbers; from zero if that is near."""
    every = [y for curve in curves for y in curve.y if math.isfinite(y)]
    low, high = min(every), max(every)
    if axes.logarithmic:
        low = min((y for y in every if y > 0), default=1.0)
        high = max(high, low)
        low, *_, high = round_numbers(low, high)
    else:
        low = 0.0 if 0 <= low < 0.5 * high else low
        high = high if high > low else low + 1
        step = step_of(low, high)
        low, high = step * math.floor(low / step), step * math.ceil(high / step)
    return Scale(low, high, HEIGHT - BOTTOM, TOP, axes.logarithmic)


def step_of(low: float, high: float) -> float:
    """The round number, 1, 2 or 5 of some decade, that parts a span into about TICKS."""
    raw = (high - low) / TICKS or 1.0
    decade = 10 ** math.floor(math.log10(raw))
    return decade * next(m for m in (1, 2, 5, 10) if m * decade >= raw * 0.999)


def round_numbers(low: float, high: float) -> list[float]:
    """Those of 1, 2 and 5 of each decade that lie from low to high, and one on either side."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    numbers = [float(f"{m}e{e}") for e in range(first, last + 1) for m in (1, 2, 5)]
    start = max(i for i, number in enumerate(numbers) if number <= low)
    end = min(i for i, number in enumerate(numbers) if number >= high)
    return numbers[start : max(end, start + 1) + 1]


def ticks(scale: Scale) -> list[float]:
    """The round numbers along a scale."""
    if scale.logarithmic:
        numbers = round_numbers(scale.low, scale.high)
        decades = [x for x in numbers if f"{x:e}".startswith("1")]
        return decades if len(numbers) > TICKS + 3 else numbers
    step = step_of(scale.low, scale.high)
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def written(number: float) -> str:
    """A tick's number."""
    return f"{number:g}".replace("-", "−")


def apart(wanted: Sequence[float]) -> list[float]:
    """The heights of names near those wanted, none on another."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = dict[int, float]()
    for before, i in zip([None, *order], order, strict=False):
        places[i] = wanted[i] if before is None else max(wanted[i], places[before] + LINE)
    beyond = max(0.0, max(places.values()) - (HEIGHT - BOTTOM + 4))  # the lowest stays above x
    for i in reversed(order):
        below = [places[j] for j in order[order.index(i) + 1 :]]
        places[i] = min(places[i], (min(below) - LINE) if below else places[i] - beyond)
    return [places[i] for i in range(len(wanted))]


def draw(name: str, title: str, curves: Sequence[Curve], axes: Axes) -> str:
    """An SVG. name: its id, by which a slider moves its marker; title: what it shows, in words."""
    x, y = x_scale(curves, axes), y_scale(curves, axes)
    right, floor = max(x.start, x.end), HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>']
    for number in ticks(y):
        at = y(number)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        label = written(number)
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4}" text-anchor="end">'
                     f"{label}</text>")  # fmt: skip
    for number in (tick for tick in axes.x_ticks or ticks(x) if x.low <= tick <= x.high):
        label = f'<text class="tick" x="{x(number)}" y="{floor + 18}" text-anchor="middle">'
        parts.append(f"{label}{written(number)}</text>")
    middle = (LEFT + right) / 2
    parts.append(f'<text class="title" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">'
                 f"{escape(axes.x)}</text>")  # fmt: skip
    parts.append(f'<text class="title" x="0" y="14">{escape(axes.y)}</text>')
    parts.append(f'<line class="marker" x1="0" x2="0" y1="{TOP}" y2="{floor}"/>')
    ends = []
    for curve in curves:
        points = [(x(a), y(b)) for a, b in zip(curve.x, curve.y, strict=True) if math.isfinite(b)]
        path = " ".join(f"{a},{b}" for a, b in points)
        parts.append(f'<polyline class="curve {curve.kind}" points="{path}"/>')
        if len(points) <= 16:
            dots = (f'<circle cx="{a}" cy="{b}" r="3.2"/>' for a, b in points)
            parts.append(f'<g class="dots {curve.kind}">{"".join(dots)}</g>')
        ends.append(max(points, key=lambda point: point[0])[1] if points else TOP)
    for curve, at in zip(curves, apart(ends), strict=True):
        if curve.name:
            start, end, height = right + 8, right + 8 + SAMPLE, round(at, 1)
            parts.append(f'<line class="curve {curve.kind}" x1="{start}" x2="{end}" '
                         f'y1="{height}" y2="{height}"/><text class="name {curve.kind}" '
                         f'x="{end + 6}" y="{height + 4}">{escape(curve.name)}</text>')  # fmt: skip
    head = f'<svg class="chart" id="{name}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    return f'{head} aria-label="{escape(title)}">{"".join(parts)}</svg>'
