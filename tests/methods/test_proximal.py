"""Proximal guidance: the part of guidance's difference that an operator leaves."""

from types import SimpleNamespace

import pytest
import torch
from tensors import normal

from ptinv.core import ddim
from ptinv.core.sampling import Step
from ptinv.methods.proximal import limit, proximal, pull_back
from ptinv.methods.table import METHODS
from ptinv.settings import Settings

SCHEDULE = ddim.schedule(10)


def operator(quantile, norm="l0"):
    return Settings(proximal_quantile=quantile, proximal=norm)


DIFFERENCE = normal(2, 4, 6, 10) * torch.tensor([1.0, 3.0])[:, None, None, None]


def test_the_limit_is_a_quantile_of_each_row_by_itself():
    found = limit(DIFFERENCE, operator(0.75))
    assert found.shape == (2, 1, 1, 1)
    for row, one in zip(DIFFERENCE, found, strict=True):
        assert (row.abs() < one).float().mean() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_differences_below_the_limit_are_dropped_and_the_rest_kept_or_shrunk(norm):
    kept, at = proximal(DIFFERENCE, operator(0.75, norm)), limit(DIFFERENCE, operator(0.75))
    above = DIFFERENCE.abs() > at
    assert not kept[~above].any()
    shrunk = DIFFERENCE.abs() - (at if norm == "l1" else 0)
    torch.testing.assert_close(kept[above].abs(), shrunk.expand_as(kept)[above])
    assert torch.equal(kept[above].sign(), DIFFERENCE[above].sign())


@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_each_operator_is_the_minimiser_that_its_name_stands_for(norm):
    """argmin_x ½ (x - d)² + penalty, by search over a grid; for l0 the penalty is ½ λ² [x ≠ 0]."""
    d = torch.tensor([-2.0, -0.7, -0.2, 0.0, 0.4, 0.9, 1.6]).view(1, 1, 1, -1)
    at = limit(d, operator(0.5))
    grid = torch.arange(-3, 3, 0.001)
    x = torch.cat([grid, torch.zeros(1)])[:, None]
    penalty = at.flatten() * x.abs() if norm == "l1" else 0.5 * at.flatten() ** 2 * (x != 0)
    best = x[(0.5 * (x - d.flatten()) ** 2 + penalty).argmin(dim=0), 0]
    # the element that equals λ is as good at 0 as where it is
    clear = (d.abs() - at).abs().flatten() > 1e-4
    torch.testing.assert_close(
        proximal(d, operator(0.5, norm)).flatten()[clear], best[clear], atol=2e-3, rtol=0
    )


def guided(settings, null, cond):
    return METHODS["npi-prox"].guide(SimpleNamespace(settings=settings))(null, cond, 7.5)


def test_proximal_guidance_with_nothing_dropped_is_eq_5():
    null, cond = normal(2, 4, 6, 10, seed=1), normal(2, 4, 6, 10, seed=2)
    torch.testing.assert_close(guided(operator(0.0), null, cond), ddim.guide(null, cond, 7.5))
    for norm in ("l1", "code-l0", "code-l1"):
        torch.testing.assert_close(guided(operator(1.0, norm), null, cond), null)


def code(d, quantile, twice):
    """The authors' operator as their loop is written: clamped numbers are taken away, then, for
    what they name l1, the limit once more by sign."""
    least = d.abs().quantile(quantile)
    left = d - d.clamp(-least, least)
    if twice:
        left = torch.where(left > 0, left - least, left)
        left = torch.where(left < 0, left + least, left)
    return left, least


@pytest.mark.parametrize("norm", ["code-l0", "code-l1"])
def test_the_codes_operators_take_one_limit_over_the_batch_and_shrink(norm):
    left, least = code(DIFFERENCE, 0.6, twice=norm == "code-l1")
    assert limit(DIFFERENCE, operator(0.6, norm)) == least
    torch.testing.assert_close(proximal(DIFFERENCE, operator(0.6, norm)), left)


def at(timestep, z, null, cond):
    """A step that ended in z."""
    return Step(timestep, z, z, null, cond, cond)


@pytest.mark.parametrize("norm, times", [("code-l0", 2), ("code-l1", 3)])
def test_the_codes_trajectory_is_kept_but_a_cell_around_what_is_above_the_limit(norm, times):
    d = torch.zeros(2, 4, 6, 10)
    d[1, 2, 3, 4], d[1, 2, 0, 0], d[1, 0, 5, 9] = times + 0.1, times - 0.1, -times - 0.1
    d[0] = torch.cat([torch.ones(121), torch.zeros(119)]).view(4, 6, 10)  # so that λ is 1
    d[1][d[1] == 0] = 0.5
    trajectory, z = normal(11, 1, 4, 6, 10), normal(2, 4, 6, 10, seed=3)
    edit = SimpleNamespace(settings=operator(0.75, norm), pivot=lambda step: trajectory[0])
    assert limit(d, edit.settings) == 1
    kept = pull_back(edit, at(SCHEDULE[0], z, torch.zeros_like(d), d)) == z
    wanted = torch.zeros(2, 4, 6, 10, dtype=torch.bool)
    wanted[1, 2, 2:5, 3:6] = wanted[1, 0, 4:6, 8:10] = True
    assert torch.equal(kept, wanted)


def test_late_in_sampling_numbers_that_are_not_guided_come_from_the_trajectory():
    trajectory, z = normal(11, 1, 4, 6, 10), normal(2, 4, 6, 10, seed=3)
    null = torch.zeros(2, 4, 6, 10)
    edit = SimpleNamespace(
        settings=operator(0.75), pivot=lambda step: trajectory[step.timestep.k - 1]
    )
    for timestep in SCHEDULE:
        pivot = trajectory[timestep.k - 1]
        out = pull_back(edit, at(timestep, z, null, DIFFERENCE))
        if timestep.t >= 400:
            assert torch.equal(out, z)
            continue
        edited = DIFFERENCE.abs() > limit(DIFFERENCE, operator(0.75))
        pivot = pivot.expand_as(z)
        assert torch.equal(out[edited], z[edited]) and torch.equal(out[~edited], pivot[~edited])
    unguided = pull_back(edit, at(SCHEDULE[0], z, null, null))
    assert torch.equal(unguided, trajectory[0].expand_as(z))
