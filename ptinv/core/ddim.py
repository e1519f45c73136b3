"""The arithmetic of diffusion: the noise schedule, the DDIM timesteps and Eqs. 1, 2, 4-6.

Everything here is a pure function of tensors and numbers; no network is needed to read or test it.

    ᾱ   share of the picture's energy left after the forward process:  z_t = √ᾱ_t z_0 + √(1-ᾱ_t) ε
    ε   the noise, or a network's prediction of it
    ω   the guidance scale: 0 is unconditional, 1 conditional, 7.5 usual for editing

The paper is Prompt Tuning Inversion (arXiv 2305.04441); DDIM is arXiv 2010.02502. Note that ω here
is the paper's: diffusers' `guidance_scale` counts alike from 1 on, but takes anything up to 1, and
so also 0, for conditional.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

TRAIN_STEPS = 1000


def alphas_cumprod() -> Tensor:
    """ᾱ_t of the "scaled linear" schedule of Stable Diffusion v1, shape (1000,), float32.

    √β grows linearly. Each training step t leaves 1 - β_t of the energy, so ᾱ_t is their product:
    0.999 at t = 0, 0.0047 at t = 999. Computed in float64 and rounded once.
    """
    ends = 0.00085**0.5, 0.012**0.5
    betas = torch.linspace(*ends, TRAIN_STEPS, dtype=torch.float64, device="cpu") ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def timesteps(steps: int) -> list[int]:
    """The `steps` timesteps that DDIM visits, noisiest first: 981, 961, …, 1 for 50.

    "Leading" spacing with an offset of one, as Stable Diffusion v1 is sampled: the noisiest is
    (steps - 1)·⌊1000 / steps⌋ + 1, well below 1000 where that division leaves much (667 for 334).
    With an offset of 0, as peers often have it, the first step of an inversion goes nowhere.
    Raises ValueError unless 1 ≤ steps ≤ 500: with more, the stride is 1 and half of it is lost.
    """
    if not 1 <= steps <= TRAIN_STEPS // 2:
        raise ValueError(f"steps must be from 1 to {TRAIN_STEPS // 2}, not {steps}")
    return [i * (TRAIN_STEPS // steps) + 1 for i in reversed(range(steps))]


class Timestep(NamedTuple):
    """One step of a DDIM trajectory, between the latents z_{k-1} (cleaner) and z_k (noisier).

    The network is evaluated at `t`, the noisier end, in both directions. In sampling that is where
    the latent is. In inversion it is the destination, as in Prompt-to-Prompt and diffusers.
    """

    k: int  # 1 … T', counted from the clean end
    t: int  # the network's timestep at z_k
    alpha_from: float  # ᾱ where the step begins: at z_k in sampling
    alpha_to: float  # ᾱ where it ends: at z_{k-1}

    @property
    def upwards(self) -> "Timestep":
        """The same step with its ends exchanged, as inversion makes it."""
        return self._replace(alpha_from=self.alpha_to, alpha_to=self.alpha_from)


def schedule(steps: int, encode_ratio: float = 1.0) -> list[Timestep]:
    """The timesteps of a trajectory, clean end first: forwards to invert, reversed to sample.

    `encode_ratio` keeps the cleaner T' = round(encode_ratio · steps) of the timesteps (peers cut
    off, and make 37 of 0.75 · 50, not 38). The ᾱ before the first is ᾱ_0, not 1 (`set_alpha_to_one
    = False` in Stable Diffusion's scheduler).
    Raises ValueError unless `encode_ratio` is from 0 (no timestep at all) to 1.
    """
    if not 0 <= encode_ratio <= 1:
        raise ValueError(f"the encode ratio must be from 0 to 1, not {encode_ratio}")
    visited = timesteps(steps)[::-1][: round(encode_ratio * steps)]
    alphas = alphas_cumprod()[[0, *visited]].tolist()  # ᾱ at z_0, z_1 … z_T'
    return [Timestep(k, t, alphas[k], alphas[k - 1]) for k, t in enumerate(visited, start=1)]


def _scales(alpha: float | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """√ᾱ and √(1-ᾱ), in `like`'s precision; an ᾱ of shape (b,) applies row by row.

    The roots are taken in float64: near the picture 1-ᾱ is a small difference of near numbers.
    """
    alpha = torch.as_tensor(alpha, dtype=torch.float64, device=like.device)
    alpha = alpha.reshape(-1, *[1] * (like.ndim - 1))
    return alpha.sqrt().to(like.dtype), (1 - alpha).sqrt().to(like.dtype)


def add_noise(z0: Tensor, noise: Tensor, alpha: float | Tensor) -> Tensor:
    """Eq. 1, the forward process in one go: z_t = √ᾱ_t z_0 + √(1-ᾱ_t) ε, for noise ε ~ N(0, 1)."""
    signal_scale, noise_scale = _scales(alpha, z0)
    return signal_scale * z0 + noise_scale * noise


def predict_z0(z: Tensor, eps: Tensor, alpha: float | Tensor) -> Tensor:
    """f_θ, Eq. 1 solved for the clean latent: z_0 = (z_t - √(1-ᾱ_t) ε) / √ᾱ_t."""
    signal_scale, noise_scale = _scales(alpha, z)
    return (z - noise_scale * eps) / signal_scale


def ancestral_sigma(alpha_from: float, alpha_to: float) -> float:
    """The σ that makes `step` the ancestral (DDPM) step of Eq. 2: the true posterior's deviation.

    DDIM, eq. 16 with η = 1: σ² = (1-ᾱ_to)/(1-ᾱ_from) · (1 - ᾱ_from/ᾱ_to).
    """
    return math.sqrt((1 - alpha_to) / (1 - alpha_from) * (1 - alpha_from / alpha_to))


def step(
    z: Tensor,
    eps: Tensor,
    alpha_from: float | Tensor,
    alpha_to: float | Tensor,
    sigma: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Moves a latent between two noise levels: Eq. 4 downwards; with its ends exchanged, Eq. 6.

    DDIM, eq. 12: z_to = √ᾱ_to f_θ(z, ε) + √(1-ᾱ_to-σ²) ε + σ·noise. With σ = 0 the same ε takes
    the step back exactly, so all the error of an inversion comes from ε changing between its ends.
    With σ = `ancestral_sigma` it is Eq. 2.
    Raises ValueError if σ is larger than the noise at the destination, or comes without noise.
    """
    z0 = predict_z0(z, eps, alpha_from)
    if sigma == 0:
        return add_noise(z0, eps, alpha_to)
    if noise is None:
        raise ValueError("a step with sigma > 0 needs the noise that it adds")
    signal_scale, noise_scale = _scales(alpha_to, z)
    share = 1 - (sigma / noise_scale) ** 2  # of the noise's variance that is left to ε
    if sigma < 0 or (share < -1e-5).any():
        raise ValueError(f"sigma must be between 0 and √(1-ᾱ) at the destination, not {sigma}")
    return signal_scale * z0 + noise_scale * share.clamp(min=0).sqrt() * eps + sigma * noise


def guide(eps_null: Tensor, eps_cond: Tensor, guidance: float) -> Tensor:
    """Eq. 5, classifier-free guidance: ε̃ = ε_∅ + ω (ε_c - ε_∅); exact at ω = 0 and at ω = 1."""
    return torch.lerp(eps_null, eps_cond, guidance)
