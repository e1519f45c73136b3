"""Noise instead of an inversion: the forward process of Eq. 1, the paper's first answer (§3.2).

Noising forgets the picture: sampled back, it becomes another one that shares its broad strokes.
SDEdit (arXiv 2108.01073) makes a virtue of that. A trajectory is made all the same, so that masks,
interpolation (Eq. 10) and low-frequency guidance work on it as on any other:

    naive noising, SDEdit                     one noise for all steps
    ILVR, edit-friendly DDPM inversion        a noise of its own for each step
"""

import numpy as np
import torch
from torch import Tensor

from .. import ddim
from ..ddim import Rung
from ..sampling import NoiseAt


def noised(z0: Tensor, rungs: list[Rung], noise: NoiseAt) -> Tensor:
    """Eq. 1 at every rung: z_0 (b, c, h, w) -> z_0, z_1, … z_T' as (T'+1, b, c, h, w)."""
    upwards = (ddim.add_noise(z0, noise(rung.k).to(z0), rung.alpha) for rung in rungs)
    return torch.stack([z0, *upwards])


def fresh_noise(seed: int, stream: int, shape: tuple[int, ...]) -> NoiseAt:
    """A noise of its own for each rung, whatever the order in which they are asked for.

    Streams of one seed are independent of each other.
    """

    def at(k: int) -> Tensor:
        (mixed,) = np.random.SeedSequence((seed, stream, k)).generate_state(1, np.uint64)
        return torch.randn(shape, generator=torch.Generator().manual_seed(int(mixed >> 1)))

    return at
