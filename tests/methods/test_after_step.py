"""Rules for the latent that a step has reached, which hold it near the picture."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tensors import normal

from ptinv.core.ddim import schedule
from ptinv.core.pti import blend
from ptinv.core.sampling import Step, constant, sample
from ptinv.methods.table import METHODS, low_pass
from ptinv.settings import Settings

SCHEDULE = schedule(5)


TRAJECTORY, Z = normal(6, 2, 4, 6, 10), normal(2, 4, 6, 10, seed=1)
K, PIVOT = 3, TRAJECTORY[2]  # the step that leaves z_3 leads to where the trajectory has z*_2
STEP = Step(SCHEDULE[K - 1], Z, Z, Z, Z, Z)


def after(method, step=STEP, pivot=PIVOT, residuals=None, **settings):
    """The latent that a row's rule makes of a step's."""
    edit = SimpleNamespace(
        settings=Settings(**settings), pivot=lambda step: pivot, residuals=residuals
    )
    return METHODS[method].after(edit, step)


# Blending


def test_blending_is_exact_where_the_mask_is_0_or_1_and_a_mixture_between():
    mask = torch.zeros(1, 1, 6, 10)
    mask[..., 3:6], mask[..., 6:] = 0.25, 1
    out = blend(STEP, mask, PIVOT).z
    assert torch.equal(out[..., :3], PIVOT[..., :3])
    assert torch.equal(out[..., 6:], Z[..., 6:])
    torch.testing.assert_close(out[..., 3:6], 0.25 * Z[..., 3:6] + 0.75 * PIVOT[..., 3:6])


def test_a_blended_step_keeps_its_mask_and_all_that_it_was_made_of():
    mask = torch.ones(1, 1, 6, 10)
    blended = blend(STEP, mask, PIVOT)
    assert blended.mask is mask and STEP.mask is None
    assert torch.equal(blended.z, Z)
    for name in ("timestep", "z_from", "eps_null", "eps_cond", "eps"):
        assert getattr(blended, name) is getattr(STEP, name)


def test_one_branch_can_be_the_background_of_the_others():
    mask = torch.zeros(1, 1, 6, 10)
    mask[..., :5] = 1
    out = blend(STEP, mask, Z[:1]).z
    assert torch.equal(out[0], Z[0])
    assert torch.equal(out[1, ..., :5], Z[1, ..., :5])
    assert torch.equal(out[1, ..., 5:], Z[0, ..., 5:])


# Eq. 10


def test_interpolation_is_the_trajectory_at_0_and_the_latent_at_1_and_a_mixture_between():
    assert torch.equal(after("latent", eta=0.0), PIVOT)
    assert torch.equal(after("latent", eta=1.0), Z)
    torch.testing.assert_close(after("latent", eta=0.9), 0.9 * Z + 0.1 * PIVOT)


class Echo:
    """Predicts the context as the noise, whatever the latent."""

    def predict_noise(self, z, t, context, control=None):
        return context


def test_at_eta_0_every_step_of_sampling_is_on_the_trajectory():
    def onto_the_trajectory(step):
        return replace(step, z=after("latent", step, TRAJECTORY[step.k - 1], eta=0.0))

    condition = constant(normal(2, 4, 6, 10, seed=2), normal(2, 4, 6, 10, seed=3))
    steps = sample(Echo(), TRAJECTORY[-1], SCHEDULE[::-1], condition, after=[onto_the_trajectory])
    assert torch.equal(torch.stack([step.z for step in steps]), TRAJECTORY[:-1].flip(0))


# Low frequencies


def test_a_filter_one_cell_wide_lets_everything_through_and_so_the_picture_comes_back():
    assert torch.equal(low_pass(Z, 1), Z)
    torch.testing.assert_close(after("ilvr", low_pass=1), PIVOT, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 100])
@pytest.mark.parametrize("size", [(6, 10), (8, 8), (5, 7)])
def test_a_filter_of_any_width_keeps_what_is_even_and_the_size(width, size):
    even = torch.full((2, 4, *size), 3.0)
    torch.testing.assert_close(low_pass(even, width), even)


def share_passed(cycles):
    """The energy that a filter of width 4 leaves of a wave across 32 cells, at any phase."""
    angles = 2 * torch.pi * cycles * torch.arange(32) / 32
    waves = torch.stack([angles.cos(), angles.sin()])[:, None, None].expand(2, 1, 32, 32)
    return float(low_pass(waves, 4).square().sum() / waves.square().sum())


def test_a_filter_passes_what_the_authors_bicubic_one_does():
    """Theirs passes .98, .78, .37 and .006: it is antialiased both ways, and so is sharp."""
    passed = [share_passed(cycles) for cycles in (1, 2, 3, 6)]
    assert passed == pytest.approx([0.98, 0.78, 0.37, 0.006], abs=0.06)


def test_a_filter_as_wide_as_the_latent_leaves_one_number():
    assert torch.allclose(low_pass(Z, 100), low_pass(Z, 100)[..., :1, :1])


def test_the_coarse_comes_from_the_picture_and_the_fine_from_the_latent():
    pivot = torch.full((2, 4, 6, 10), 3.0)
    reached = replace(STEP, z=torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0)))
    out = after("ilvr", replace(reached, z=5 + reached.z), pivot, low_pass=2)
    fine = reached.z - low_pass(reached.z, 2)
    torch.testing.assert_close(out, 3 + fine)


# Residuals


def test_a_residual_is_added_to_every_row_or_to_the_source_s_alone():
    residuals = normal(5, 1, 4, 6, 10, seed=4)
    here = residuals[K - 1]
    assert torch.equal(after("edit-friendly", residuals=residuals), Z + here)
    first = after("direct", residuals=residuals)
    assert torch.equal(first, torch.cat([Z[:1] + here, Z[1:]]))
    alone = after("direct", replace(STEP, z=Z[:1]), residuals=residuals)
    assert torch.equal(alone, Z[:1] + here)
