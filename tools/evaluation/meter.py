"""Cost of an edit: seconds, and the rows that the UNet is run for, forward and backward."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

import ptinv


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
    """Measures what happens between `with` and its end. `progress` also tells the stages apart."""

    def __init__(self, model: ptinv.StableDiffusion):
        self.model = model
        self.forward = self.backward = 0
        self.beforehand = Cost()  # of all loops but the sampling

    def __enter__(self) -> "Meter":
        self.hook = self.model.unet.register_forward_hook(self._count)
        self.begun = self._clock()
        return self

    def __exit__(self, *_) -> None:
        self.hook.remove()

    def so_far(self) -> Cost:
        """The cost since `with`."""
        return Cost(self._clock() - self.begun, self.forward, self.backward)

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

    def _count(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        rows = len(output)
        self.forward += rows
        if output.requires_grad:  # the gradient comes by later, once for each time that it is asked
            output.register_hook(lambda gradient: self._count_backward(rows))

    def _count_backward(self, rows: int) -> None:
        self.backward += rows
