"""Cost of an edit: seconds, and the rows that the UNet is run for, forward and backward."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

import ptinv
from ptinv.cost import counted


class Cost(NamedTuple):
    """One row is one latent at one timestep under one embedding."""

    seconds: float = 0.0
    forward: int = 0
    backward: int = 0

    def plus(self, other: "Cost") -> "Cost":
        """The two together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Cost") -> "Cost":
        """Difference to an earlier cost."""
        return Cost(*(a - b for a, b in zip(self, other, strict=True)))


class Meter:
    """Measures what its `model` does from here on. `progress` tells the stages apart."""

    def __init__(self, model: ptinv.StableDiffusion):
        self.model, self.rows = counted(model)
        self.beforehand = Cost()  # of all loops but the sampling
        self.begun = self._clock()

    def so_far(self) -> Cost:
        """The cost since the meter was made."""
        return Cost(self._clock() - self.begun, self.rows.forward, self.rows.backward)

    def progress(self, items: Iterable, stage: str) -> Iterator:
        """A verb's `progress`: passes the items on, and adds what is spent on them."""
        before = self.so_far()
        yield from items
        if stage != "sampling":
            self.beforehand = self.beforehand.plus(self.so_far().minus(before))

    def _clock(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()
