"""A whole trajectory with a perfect denoiser: what DDIM does when the network makes no error."""

import pytest
import torch
from torch import Tensor

from ptinv.core import ddim

MEAN, DEVIATION = 2.0, 0.5


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def perfect_eps(z: Tensor, alpha: float) -> Tensor:
    """E[ε | z_t], what a network would learn from data whose elements are N(MEAN, DEVIATION²).

    z_t is Gaussian too, with mean √ᾱ MEAN and variance ᾱ DEVIATION² + 1-ᾱ; its covariance with ε
    is √(1-ᾱ).
    """
    variance = alpha * DEVIATION**2 + 1 - alpha
    return (1 - alpha) ** 0.5 * (z - alpha**0.5 * MEAN) / variance


def invert(z: Tensor, schedule: list[ddim.Timestep]) -> Tensor:
    for timestep in schedule:
        z = ddim.step(
            z, perfect_eps(z, timestep.alpha_from), timestep.alpha_to, timestep.alpha_from
        )
    return z


def sample(z: Tensor, schedule: list[ddim.Timestep]) -> Tensor:
    for timestep in reversed(schedule):
        z = ddim.step(
            z, perfect_eps(z, timestep.alpha_from), timestep.alpha_from, timestep.alpha_to
        )
    return z


def test_inverting_and_sampling_again_errs_less_the_more_steps():
    """Five times the steps, about a fifth of the error: DDIM is a first-order method."""
    data = MEAN + DEVIATION * normal(1000)
    errors = []
    for steps in (10, 50, 250):
        schedule = ddim.schedule(steps)
        errors.append((sample(invert(data, schedule), schedule) - data).abs().max().item())
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    assert errors[2] < 0.1 * DEVIATION


def test_inverting_data_gives_noise():
    noise = invert(MEAN + DEVIATION * normal(20_000), ddim.schedule(250))
    # at the top ᾱ is not quite 0: a trace of the data is left there
    trace = ddim.schedule(250)[-1].alpha_from ** 0.5 * MEAN
    assert noise.mean().item() == pytest.approx(trace, abs=0.03)
    assert noise.std().item() == pytest.approx(1, abs=0.03)


def test_sampling_from_noise_gives_data():
    schedule = ddim.schedule(250)
    data = sample(
        ddim.add_noise(torch.tensor(MEAN), normal(20_000), schedule[-1].alpha_from), schedule
    )
    assert data.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert data.std().item() == pytest.approx(DEVIATION, abs=0.03)


def test_ancestral_sampling_gives_the_same_data():
    schedule = ddim.schedule(250)
    z = ddim.add_noise(torch.tensor(MEAN), normal(20_000), schedule[-1].alpha_from)
    for timestep in reversed(schedule):
        ends, fresh = (timestep.alpha_from, timestep.alpha_to), normal(20_000, seed=timestep.k)
        z = ddim.step(
            z, perfect_eps(z, timestep.alpha_from), *ends, ddim.ancestral_sigma(*ends), fresh
        )
    assert z.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert z.std().item() == pytest.approx(DEVIATION, abs=0.03)
