"""Proximal guidance: what an operator leaves of the difference that guidance multiplies."""

import pytest
import torch

from ptinv import ddim
from ptinv.editing.proximal import limit, proximal, proximal_guide, pulled_back
from ptinv.sampling import Step

RUNGS = ddim.ladder(10)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


DIFFERENCE = normal(2, 4, 6, 10) * torch.tensor([1.0, 3.0])[:, None, None, None]


def test_the_limit_is_a_quantile_of_each_row_by_itself():
    found = limit(DIFFERENCE, 0.75)
    assert found.shape == (2, 1, 1, 1)
    for row, one in zip(DIFFERENCE, found, strict=True):
        assert (row.abs() < one).float().mean() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_what_is_below_the_limit_is_dropped_and_the_rest_kept_or_shrunk(norm):
    kept, at = proximal(DIFFERENCE, 0.75, norm), limit(DIFFERENCE, 0.75)
    above = DIFFERENCE.abs() > at
    assert not kept[~above].any()
    shrunk = DIFFERENCE.abs() - (at if norm == "l1" else 0)
    torch.testing.assert_close(kept[above].abs(), shrunk.expand_as(kept)[above])
    assert torch.equal(kept[above].sign(), DIFFERENCE[above].sign())


@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_each_is_the_minimiser_that_its_name_says(norm):
    """argmin_x ½ (x - d)² + penalty, by search over a grid; for l0 the penalty is ½ λ² [x ≠ 0]."""
    d = torch.tensor([-2.0, -0.7, -0.2, 0.0, 0.4, 0.9, 1.6]).view(1, 1, 1, -1)
    at = limit(d, 0.5)
    grid = torch.arange(-3, 3, 0.001)
    x = torch.cat([grid, torch.zeros(1)])[:, None]
    penalty = at.flatten() * x.abs() if norm == "l1" else 0.5 * at.flatten() ** 2 * (x != 0)
    best = x[(0.5 * (x - d.flatten()) ** 2 + penalty).argmin(dim=0), 0]
    # the element that equals λ is as good at 0 as where it is
    clear = (d.abs() - at).abs().flatten() > 1e-4
    torch.testing.assert_close(
        proximal(d, 0.5, norm).flatten()[clear], best[clear], atol=2e-3, rtol=0
    )


def test_with_nothing_dropped_it_is_eq_5():
    null, cond = normal(2, 4, 6, 10, seed=1), normal(2, 4, 6, 10, seed=2)
    plain = ddim.guide(null, cond, 7.5)
    torch.testing.assert_close(proximal_guide(0.0, "l0")(null, cond, 7.5), plain)
    torch.testing.assert_close(proximal_guide(1.0, "l1")(null, cond, 7.5), null)


def test_late_in_the_walk_what_is_not_guided_comes_from_the_trajectory():
    trajectory, z = normal(11, 1, 4, 6, 10), normal(2, 4, 6, 10, seed=3)
    rule, null = pulled_back(trajectory, 0.75), torch.zeros(2, 4, 6, 10)
    for rung in RUNGS:
        out = rule(Step(rung, z, null, DIFFERENCE))
        if rung.t >= 400:
            assert torch.equal(out, z)
            continue
        edited = DIFFERENCE.abs() > limit(DIFFERENCE, 0.75)
        pivot = trajectory[rung.k - 1].expand_as(z)
        assert torch.equal(out[edited], z[edited]) and torch.equal(out[~edited], pivot[~edited])
    unguided = rule(Step(RUNGS[0], z, null, null))
    assert torch.equal(unguided, trajectory[0].expand_as(z))
