"""Masks: where an edit may show. After each step the rest is put back on the inverted trajectory.

    z_{t-1} <- M · z_{t-1} + (1 - M) · z*_{t-1}

`LocalBlend` finds M in the attention of the prompt's own words while the walk goes (Prompt-to-
Prompt's local blending, here without a source prompt); `FixedMask` is given it.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention import Control
from ..sampling import Rows
from .controls import Record, rows_of


def blend(z: Tensor, pivot: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is 1 the latent, to the bit, where it is 0 the pivot, between in between."""
    return torch.lerp(pivot, z, mask.to(z).expand_as(z))


def attention_mask(maps: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Maps of attention (b, h, w) -> a mask of zeros and ones (b, 1, height, width).

    Prompt-to-Prompt's rule: 3×3 maxima, to the latent's size, relative to the largest value.
    """
    maps = F.max_pool2d(maps[:, None], 3, stride=1, padding=1)
    maps = F.interpolate(maps, size=size, mode="bilinear")
    return (maps / maps.amax(dim=(2, 3), keepdim=True) > threshold).float()


@dataclass
class FixedMask:
    """Blends with a mask (1, 1, h, w) that is known beforehand, at every step."""

    trajectory: Tensor  # z*_0 … z*_T'
    mask: Tensor

    def after(self, k: int, z: Tensor) -> Tensor:
        return blend(z, self.trajectory[k : k + 1], self.mask)


@dataclass
class LocalBlend:
    """Blends where the focus words' attention, summed over the steps so far, is above a threshold.

    It is both halves of one rule: `control` listens to the target branch during a step's call,
    `after` blends once the step is made. It begins when a fifth of the steps are done.
    """

    trajectory: Tensor  # z*_0 … z*_T'
    tokens: list[int]  # the focus words' positions among the 77
    level: int  # of the UNet whose maps are summed
    threshold: float = 0.3
    records: list[Record] = field(default_factory=list, init=False)
    mask: Tensor | None = field(default=None, init=False)  # the last one used, (1, 1, h, w)

    def control(self, k: int, rows: Rows) -> Control:
        record = Record(self.level, rows_of("target", rows), self.tokens)
        self.records.append(record)
        return record

    def after(self, k: int, z: Tensor) -> Tensor:
        steps = len(self.trajectory) - 1
        if len(self.records) <= round(0.2 * steps):
            return z
        maps = sum(record.total for record in self.records)
        self.mask = attention_mask(maps, z.shape[-2:], self.threshold)
        return blend(z, self.trajectory[k : k + 1], self.mask)
