"""What becomes of the latent that a step has reached: rules that hold it near the picture.

Most are made from the inverted trajectory z*_0 … z*_T', (T'+1, b, c, h, w).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sampling import After, Step
from .masks import Mask


def blended(
    background: After, mask: Mask, seen: Callable[[Tensor], None] = lambda mask: None
) -> After:
    """z_{k-1} <- M · z_{k-1} + (1 - M) · background: local blending, and DiffEdit's decoding.

    background: `pinned(trajectory)`, or `of_row(i)` for a branch that is sampled beside the others.
    Exact where the mask is 1 and where it is 0. Each mask is also shown to `seen`.
    """

    def rule(step: Step) -> Tensor:
        m = mask(step.rung.k)
        if m is None:
            return step.z
        seen(m)
        behind = background(step).expand_as(step.z)
        return torch.lerp(behind, step.z, m.to(step.z).expand_as(step.z))

    return rule


def pinned(trajectory: Tensor) -> After:
    """z*_{k-1}, wherever the step has led."""
    return lambda step: trajectory[step.rung.k - 1]


def of_row(i: int) -> After:
    """One row of the latent, (1, c, h, w)."""
    return lambda step: step.z[i : i + 1]


def interpolated(trajectory: Tensor, eta: float) -> After:
    """Eq. 10: η z_{k-1} + (1-η) z*_{k-1}, which mixes spatially; the paper's rejected alternative.

    η = 0 stays on the trajectory, η = 1 lets the walk alone.
    """
    return lambda step: torch.lerp(trajectory[step.rung.k - 1], step.z, eta)


def low_frequencies(trajectory: Tensor, width: int) -> After:
    """ILVR (arXiv 2108.02938, eq. 8): z - φ(z) + φ(z*), φ a low-pass filter `width` cells wide.

    What is coarser than the filter comes from the picture, the rest from the walk. A width of one
    leaves the walk nothing.
    """

    def rule(step: Step) -> Tensor:
        z, pivot = step.z, trajectory[step.rung.k - 1]
        return z - low_pass(z, width) + low_pass(pivot, width)

    return rule


def low_pass(z: Tensor, width: int) -> Tensor:
    """(b, c, h, w) averaged over squares of `width` cells and drawn smooth again."""
    height, breadth = (max(1, round(side / width)) for side in z.shape[-2:])
    small = F.interpolate(z, size=(height, breadth), mode="area")
    return F.interpolate(small, size=z.shape[-2:], mode="bilinear")


def added(residuals: Tensor, rows: Sequence[int] | None = None) -> After:
    """z_{k-1} + r_k: puts back what a step misses the trajectory by (`inversion/residuals.py`).

    rows: of the latent; all of them if none are named.
    """

    def rule(step: Step) -> Tensor:
        r = residuals[step.rung.k - 1]
        if rows is None:
            return step.z + r
        at = torch.tensor(rows, device=step.z.device)
        return step.z.index_add(0, at, r.expand(len(rows), *r.shape[1:]))

    return rule
