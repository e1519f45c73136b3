"""The cost of an edit: the rows that the UNet is run for, forward and backward.

One row is one latent at one timestep under one embedding. It is what an edit's time is made of, and
the same on every machine.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .core.model import StableDiffusion


@dataclass
class Rows:
    """So many rows so far; a gradient counts each time that it comes by."""

    forward: int = 0
    backward: int = 0

    def __str__(self) -> str:
        return f"{self.forward} UNet rows forward, {self.backward} backward"

    def _came_by(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


def counted(model: StableDiffusion) -> tuple[StableDiffusion, Rows]:
    """A model of the same networks, and the rows that it predicts."""
    rows = Rows()

    class Counted(type(model)):
        def predict_noise(self, *given: Any, **named: Any) -> Tensor:
            eps = super().predict_noise(*given, **named)
            rows.forward += len(eps)
            if eps.requires_grad:
                eps.register_hook(rows._came_by)
            return eps

    return Counted(**vars(model)), rows
