"""The arithmetic of diffusion, one provable sentence a test; reads from top to bottom.

ᾱ is the share of the picture's energy that is left; ε the noise, or a prediction of it. Most tests
are in float64, where an algebraic identity holds to 1e-12 and nothing hides behind a tolerance.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from data.fill import draw
from torch import Tensor

from ptinv.core import ddim

with np.load(Path(__file__).parents[1] / "data" / "golden_sd14.npz") as file:
    GOLDEN = {name: torch.from_numpy(file[name]) for name in file if name.startswith("ddim.")}


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def random_alphas(count: int, seed: int = 0) -> list[float]:
    table = ddim.alphas_cumprod()
    generator = torch.Generator().manual_seed(seed)
    return table[torch.randint(len(table), (count,), generator=generator)].tolist()


def assert_close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# The schedule


def test_alphas_are_those_of_stable_diffusion():
    """The picture fades monotonically, from 99.9 % of its energy to half a percent."""
    table = ddim.alphas_cumprod()
    assert_close(table, GOLDEN["ddim.alphas_cumprod"], 1e-6)
    assert (table.diff() < 0).all()
    assert table[0].item() == pytest.approx(0.99915)
    assert table[-1].item() == pytest.approx(0.0046601)


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_timesteps_are_those_of_stable_diffusion(steps):
    """Evenly spaced, noisiest first, always ending at 1."""
    assert ddim.timesteps(steps) == GOLDEN[f"ddim.timesteps.{steps}"].tolist()


def test_from_1_to_500_steps_stay_within_the_schedule():
    for steps in range(1, 501):
        visited = ddim.timesteps(steps)
        assert len(visited) == steps
        assert visited[-1] == 1
        assert visited[0] < ddim.TRAIN_STEPS
    assert ddim.timesteps(334)[:2] == [667, 665]


@pytest.mark.parametrize("steps", [-1, 0, 501])
def test_any_other_number_of_steps_is_refused(steps):
    with pytest.raises(ValueError, match=str(steps)):
        ddim.timesteps(steps)
    with pytest.raises(ValueError, match="steps"):
        ddim.schedule(steps)


def test_a_schedule_has_a_timestep_for_each_step_and_each_begins_where_the_one_before_ends():
    schedule = ddim.schedule(50)
    table = ddim.alphas_cumprod().tolist()
    assert [timestep.k for timestep in schedule] == list(range(1, 51))
    assert [timestep.t for timestep in reversed(schedule)] == ddim.timesteps(50)
    assert [timestep.alpha_from for timestep in schedule] == [
        table[timestep.t] for timestep in schedule
    ]
    assert [timestep.alpha_to for timestep in schedule[1:]] == [
        timestep.alpha_from for timestep in schedule[:-1]
    ]


def test_the_cleanest_timestep_begins_at_the_first_alpha_not_at_1():
    """Even the cleanest latent holds a trace of noise: Stable Diffusion never takes ᾱ to be 1."""
    assert ddim.schedule(50)[0].alpha_to == ddim.alphas_cumprod()[0].item()


def test_an_encode_ratio_of_0_8_keeps_the_cleaner_40_of_50_timesteps():
    """Inverting less than the whole way keeps more of the picture, and costs less."""
    schedule = ddim.schedule(50, encode_ratio=0.8)
    assert len(schedule) == 40
    assert schedule[-1].t == 781
    assert schedule == ddim.schedule(50)[:40]


@pytest.mark.parametrize("encode_ratio", [0, 0.001])
def test_an_encode_ratio_may_leave_no_timestep_at_all(encode_ratio):
    assert ddim.schedule(50, encode_ratio) == []


@pytest.mark.parametrize("encode_ratio", [-0.5, -0.001, 1.1, float("nan")])
def test_an_encode_ratio_outside_0_to_1_is_refused(encode_ratio):
    with pytest.raises(ValueError, match="encode ratio"):
        ddim.schedule(50, encode_ratio)


# Eq. 1: adding noise in one go, and taking it away again


def test_noise_adds_to_the_picture_so_that_energies_sum_to_1():
    """√ᾱ and √(1-ᾱ) are the legs of a right triangle: unit variance stays unit variance."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for alpha in random_alphas(10):
        picture = ddim.add_noise(one, zero, alpha)
        noise = ddim.add_noise(zero, one, alpha)
        assert_close(picture**2, alpha * one)
        assert_close(picture**2 + noise**2, one)


def test_predict_z0_undoes_add_noise():
    z0, noise = normal(2, 4, 3, 5, seed=1), normal(2, 4, 3, 5, seed=2)
    for alpha in random_alphas(10):
        assert_close(ddim.predict_z0(ddim.add_noise(z0, noise, alpha), noise, alpha), z0)


def test_an_alpha_for_each_row_equals_row_by_row():
    """Training draws another noise level for each picture of a batch."""
    alphas = ddim.alphas_cumprod()[[3, 500, 999]].double()
    a, b = normal(3, 4, 2, 5, seed=1), normal(3, 4, 2, 5, seed=2)
    for function in (ddim.add_noise, ddim.predict_z0):
        rows = [function(a[i], b[i], alphas[i].item()) for i in range(3)]
        assert torch.equal(function(a, b, alphas), torch.stack(rows))


# Eqs. 4 and 6: the DDIM step, down and up


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("ddim.step.")])
def test_a_step_down_is_that_of_stable_diffusion(name):
    *_, steps, t = name.split(".")
    timestep = next(timestep for timestep in ddim.schedule(int(steps)) if timestep.t == int(t))
    z, eps = (torch.from_numpy(draw(f"golden/ddim_{x}", (1, 4, 8, 8))) for x in ("z", "eps"))
    # float32, whose mantissa has 24 bits, on both sides: a few roundings of 6e-8
    assert_close(ddim.step(z, eps, timestep.alpha_from, timestep.alpha_to), GOLDEN[name], 1e-6)


def test_a_step_keeps_the_picture_and_the_noise_and_changes_their_mixture():
    z0, noise = normal(1, 4, 3, 5, seed=1), normal(1, 4, 3, 5, seed=2)
    for here, there in zip(random_alphas(10, seed=1), random_alphas(10, seed=2), strict=True):
        z = ddim.add_noise(z0, noise, here)
        assert_close(ddim.step(z, noise, here, there), ddim.add_noise(z0, noise, there))


def test_a_step_and_its_inverse_are_the_identity_for_the_same_eps():
    """So all the error of an inversion comes from ε being another at the step's other end."""
    z, eps = normal(1, 4, 3, 5, seed=1), normal(1, 4, 3, 5, seed=2)
    for here, there in zip(random_alphas(20, seed=1), random_alphas(20, seed=2), strict=True):
        assert_close(ddim.step(ddim.step(z, eps, here, there), eps, there, here), z)


def test_two_steps_compose_to_one_for_the_same_eps():
    """So small steps only matter because ε changes along the way."""
    z, eps = normal(1, 4, 3, 5, seed=1), normal(1, 4, 3, 5, seed=2)
    for seed in range(10):
        here, between, there = random_alphas(3, seed)
        twice = ddim.step(ddim.step(z, eps, here, between), eps, between, there)
        assert_close(twice, ddim.step(z, eps, here, there))


def test_a_step_between_equal_ends_is_the_identity():
    z, eps = normal(1, 4, 3, 5, seed=1), normal(1, 4, 3, 5, seed=2)
    for alpha in random_alphas(10):
        assert_close(ddim.step(z, eps, alpha, alpha), z)


# Eq. 5: classifier-free guidance


def test_guidance_of_0_is_unconditional_and_of_1_conditional_to_the_bit():
    null, cond = normal(2, 4, 3, 5, seed=1).float(), normal(2, 4, 3, 5, seed=2).float()
    assert torch.equal(ddim.guide(null, cond, 0.0), null)
    assert torch.equal(ddim.guide(null, cond, 1.0), cond)


def test_guidance_of_7_5_goes_beyond_the_condition():
    null, cond = normal(2, 4, 3, 5, seed=1), normal(2, 4, 3, 5, seed=2)
    assert_close(ddim.guide(null, cond, 7.5), null + 7.5 * (cond - null))


@pytest.mark.parametrize("guidance", [-1.0, 0.0, 0.3, 0.5, 1.0, 7.5, 100.0])
def test_guidance_of_any_strength_leaves_equal_predictions_alone_to_the_bit(guidance):
    """A prompt that changes nothing edits nothing."""
    eps = normal(2, 4, 3, 5).float()
    assert torch.equal(ddim.guide(eps, eps.clone(), guidance), eps)


# Eq. 2: the ancestral step, which adds fresh noise


def posterior(z: Tensor, z0: Tensor, alpha_from: float, alpha_to: float) -> tuple[Tensor, float]:
    """Mean and variance of q(z_to | z_from, z_0), by Bayes' rule from Eq. 1 alone.

    Prior z_to ~ N(√ᾱ_to z_0, 1-ᾱ_to); likelihood z_from ~ N(√a z_to, 1-a), where a = ᾱ_from/ᾱ_to.
    Precisions add, and the mean is weighted by them.
    """
    a = alpha_from / alpha_to
    variance = 1 / (1 / (1 - alpha_to) + a / (1 - a))
    mean = variance * (alpha_to**0.5 * z0 / (1 - alpha_to) + a**0.5 * z / (1 - a))
    return mean, variance


def test_the_ancestral_step_has_the_mean_and_variance_of_the_true_posterior():
    """Given the true noise, it draws from what the forward process leaves open."""
    z0, noise, fresh = (normal(2, 4, 3, 5, seed=seed) for seed in range(3))
    for timestep in ddim.schedule(50):
        ends = timestep.alpha_from, timestep.alpha_to
        z = ddim.add_noise(z0, noise, timestep.alpha_from)
        sigma = ddim.ancestral_sigma(*ends)
        mean, variance = posterior(z, z0, *ends)
        assert_close(ddim.step(z, noise, *ends, sigma, torch.zeros_like(z)), mean, 1e-10)
        assert sigma**2 == pytest.approx(variance, rel=1e-10)
        assert_close(ddim.step(z, noise, *ends, sigma, fresh), mean + sigma * fresh, 1e-10)


def test_a_sigma_without_noise_is_refused():
    z = normal(1, 4, 3, 5)
    with pytest.raises(ValueError, match="needs the noise"):
        ddim.step(z, z, 0.5, 0.6, sigma=0.1)


@pytest.mark.parametrize("sigma", [-0.1, 0.64])
def test_a_sigma_outside_the_noise_at_the_destination_is_refused(sigma):
    """1-ᾱ = 0.4 of the energy is noise there, a deviation of 0.632: no more can be fresh."""
    z = normal(1, 4, 3, 5)
    with pytest.raises(ValueError, match="sigma must be between"):
        ddim.step(z, z, 0.5, 0.6, sigma=sigma, noise=z)
    ddim.step(z, z, 0.5, 0.6, sigma=0.63, noise=z)


# What the rest of the project relies on


def test_inputs_are_left_as_they_were():
    z, eps, noise = inputs = [normal(2, 4, 3, 5, seed=seed) for seed in range(3)]
    alphas = torch.tensor([0.3, 0.7], dtype=torch.float64)
    before = [x.clone() for x in (*inputs, alphas)]
    ddim.add_noise(z, noise, alphas)
    ddim.predict_z0(z, eps, alphas)
    ddim.step(z, eps, alphas, alphas)
    ddim.step(z, eps, 0.5, 0.6, sigma=0.1, noise=noise)
    ddim.guide(z, eps, 7.5)
    assert all(torch.equal(a, b) for a, b in zip((*inputs, alphas), before, strict=True))


def test_gradients_flow_through_guidance_and_step():
    """Prompt tuning differentiates the landing point of a guided step by the condition's ε."""
    z, null, cond = (normal(1, 4, 3, 5, seed=seed).requires_grad_() for seed in range(3))
    here, there, guidance = 0.3, 0.4, 7.5
    ddim.step(z, ddim.guide(null, cond, guidance), here, there).sum().backward()
    by_z = (there / here) ** 0.5
    by_eps = (1 - there) ** 0.5 - by_z * (1 - here) ** 0.5
    assert_close(z.grad, torch.full_like(z, by_z))
    assert_close(null.grad, torch.full_like(z, by_eps * (1 - guidance)))
    assert_close(cond.grad, torch.full_like(z, by_eps * guidance))
