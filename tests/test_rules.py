"""What becomes of a latent that a step has reached: rules that hold it near the picture."""

import pytest
import torch

from ptinv.ddim import ladder
from ptinv.editing.conditions import constant
from ptinv.editing.masks import fixed
from ptinv.editing.rules import (
    added,
    blended,
    interpolated,
    low_frequencies,
    low_pass,
    of_row,
    pinned,
)
from ptinv.sampling import Step, Walk, walk_down

RUNGS = ladder(5)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TRAJECTORY, Z = normal(6, 2, 4, 6, 10), normal(2, 4, 6, 10, seed=1)
K, PIVOT = 3, TRAJECTORY[2]  # from rung 3 a step leads to where the trajectory has z*_2


def after(rule, z=Z):
    """What a rule makes of a step from rung 3."""
    return rule(Step(RUNGS[K - 1], z, z, z))


# Blending


def test_blending_is_exact_where_the_mask_is_0_or_1_and_a_mixture_between():
    mask = torch.zeros(1, 1, 6, 10)
    mask[..., 3:6], mask[..., 6:] = 0.25, 1
    out = after(blended(pinned(TRAJECTORY), fixed(mask)))
    assert torch.equal(out[..., :3], PIVOT[..., :3])
    assert torch.equal(out[..., 6:], Z[..., 6:])
    torch.testing.assert_close(out[..., 3:6], 0.25 * Z[..., 3:6] + 0.75 * PIVOT[..., 3:6])


def test_blending_waits_for_its_mask_and_shows_each():
    asked, seen = [], []
    mask = torch.ones(1, 1, 6, 10)

    def at(k):
        asked.append(k)
        return None if len(asked) == 1 else mask

    rule = blended(pinned(TRAJECTORY), at, seen.append)
    assert after(rule) is Z
    assert seen == []
    assert torch.equal(after(rule), Z)
    assert seen == [mask]
    assert asked == [K, K]


# Eq. 10


def test_interpolation_is_the_trajectory_at_0_and_the_walk_at_1_and_a_mixture_between():
    assert torch.equal(after(interpolated(TRAJECTORY, 0.0)), PIVOT)
    assert torch.equal(after(interpolated(TRAJECTORY, 1.0)), Z)
    torch.testing.assert_close(after(interpolated(TRAJECTORY, 0.9)), 0.9 * Z + 0.1 * PIVOT)


class Echo:
    """Predicts the context as the noise, whatever the latent."""

    def predict_noise(self, z, t, context, control=None):
        return context


def test_at_eta_0_every_step_of_a_walk_is_on_the_trajectory():
    condition = constant(normal(2, 4, 6, 10, seed=2), normal(2, 4, 6, 10, seed=3))
    walk = Walk(condition, after=(interpolated(TRAJECTORY, 0.0),))
    walked = list(walk_down(Echo(), TRAJECTORY[-1], RUNGS[::-1], walk))
    assert torch.equal(torch.stack(walked), TRAJECTORY[:-1].flip(0))


# Low frequencies


def test_a_filter_one_cell_wide_lets_everything_through_and_so_the_picture_comes_back():
    assert torch.equal(low_pass(Z, 1), Z)
    assert torch.equal(after(low_frequencies(TRAJECTORY, 1)), PIVOT)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 100])
@pytest.mark.parametrize("size", [(6, 10), (8, 8), (5, 7)])
def test_a_filter_of_any_width_keeps_what_is_even_and_the_size(width, size):
    even = torch.full((2, 4, *size), 3.0)
    torch.testing.assert_close(low_pass(even, width), even)


def test_a_filter_takes_away_what_is_finer_than_it():
    checks = torch.ones(6, 10)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    assert not low_pass(checks[None, None], 2).any()


def test_a_filter_as_wide_as_the_latent_leaves_its_mean():
    mean = Z.mean(dim=(2, 3), keepdim=True).expand_as(Z)
    torch.testing.assert_close(low_pass(Z, 100), mean)


def test_the_coarse_comes_from_the_picture_and_the_fine_from_the_walk():
    checks = torch.ones(6, 10)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    trajectory = torch.full((6, 2, 4, 6, 10), 3.0)
    out = after(low_frequencies(trajectory, 2), z=(5 + checks).expand(2, 4, 6, 10))
    torch.testing.assert_close(out, (3 + checks).expand(2, 4, 6, 10))


# Residuals


def test_a_branch_can_be_the_background_of_the_others():
    mask = torch.zeros(1, 1, 6, 10)
    mask[..., :5] = 1
    out = after(blended(of_row(0), fixed(mask)))
    assert torch.equal(out[0], Z[0])
    assert torch.equal(out[1, ..., :5], Z[1, ..., :5])
    assert torch.equal(out[1, ..., 5:], Z[0, ..., 5:])


def test_the_residual_of_the_step_s_own_rung_is_added():
    residuals = normal(5, 2, 4, 6, 10, seed=4)
    assert torch.equal(after(added(residuals)), Z + residuals[K - 1])
    first = after(added(residuals[:, :1], rows=[0]))
    assert torch.equal(first, torch.cat([Z[:1] + residuals[K - 1, :1], Z[1:]]))
