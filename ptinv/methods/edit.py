"""One edit as the cells of the table see it: its inputs, and the tensors made of them so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..core.ddim import Timestep
from ..core.model import StableDiffusion
from ..core.sampling import Branches, ControlAt, NoiseAt, Step
from ..cost import Rows
from ..settings import Settings
from .controls import interval, opened
from .words import Words


def fresh_noise(seed: int, stream: int, shape: tuple[int, ...]) -> NoiseAt:
    """A noise of its own for each step, in whatever order; a seed's streams are independent."""

    def at(k: int) -> Tensor:
        (mixed,) = np.random.SeedSequence((seed, stream, k)).generate_state(1, np.uint64)
        g = torch.Generator("cpu").manual_seed(int(mixed) >> 1)
        return torch.randn(shape, generator=g, dtype=torch.float32, device="cpu")

    return at


@dataclass(frozen=True, eq=False)
class Edit:
    """A plain record, made by `run.prepare`. Embeddings are (1, 77, d)."""

    model: StableDiffusion
    prompt: str
    settings: Settings
    branches: Branches  # sampled side by side; the last one is the result
    schedule: list[Timestep]  # clean end first
    latent_size: tuple[int, int]  # (h, w)
    z0: Tensor | None  # the encoded picture (1, c, h, w); None for one that is generated
    empty: Tensor  # of the empty text
    null: Tensor  # ∅ in tuning and sampling: the negative prompt's, by default the empty text's
    target: Tensor  # c*, the prompt's
    source: Tensor  # of the text of the picture; the empty text's where there is none
    words: Words
    rows: Rows = field(default_factory=Rows)  # of the UNet, as far as the edit's model counts them
    controls: tuple[ControlAt, ...] = ()  # of the attention that branches share
    made: Mapping[str, Tensor] = field(default_factory=dict)  # by the stages, (T' or T'+1, 1, …)

    @property
    def trajectory(self) -> Tensor:
        """z*_0 … z*_T', (T'+1, 1, c, h, w)."""
        return self.made["trajectory"]

    @property
    def tuned(self) -> Tensor:
        """c_1 … c_T', or Null-Text Inversion's ∅_1 … ∅_T', (T', 1, 77, d)."""
        return self.made["embeddings"]

    @property
    def residuals(self) -> Tensor:
        """r_1 … r_T', (T', 1, c, h, w)."""
        return self.made["residuals"]

    def pivot(self, step: Step) -> Tensor:
        """z*_{k-1}, where a step would end if it stayed on the trajectory, (1, c, h, w)."""
        return self.trajectory[step.k - 1]

    def guidance(self, k: int) -> float:
        """ω of step k: outside `guidance_gate`, at most 1."""
        usual, gate = self.settings.guidance, interval(self.settings.guidance_gate)
        return usual if opened(gate, k, len(self.schedule)) else min(usual, 1.0)

    def noise(self, stream: int) -> NoiseAt:
        """Gaussian noise (1, c, h, w) for each step; independent streams have other numbers."""
        shape = (1, self.model.unet.config.latent_channels, *self.latent_size)
        return fresh_noise(self.settings.seed, stream, shape)
