"""Attention controls: recording cross-attention and re-weighting it, and when a control acts.

Each is made for one call of the UNet, from the step k and the batch's rows (see `sampling.py`): it
names the layers that it `wants` and is called with their probabilities (see `attention.py`). A
gate is the part of the steps on which a control acts, as the fraction of the steps that are done: a
number f stands for [0, f), a pair (a, b) for [a, b); by word, {"default": 0.8, "cat": (0.2, 0.5)}.
A step that a gate ends within is still in it, where the original code has already shut it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from einops import reduce
from torch import Tensor

from ..core.attention import QKV, Control, Place
from ..core.sampling import Branches, ControlAt
from ..core.text import LENGTH
from ..settings import DEFAULT, Gate, Settings, WordGates, bounds

SIDE_BY_SIDE: Branches = ("source", "target")  # the rows of Prompt-to-Prompt, by name
# (the gates that are open, M of the source, M* of the target) -> the new M*
Change = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Record(Control):
    """Adds up the attention that each token gets, over the heads and layers of one level."""

    level: int
    total: Tensor | None = field(default=None, init=False)  # (b, n, height, width)
    heads: int = field(default=0, init=False)  # of all layers that were added up

    def wants(self, place: Place) -> bool:
        return place.kind == "cross" and place.level == self.level

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        shapes = "b heads (h w) n -> b n h w"
        layer = reduce(probabilities.detach(), shapes, "sum", h=place.height)
        self.total = layer if self.total is None else self.total + layer
        self.heads += probabilities.shape[1]
        return probabilities

    @property
    def mean(self) -> Tensor:
        """(b, n, height, width) over the heads of all layers: summed over n it is 1."""
        return self.total / self.heads


@dataclass
class AttentionStore:
    """The attention that each token got while one edit was sampled, at one level of the UNet."""

    level: int
    calls: list[tuple[Record, Branches]] = field(default_factory=list)

    def control(self, k: int, rows: Branches) -> Control:
        """Records one more call."""
        record = Record(self.level)
        self.calls.append((record, rows))
        return record

    def maps(self, branch: str = "target") -> Tensor:
        """(b, 77, h, w): summed over steps, layers and heads; b: the branch's rows."""
        return sum(record.total[rows_of(branch, rows)] for record, rows in self.calls)


@dataclass(frozen=True)
class RowControl(Control):
    """Changes the maps of the target's rows, by those of the source's, and no other row."""

    rows: Branches  # of the batch, by branch
    open: Tensor  # which of the gates are
    kind: str
    change: Change
    area: float  # height · width of the largest map that is changed

    def wants(self, place: Place) -> bool:
        return place.kind == self.kind and place.height * place.width <= self.area

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        source, target = (rows_of(branch, self.rows) for branch in SIDE_BY_SIDE)
        new = self.change(self.open, probabilities[source], probabilities[target])
        return probabilities.index_copy(0, torch.tensor(target, device=new.device), new)


def gated(gates: Tensor, steps: int, kind: str, change: Change, area=math.inf) -> ControlAt:
    """A change of rows on those of T' steps on which any of the gates (…, 2) is open."""

    def at(k: int, rows: Branches) -> RowControl | None:
        now = opened(gates, k, steps)
        return RowControl(rows, now, kind, change, area) if now.any() else None

    return at


def reweight(factors: Tensor, gates: Tensor, steps: int) -> ControlAt:
    """M*_n = c_n M_n, Prompt-to-Prompt's fader: multiplies the attention that tokens get by factors
    (77,) while their gates (77, 2) are open, and leaves the others' as it is. steps: T'."""
    acts = gates * factors.ne(1)[:, None]  # [0, 0) is never open
    return gated(acts, steps, "cross", lambda now, _, m: m * torch.where(now, factors, 1.0).to(m))


@dataclass(frozen=True)
class Chain(Control):
    """Several controls one after the other, each in the layers that it acts on."""

    controls: tuple[Control, ...]

    def inputs(self, q: Tensor, k: Tensor, v: Tensor, place: Place) -> QKV:
        for control in self.controls:
            q, k, v = control.inputs(q, k, v, place)
        return q, k, v

    def wants(self, place: Place) -> bool:
        return any(control.wants(place) for control in self.controls)

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        for control in self.controls:
            if control.wants(place):
                probabilities = control(probabilities, place)
        return probabilities


def chained(controls: list[ControlAt]) -> ControlAt | None:
    """Several controls as one; None if there are none. Each may be None on some steps."""

    def at(k: int, rows: Branches) -> Control | None:
        made = (control(k, rows) for control in controls)
        here = tuple(control for control in made if control is not None)
        return Chain(here) if here else None

    return at if controls else None


def rows_of(branch: str, rows: Branches) -> list[int]:
    """The rows of the batch that belong to a branch."""
    return [i for i, name in enumerate(rows) if name == branch]


def interval(gate: Gate) -> Tensor:
    """The [a, b) of a gate, (2,). Raises InputError unless 0 ≤ a ≤ b ≤ 1."""
    # in float64, where a step's fraction and the same fraction written down are equal
    return torch.tensor(bounds("a gate", gate), dtype=torch.float64, device="cpu")


def token_gates(gates: WordGates, find: Callable[[str], list[int]]) -> Tensor:
    """(77, 2): the gate of each token of a prompt, from one for all or by word. find: phrase -> its
    positions in the prompt. Tokens that no phrase names have the "default", else the settings'."""
    by_word = dict(gates) if isinstance(gates, Mapping) else {DEFAULT: gates}
    table = interval(by_word.pop(DEFAULT, Settings.cross_replace)).repeat(LENGTH, 1)
    for phrase, gate in by_word.items():
        table[find(phrase)] = interval(gate)
    return table


def opened(gates: Tensor, k: int, steps: int) -> Tensor:
    """The gates (…, 2) that are open on step k of T' steps, (…)."""
    progress = (steps - k) / steps
    return (gates[..., 0] <= progress) & (progress < gates[..., 1])
