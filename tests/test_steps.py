"""An edit step by step, and the result with all that is known of it."""

import pytest
import torch
from edits import same
from PIL import Image
from small import PROMPT

import ptinv
from ptinv.core.pictures import resize
from ptinv.errors import InputError
from ptinv.methods.table import METHODS

STEPS = dict(steps=4)
SOURCE = "a red car on the grass"


# An edit step by step


def options_for(method):
    """Few steps, and a text of the picture for the methods that need one."""
    return STEPS | (dict(source=SOURCE) if METHODS[method].needs_source else {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.slow if name == "null-text" else ()) for name in METHODS],
)
def test_an_edit_is_the_last_of_its_steps_to_the_bit(small_model, picture, method):
    options = options_for(method)
    steps = list(ptinv.steps(small_model, picture, PROMPT, method, **options))
    result = ptinv.result(small_model, picture, PROMPT, method, **options)
    assert torch.equal(steps[-1].z[-1:], result.latent)
    assert [step.timestep for step in steps] == result.inversion.schedule[::-1]
    assert all(len(step.z) == len(METHODS[method].branches) for step in steps)
    for step, following in zip(steps, steps[1:], strict=False):
        assert torch.equal(following.z_from, step.z)
    edited = ptinv.edit(small_model, picture, PROMPT, method, **options)
    assert same(result.picture, edited)
    if result.mask is None:
        assert not any(step.mask is not None for step in steps)
    else:
        assert torch.equal(steps[-1].mask[-1:], result.mask)


def test_a_step_holds_all_that_it_was_made_of(small_model, inversion):
    """So that each of the loop's equations can be checked on it."""
    guidance = 3.0
    for step in ptinv.steps(small_model, inversion, PROMPT, "ddim-global", guidance=guidance):
        alpha, alpha_prev = step.timestep.alpha_from, step.timestep.alpha_to
        assert step.timestep.alpha_from == alpha
        assert torch.equal(step.eps, ptinv.ddim.guide(step.eps_null, step.eps_cond, guidance))
        assert torch.equal(step.z, ptinv.ddim.step(step.z_from, step.eps, alpha, alpha_prev))
        assert torch.equal(step.z0, ptinv.ddim.predict_z0(step.z_from, step.eps, alpha))
        assert step.mask is None


def test_the_first_step_leaves_the_inverted_picture(small_model, picture, inversion):
    first = next(ptinv.steps(small_model, picture, PROMPT, "pti", **STEPS))
    assert torch.equal(first.z_from, inversion.trajectory[-1])
    assert (first.k, first.timestep.t) == (3, 501)


def test_no_step_is_made_before_it_is_taken_and_none_after_closing(
    small_model, inversion, unet_calls
):
    steps = ptinv.steps(small_model, inversion, PROMPT)
    assert unet_calls == []
    next(steps)
    assert unet_calls == [501]
    assert torch.is_grad_enabled()  # the caller's own work between two steps
    next(steps)
    steps.close()
    assert list(steps) == []
    assert unet_calls == [501, 251]


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(prompt=" "), "the prompt is empty"),
        (dict(eta=1.5), "^eta "),
        (dict(method="magic"), "'magic'"),
        (dict(method="p2p", source=""), "^source is missing"),
        (dict(mask=Image.new("L", (48, 32), "black")), "all black"),
        (dict(reuse_tuning=True), "^reuse_tuning "),
    ],
)
def test_steps_are_refused_at_the_call(small_model, picture, unet_calls, options, reason):
    with pytest.raises(InputError, match=reason):
        ptinv.steps(small_model, picture, **{"prompt": PROMPT, **options})
    with pytest.raises(TypeError, match="strength"):
        ptinv.steps(small_model, picture, PROMPT, "pti", strength=0.5)
    assert unet_calls == []


# A result


def test_a_result_holds_what_is_known_of_an_edit(small_model, picture, inversion):
    result = ptinv.result(small_model, picture, PROMPT, "pti", eta=0.5, **STEPS)
    assert (result.request.settings.eta, result.request.settings.steps) == (0.5, 4)
    assert result.latent.shape == (1, 4, *small_model.latent_size(picture.size))
    assert result.mask.shape == (1, 1, *result.latent.shape[2:])
    assert result.losses.shape == (3, 1) and torch.equal(result.losses, inversion.losses)
    assert torch.equal(result.inversion.trajectory, inversion.trajectory)
    assert same(result.picture, resize(small_model.decode(result.latent), picture.size))
    assert same(result.decoded, small_model.decode(result.latent))


def test_a_result_without_a_tuning_or_a_mask_has_none(small_model, picture):
    result = ptinv.result(small_model, picture, PROMPT, "ddim-global", **STEPS)
    assert result.losses is None and result.mask is None


# Progress


def test_steps_show_the_same_progress(small_model, picture):
    labels = []

    def progress(loop, label):
        labels.append(label)
        return loop

    for _ in ptinv.steps(small_model, picture, PROMPT, "pti", progress=progress, **STEPS):
        pass
    assert labels == ["inverting", "tuning", "sampling"]
