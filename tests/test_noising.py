"""Noise instead of an inversion: Eq. 1 at every rung, from numbers that anyone can draw again."""

import pytest
import torch

from ptinv import ddim
from ptinv.inversion.noising import fresh_noise, noised

RUNGS = ddim.ladder(10, 0.8)
SHAPE = (1, 4, 50, 100)  # of 20,000 numbers a mean strays by 0.007, a deviation by 0.005
MANY = 0.03


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


# Eq. 1


def test_a_noised_picture_has_the_mean_and_variance_of_eq_1_on_every_rung():
    trajectory = noised(torch.full(SHAPE, 2.0), RUNGS, fresh_noise(0, 0, SHAPE))
    assert trajectory.shape == (len(RUNGS) + 1, *SHAPE)
    for rung in RUNGS:
        z = trajectory[rung.k]
        assert z.mean().item() == pytest.approx(2 * rung.alpha**0.5, abs=MANY)
        assert z.std().item() == pytest.approx((1 - rung.alpha) ** 0.5, abs=MANY)


def test_a_trajectory_begins_with_the_picture_itself():
    z0 = torch.full(SHAPE, 2.0)
    assert torch.equal(noised(z0, RUNGS, fresh_noise(0, 0, SHAPE))[0], z0)
    assert torch.equal(noised(z0, [], fresh_noise(0, 0, SHAPE)), z0[None])


def test_one_noise_makes_a_straight_path_and_a_noise_for_each_rung_a_jumping_one():
    z0, noise = torch.zeros(SHAPE), fresh_noise(0, 0, SHAPE)
    straight, jumping = noised(z0, RUNGS, lambda k: noise(0)), noised(z0, RUNGS, noise)
    for low, high in zip(RUNGS, RUNGS[1:], strict=False):
        assert correlation(straight[low.k], straight[high.k]) == pytest.approx(1)
        assert abs(correlation(jumping[low.k], jumping[high.k])) < MANY


def test_each_picture_of_several_is_noised_alone():
    z0 = torch.stack([torch.zeros(4, 3, 5), torch.ones(4, 3, 5)])
    noise = fresh_noise(0, 0, (1, 4, 3, 5))
    alone = [noised(one, RUNGS, noise) for one in z0.split(1)]
    assert torch.equal(noised(z0, RUNGS, noise), torch.cat(alone, dim=1))


# The numbers


def test_noise_is_standard_normal():
    noise = fresh_noise(5, 1, SHAPE)(3)
    assert noise.shape == SHAPE
    assert noise.mean().item() == pytest.approx(0, abs=MANY)
    assert noise.std().item() == pytest.approx(1, abs=MANY)


def test_the_same_seed_gives_the_same_noise_in_whatever_order_it_is_asked_for():
    forwards = [fresh_noise(3, 0, SHAPE)(k) for k in range(5)]
    noise = fresh_noise(3, 0, SHAPE)
    assert all(torch.equal(noise(k), forwards[k]) for k in (4, 2, 2, 0, 3, 1))


def test_seeds_streams_and_rungs_have_noises_that_know_nothing_of_each_other():
    noises = [
        fresh_noise(seed, stream, SHAPE)(k) for seed in (0, 1) for stream in (0, 1) for k in (0, 1)
    ]
    for i, one in enumerate(noises):
        for other in noises[:i]:
            assert abs(correlation(one, other)) < MANY


def test_the_largest_seed_is_a_seed():
    assert not torch.equal(fresh_noise(2**63 - 1, 0, SHAPE)(1), fresh_noise(2**63 - 2, 0, SHAPE)(1))


def test_nobody_else_s_random_numbers_are_used_up():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    fresh_noise(0, 0, SHAPE)(1)
    assert torch.equal(torch.rand(3), expected)
