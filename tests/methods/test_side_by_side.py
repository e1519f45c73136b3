"""The methods that sample the source text beside the prompt, through the table."""

from dataclasses import replace

import pytest
import torch
from edits import SOURCE, both_latents, latent, result
from small import PROMPT

import ptinv
from ptinv import api
from ptinv.core.pti import ddim_inversion
from ptinv.core.sampling import constant, last, sample
from ptinv.errors import InputError
from ptinv.methods.request import (
    request_edit,
    request_generation,
    request_reconstruction,
)
from ptinv.methods.table import METHODS

BOTH = [name for name, row in METHODS.items() if row.needs_source]
EXACT = 1e-4
ROUNDED = 1e-3  # where an untrained network's guidance carries rounding down six steps


def by_method(names):
    """A test for each method; Null-Text Inversion's tuning is slow."""
    slow = {"null-text": [pytest.mark.slow]}
    params = [pytest.param(name, marks=slow.get(name, [])) for name in names]
    return pytest.mark.parametrize("method", params)


def test_six_methods_sample_the_source_beside_the_target():
    assert BOTH == ["p2p", "null-text", "npi", "npi-prox", "direct", "pti-p2p"]


@pytest.mark.slow
@by_method(name for name in BOTH if name != "direct")
@pytest.mark.parametrize("mask", [None, "auto"])
def test_with_the_source_s_prompt_the_edit_is_the_source_s_branch(
    small_model, picture, method, mask
):
    """At η = 0 for Eq. 9. (Direct inversion corrects its source's branch, and no other.)"""
    both = both_latents(small_model, picture, method, SOURCE, mask=mask, eta=0.0)
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=EXACT)


@by_method(["null-text", "npi", "npi-prox", "direct"])
def test_the_source_s_branch_is_the_picture_s_reconstruction(small_model, picture, method):
    request = request_reconstruction(picture, SOURCE, method, steps=6)
    alone = api.run(small_model, request).latent
    edited = both_latents(small_model, picture, method, SOURCE, mask=None)
    torch.testing.assert_close(edited[:1], alone, rtol=0, atol=ROUNDED)


@pytest.mark.slow
@by_method(BOTH)
def test_gates_of_zero_length_are_sampling_without_control(small_model, picture, method):
    shut = dict(cross_replace=0.0, self_replace=(0.5, 0.5), mask=None)
    free = replace(METHODS[method], control=lambda edit: [])
    gated, plain = (
        latent(small_model, picture, row, source=SOURCE, **shut) for row in (method, free)
    )
    assert torch.equal(gated, plain)


@pytest.mark.slow
@by_method(BOTH)
def test_an_edit_differs_from_the_source_and_from_one_without_shared_attention(
    small_model, picture, method
):
    open_, shut = (
        both_latents(small_model, picture, method, mask=None, cross_replace=gate, self_replace=gate)
        for gate in (1.0, 0.0)
    )
    assert (open_[1] - open_[0]).abs().max() > 100 * EXACT
    assert (open_[1] - shut[1]).abs().max() > 100 * EXACT
    # the source is untouched
    torch.testing.assert_close(open_[0], shut[0], rtol=0, atol=ROUNDED)


def test_direct_inversion_s_source_branch_is_the_trajectory_to_rounding(small_model, picture):
    z0 = small_model.encode(picture)
    for guidance in (1.0, 7.5):
        both = both_latents(small_model, picture, "direct", guidance=guidance)
        torch.testing.assert_close(both[:1], z0, rtol=0, atol=ROUNDED)
    missed = both_latents(small_model, picture, "p2p")[:1] - z0
    assert missed.abs().max() > 1000 * ROUNDED  # what the offsets make good


def test_null_text_inversion_with_no_iterations_is_ddim_from_the_same_pivot(small_model, picture):
    untuned = latent(small_model, picture, "null-text", inner_steps=0)
    assert torch.equal(untuned, latent(small_model, picture, "p2p"))


@pytest.mark.slow
def test_null_text_inversion_holds_the_source_s_branch_to_the_picture(small_model, picture):
    z0 = small_model.encode(picture)
    tuned, untuned = (
        (both_latents(small_model, picture, method)[:1] - z0).square().mean()
        for method in ("null-text", "p2p")
    )
    assert tuned < untuned / 3


def test_negative_prompt_inversion_of_the_same_prompt_is_ddim_at_1(small_model, picture):
    null, text = small_model.embed(""), small_model.embed(SOURCE)
    inverted = result(small_model, picture, "npi", SOURCE, mask=None)
    start, schedule = inverted.inversion.trajectory[-1], inverted.inversion.schedule
    plain = last(sample(small_model, start, schedule[::-1], constant(null, text), 1.0), start)
    torch.testing.assert_close(inverted.latent, plain, rtol=0, atol=EXACT)


def test_pti_under_prompt_to_prompt_tunes_for_the_source_and_edits_by_eq_9(small_model, picture):
    """Its source branch is PTI's reconstruction; without control its target is PTI's own edit."""
    free = dict(mask=None, cross_replace=0.0, self_replace=0.0, eta=0.7)
    both = both_latents(small_model, picture, "pti-p2p", **free)
    tuned = dict(init_embedding="source", source=SOURCE, mask=None)
    back = latent(small_model, picture, "pti", SOURCE, eta=0.0, **tuned)
    edit = latent(small_model, picture, "pti", eta=0.7, **tuned)
    torch.testing.assert_close(both, torch.cat([back, edit]), rtol=0, atol=EXACT)


def test_the_pivot_is_inverted_with_the_source_text_at_1(small_model, picture):
    inversion = ptinv.invert(small_model, picture, method="direct", steps=6, source=SOURCE)
    schedule = inversion.schedule
    condition = constant(small_model.embed(""), small_model.embed(SOURCE))
    expected = ddim_inversion(small_model, small_model.encode(picture), schedule, condition, 1.0)
    assert len(schedule) == 6
    assert torch.equal(inversion.trajectory, expected)


@pytest.mark.parametrize("method", BOTH)
def test_a_source_text_is_required_and_the_refusal_names_it(small_model, picture, method):
    for source in (None, "", " "):
        with pytest.raises(InputError, match="^source is missing"):
            request_edit(picture, PROMPT, method, source=source)
    with pytest.raises(InputError, match="^source is missing"):
        ptinv.invert(small_model, picture, method=method, steps=2)
    back = ptinv.reconstruct(small_model, picture, SOURCE, method=method, steps=2)
    assert back.size == picture.size  # there the prompt describes the picture


def test_proximal_guidance_is_less_of_negative_prompt_inversion(small_model, picture):
    """With nothing dropped it is negative-prompt inversion; the source stays on the picture."""
    z0 = small_model.encode(picture)
    plain, prox = (both_latents(small_model, picture, m, mask=None) for m in ("npi", "npi-prox"))
    same = both_latents(small_model, picture, "npi-prox", mask=None, proximal_quantile=0.0)
    none = both_latents(small_model, picture, "npi-prox", mask=None, proximal_quantile=1.0)
    assert (prox[1] - plain[1]).abs().max() > 100 * EXACT
    # the latent's numbers without any guidance come from the trajectory in the end
    assert torch.equal(prox[0], z0[0]) and torch.equal(none[1], z0[0])
    assert (same[1] - plain[1]).abs().mean() < (prox[1] - plain[1]).abs().mean()


def test_tensors_made_for_ddim_s_steps_are_not_sampled_with_others(picture):
    for method in ("pti", "null-text", "direct", "pti-p2p"):
        with pytest.raises(InputError, match="^sampler must be ddim here"):
            request_edit(picture, PROMPT, method, sampler="ancestral", source=SOURCE)


# Generated pictures


def generated(model, prompt, **options):
    """z_0 of every branch of a picture from noise."""
    return api.run_generation(model, request_generation(prompt, **options))


def test_generating_with_a_source_makes_two_pictures_from_one_noise(small_model):
    """The source's is what it is alone, and an edit to the same prompt is that one, too."""
    make = dict(seed=3, steps=6)
    both = generated(small_model, PROMPT, source=SOURCE, **make)
    alone = generated(small_model, SOURCE, **make)
    torch.testing.assert_close(both[:1], alone, rtol=0, atol=EXACT)
    assert (both[1] - both[0]).abs().max() > 100 * EXACT
    same = generated(small_model, SOURCE, source=SOURCE, **make)
    torch.testing.assert_close(same[1], same[0], rtol=0, atol=EXACT)
    picture = ptinv.generate(small_model, PROMPT, source=SOURCE, **make)
    assert picture.tobytes() == small_model.decode(both[1:]).tobytes()


@pytest.mark.parametrize(
    "option", [dict(focus="car"), dict(mask_from="attention"), dict(cross_replace=0.3)]
)
def test_generating_without_a_source_refuses_options_of_an_edit(option):
    with pytest.raises(InputError, match="is for an edit of another prompt's picture"):
        request_generation(PROMPT, steps=2, **option)


def test_a_generated_picture_has_no_mask_of_differences(small_model):
    with pytest.raises(InputError, match="no picture yet"):
        ptinv.generate(small_model, PROMPT, source=SOURCE, steps=2, mask_from="difference")
