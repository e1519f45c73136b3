"""Attention controls: what an edit does to cross-attention, or learns from it.

Each is made for one call of the UNet, from the rung k and the batch's rows (see `sampling.py`).
"""

from dataclasses import dataclass, field

import torch
from einops import rearrange, reduce
from torch import Tensor

from ..attention import Control, Place
from ..sampling import ControlAt, Rows
from .gates import opened


@dataclass
class Record:
    """Adds up the attention that each token gets, over the heads and layers of one level."""

    level: int
    total: Tensor | None = field(default=None, init=False)  # (b, n, height, width)
    heads: int = field(default=0, init=False)  # of all layers that were added up

    def wants(self, place: Place) -> bool:
        return place.kind == "cross" and place.level == self.level

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        seen = reduce(probabilities.detach(), "b heads p n -> b n p", "sum")
        seen = rearrange(seen, "b n (h w) -> b n h w", h=place.height)
        self.total = seen if self.total is None else self.total + seen
        self.heads += probabilities.shape[1]
        return probabilities

    @property
    def mean(self) -> Tensor:
        """(b, n, height, width) over the heads of all layers: summed over n it is 1."""
        return self.total / self.heads


@dataclass(frozen=True)
class Reweight:
    """M*_n = c_n M_n, Prompt-to-Prompt's fader: multiplies the attention that tokens get.

    Not normalised again, or a factor on one word would act on all.
    """

    rows: list[int]
    factors: Tensor  # c, (77,)

    def wants(self, place: Place) -> bool:
        return place.kind == "cross" and bool(self.rows) and bool(self.factors.ne(1).any())

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        factors = torch.ones(len(probabilities), 1, 1, len(self.factors))
        factors[self.rows] = self.factors
        return probabilities * factors.to(probabilities)


@dataclass(frozen=True)
class Chain:
    """Several controls one after the other, each where it wants to be."""

    controls: tuple[Control, ...]

    def wants(self, place: Place) -> bool:
        return any(control.wants(place) for control in self.controls)

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        for control in self.controls:
            if control.wants(place):
                probabilities = control(probabilities, place)
        return probabilities


def rows_of(branch: str, rows: Rows) -> list[int]:
    """Which rows of the batch belong to a branch."""
    return [i for i, name in enumerate(rows) if name == branch]


def chained(controls: list[ControlAt]) -> ControlAt | None:
    """Several controls as one; None if there are none."""
    if not controls:
        return None
    return lambda k, rows: Chain(tuple(control(k, rows) for control in controls))


def reweight(
    factors: Tensor, gates: Tensor | None = None, steps: int = 1, branch: str = "target"
) -> ControlAt:
    """Re-weighting by (77,) factors on one branch, each while its gate is open.

    gates: (77, 2), see `gates.token_gates`; none: always. steps: of the walk, T'.
    """

    def at(k: int, rows: Rows) -> Reweight:
        now = factors if gates is None else torch.where(opened(gates, k, steps), factors, 1.0)
        return Reweight(rows_of(branch, rows), now)

    return at
