"""What a step misses the trajectory by: put back, it leads home whatever guided the walk."""

from dataclasses import replace

import pytest
import torch
from small import OTHER_PROMPT, PROMPT

from ptinv import ddim
from ptinv.editing.conditions import constant
from ptinv.editing.rules import added, interpolated
from ptinv.inversion.ddim import ddim_inversion
from ptinv.inversion.noising import fresh_noise, noised
from ptinv.inversion.residuals import residuals
from ptinv.sampling import Walk, ancestral, last, predictions, walk_down

RUNGS = ddim.ladder(6, 0.8)
WALKED = 1e-4  # float32's rounding, after an untrained network has carried it down five steps


def no_noise(k):
    return torch.zeros(())


@pytest.fixture(scope="module")
def z0(small_model, picture):
    return small_model.encode(picture)


@pytest.fixture(scope="module")
def condition(small_model):
    return constant(small_model.embed(""), small_model.embed(PROMPT))


@pytest.fixture(scope="module", params=["inverted", "noised"])
def trajectory(small_model, z0, request):
    if request.param == "inverted":
        return ddim_inversion(small_model, z0, RUNGS)
    return noised(z0, RUNGS, fresh_noise(0, 0, z0.shape))


@torch.no_grad()
@pytest.mark.parametrize("advance", [ancestral(no_noise), None], ids=["mean", "ddim"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
def test_a_walk_that_adds_them_returns_to_the_picture(
    small_model, z0, condition, trajectory, guidance, advance
):
    walk = Walk(condition, guidance, **({"advance": advance} if advance else {}))
    missed = residuals(small_model, trajectory, RUNGS, walk)
    back, astray = (
        last(walk_down(small_model, trajectory[-1], RUNGS[::-1], w), trajectory[-1])
        for w in (replace(walk, after=(added(missed),)), walk)
    )
    torch.testing.assert_close(back, z0, rtol=0, atol=WALKED)
    assert (astray - z0).abs().max() > 100 * WALKED


@torch.no_grad()
def test_each_is_the_noise_that_an_ancestral_step_would_have_to_add_times_its_deviation(
    small_model, condition, trajectory
):
    """r_k = σ_k z_k: the noise maps of edit-friendly inversion."""
    missed = residuals(
        small_model, trajectory, RUNGS, Walk(condition, 3.5, advance=ancestral(no_noise))
    )
    assert missed.shape == trajectory[1:].shape
    for rung in RUNGS:
        z, ends = trajectory[rung.k], (rung.alpha, rung.alpha_prev)
        eps = ddim.guide(*predictions(small_model, z, rung, condition(rung.k), 3.5), 3.5)
        sigma = ddim.ancestral_sigma(*ends)
        landed = ddim.step(z, eps, *ends, sigma, missed[rung.k - 1] / sigma)
        # float32's rounding of numbers as large as the latent and σ·noise are
        torch.testing.assert_close(landed, trajectory[rung.k - 1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_walk_s_own_rules_come_before_its_residuals(small_model, condition, trajectory):
    """A rule that already leads to the trajectory leaves nothing to be missed."""
    walk = Walk(condition, after=(interpolated(trajectory, 0.0),))
    assert not residuals(small_model, trajectory, RUNGS, walk).any()


@torch.no_grad()
def test_the_maps_of_one_prompt_lead_elsewhere_under_another(small_model, z0, trajectory):
    """Which is the edit."""
    walks = [
        Walk(constant(*small_model.embed(["", prompt]).split(1)), advance=ancestral(no_noise))
        for prompt in (PROMPT, OTHER_PROMPT)
    ]
    missed = residuals(small_model, trajectory, RUNGS, walks[0])
    walk = replace(walks[1], after=(added(missed),))
    edited = last(walk_down(small_model, trajectory[-1], RUNGS[::-1], walk), trajectory[-1])
    assert (edited - z0).abs().max() > 100 * WALKED
