"""Inversions besides DDIM's: noise by Eq. 1, and residuals that make any trajectory exact."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small import OTHER_PROMPT, PROMPT

from ptinv import ddim
from ptinv.core.pti import ddim_inversion, tune
from ptinv.core.sampling import constant, deterministic, last, sample
from ptinv.methods.edit import fresh_noise
from ptinv.methods.stages import mean_step, noised, residuals, silent

SCHEDULE = ddim.schedule(10, 0.8)
SHAPE = (1, 4, 50, 100)  # of 20,000 numbers a mean strays by 0.007, a deviation by 0.005
MANY = 0.03
SHORT = ddim.schedule(6, 0.8)
ROUNDING = 1e-4  # float32's rounding, after an untrained network has carried it down five steps


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


# Eq. 1


def test_a_noised_picture_has_the_mean_and_variance_of_eq_1_at_every_timestep():
    trajectory = noised(torch.full(SHAPE, 2.0), SCHEDULE, fresh_noise(0, 0, SHAPE))
    assert trajectory.shape == (len(SCHEDULE) + 1, *SHAPE)
    for step in SCHEDULE:
        z = trajectory[step.k]
        assert z.mean().item() == pytest.approx(2 * step.alpha_from**0.5, abs=MANY)
        assert z.std().item() == pytest.approx((1 - step.alpha_from) ** 0.5, abs=MANY)


def test_a_trajectory_begins_with_the_picture_itself():
    z0 = torch.full(SHAPE, 2.0)
    assert torch.equal(noised(z0, SCHEDULE, fresh_noise(0, 0, SHAPE))[0], z0)
    assert torch.equal(noised(z0, [], fresh_noise(0, 0, SHAPE)), z0[None])


def test_one_noise_makes_a_straight_path_and_a_noise_for_each_step_a_jumping_one():
    z0, noise = torch.zeros(SHAPE), fresh_noise(0, 0, SHAPE)
    straight, jumping = noised(z0, SCHEDULE, lambda k: noise(0)), noised(z0, SCHEDULE, noise)
    for low, high in zip(SCHEDULE, SCHEDULE[1:], strict=False):
        assert correlation(straight[low.k], straight[high.k]) == pytest.approx(1)
        assert abs(correlation(jumping[low.k], jumping[high.k])) < MANY


def test_each_picture_of_several_is_noised_alone():
    z0 = torch.stack([torch.zeros(4, 3, 5), torch.ones(4, 3, 5)])
    noise = fresh_noise(0, 0, (1, 4, 3, 5))
    alone = [noised(one, SCHEDULE, noise) for one in z0.split(1)]
    assert torch.equal(noised(z0, SCHEDULE, noise), torch.cat(alone, dim=1))


# The numbers


def test_noise_is_standard_normal():
    noise = fresh_noise(5, 1, SHAPE)(3)
    assert noise.shape == SHAPE
    assert noise.mean().item() == pytest.approx(0, abs=MANY)
    assert noise.std().item() == pytest.approx(1, abs=MANY)


def test_the_same_seed_gives_the_same_noise_in_whatever_order_it_is_drawn():
    forwards = [fresh_noise(3, 0, SHAPE)(k) for k in range(5)]
    noise = fresh_noise(3, 0, SHAPE)
    assert all(torch.equal(noise(k), forwards[k]) for k in (4, 2, 2, 0, 3, 1))


def test_the_noises_of_seeds_streams_and_steps_do_not_correlate():
    noises = [
        fresh_noise(seed, stream, SHAPE)(k) for seed in (0, 1) for stream in (0, 1) for k in (0, 1)
    ]
    for i, one in enumerate(noises):
        for other in noises[:i]:
            assert abs(correlation(one, other)) < MANY


def test_the_largest_seed_is_a_seed():
    assert not torch.equal(fresh_noise(2**63 - 1, 0, SHAPE)(1), fresh_noise(2**63 - 2, 0, SHAPE)(1))


def test_the_global_random_numbers_are_not_used_up():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    fresh_noise(0, 0, SHAPE)(1)
    assert torch.equal(torch.rand(3), expected)


# Residuals


@pytest.fixture(scope="module")
def z0(small_model, picture):
    return small_model.encode(picture)


@pytest.fixture(scope="module")
def condition(small_model):
    return constant(small_model.embed(""), small_model.embed(PROMPT))


@pytest.fixture(scope="module", params=["inverted", "noised"])
def trajectory(small_model, z0, condition, request):
    if request.param == "inverted":
        return ddim_inversion(small_model, z0, SHORT, condition, 0.0)
    return noised(z0, SHORT, fresh_noise(0, 0, z0.shape))


def missed_by(model, trajectory, condition, guidance, advance=deterministic, schedule=SHORT):
    """The residuals of an edit that has come as far as its trajectory."""
    null, source = condition(1)
    edit = SimpleNamespace(
        model=model,
        trajectory=trajectory,
        schedule=schedule,
        null=null,
        source=source,
        pivot=lambda step: trajectory[step.k - 1],
    )
    return residuals(edit, silent, guidance, advance)


def sampled(model, trajectory, condition, guidance, advance, missed=None):
    """z_0 of sampling down from the trajectory's noisy end, with its residuals or without."""

    def put_back(step):
        return step if missed is None else replace(step, z=step.z + missed[step.k - 1])

    start = trajectory[-1]
    steps = sample(
        model, start, SHORT[::-1], condition, guidance, advance=advance, after=[put_back]
    )
    return last(steps, start)


@pytest.mark.slow
@pytest.mark.parametrize("advance", [mean_step, deterministic], ids=["mean", "ddim"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
def test_sampling_that_adds_residuals_returns_to_the_picture(
    small_model, z0, condition, trajectory, guidance, advance
):
    missed = missed_by(small_model, trajectory, condition, guidance, advance)
    back, astray = (
        sampled(small_model, trajectory, condition, guidance, advance, some)
        for some in (missed, None)
    )
    torch.testing.assert_close(back, z0, rtol=0, atol=ROUNDING)
    assert (astray - z0).abs().max() > 100 * ROUNDING


@torch.no_grad()
def test_a_residual_is_the_noise_that_an_ancestral_step_would_have_to_add_times_its_deviation(
    small_model, condition, trajectory
):
    """r_k = σ_k z_k: the noise maps of edit-friendly inversion."""
    missed = missed_by(small_model, trajectory, condition, 3.5, mean_step)
    assert missed.shape == trajectory[1:].shape
    for step in SHORT:
        z, ends = trajectory[step.k], (step.alpha_from, step.alpha_to)
        (made,) = sample(small_model, z, [step], condition, 3.5)
        sigma = ddim.ancestral_sigma(*ends)
        landed = ddim.step(z, made.eps, *ends, sigma, missed[step.k - 1] / sigma)
        # float32's rounding of numbers as large as the latent and σ·noise are
        torch.testing.assert_close(landed, trajectory[step.k - 1], rtol=1e-5, atol=1e-5)


def test_steps_that_stay_on_the_trajectory_miss_nothing(small_model, condition, trajectory):
    def stay(timestep, z, eps):
        z = deterministic(timestep, z, eps)
        return torch.lerp(trajectory[timestep.k - 1], z, 0.0)

    assert not missed_by(small_model, trajectory, condition, 7.5, stay).any()


def test_the_residuals_of_one_prompt_lead_elsewhere_under_another(small_model, z0, trajectory):
    """Which is the edit."""
    one, other = (
        constant(*small_model.embed(["", prompt]).split(1)) for prompt in (PROMPT, OTHER_PROMPT)
    )
    missed = missed_by(small_model, trajectory, one, 7.5, mean_step)
    edited = sampled(small_model, trajectory, other, 7.5, mean_step, missed)
    assert (edited - z0).abs().max() > 100 * ROUNDING


# Several latents at once


@pytest.mark.slow
@pytest.mark.parametrize("size", [(4, 4), (4, 8)])
def test_every_inversion_takes_several_latents_and_treats_each_alone(small_model, size):
    """To 1e-4, since a batch of two adds up in another order than a batch of one."""
    schedule = ddim.schedule(3)
    z = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    null, target = small_model.embed(""), small_model.embed(PROMPT)
    noise = fresh_noise(0, 0, (1, 4, *size))

    def all_of(z):
        condition = constant(null, target)
        guided = ddim_inversion(small_model, z, schedule, condition, 2.0)
        trajectory = ddim_inversion(small_model, z, schedule, condition, 0.0)
        tuning = tune(small_model, trajectory, schedule[::-1], target, null, lr=0.01)
        how = dict(side="null", lr=0.01, lr_decay=0.01, stop_below=1e-5)
        null_tuning = tune(small_model, trajectory, schedule[::-1], null, target, **how)
        missed = missed_by(small_model, trajectory, condition, 7.5, schedule=schedule)
        exact = guided, trajectory, noised(z, schedule, noise), missed
        return *exact, tuning.losses, null_tuning.losses, tuning.embeddings, null_tuning.embeddings

    both, alone = all_of(z), [all_of(one) for one in z.split(1)]
    *inversions, embeddings, nulls = zip(both, *alone, strict=True)
    for together, first, second in inversions:
        assert together.shape[1] == 2
        torch.testing.assert_close(together, torch.cat([first, second], 1), rtol=1e-3, atol=1e-4)
    for together, first, second in (embeddings, nulls):
        # Adam takes whole steps, whose sign rounding decides where a gradient is nearly 0
        differ = (together - torch.cat([first, second], 1)).abs() > 1e-3
        assert together.shape == (3, 2, 77, target.shape[-1])
        assert differ.float().mean() < 0.01
        assert (first - second).abs().max() > 0.01
