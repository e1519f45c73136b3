"""The methods that walk alone: what each must give back exactly, and where two of them are one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small import PROMPT

import ptinv
from ptinv import ddim, images, pipeline
from ptinv.editing.conditions import constant
from ptinv.editing.masks import attention_mask, combined, fixed, noise_difference, softened
from ptinv.editing.rules import low_pass
from ptinv.errors import InputError
from ptinv.inversion.ddim import ddim_inversion
from ptinv.inversion.noising import fresh_noise, noised
from ptinv.inversion.prompt_tuning import tune_prompt
from ptinv.inversion.residuals import residuals
from ptinv.inverting import settings_of
from ptinv.methods import METHODS
from ptinv.sampling import Walk, last, walk_down

STEPS = dict(steps=6)


def latent(model, picture, method, prompt=PROMPT, **options):
    settings = settings_of(picture, method, **{**STEPS, **options})
    return pipeline.run(model, picture, prompt, method, settings).z0


@pytest.fixture(scope="module")
def z0(small_model, picture):
    return small_model.encode(picture)


@pytest.fixture(scope="module")
def ddim_global(small_model, picture):
    return latent(small_model, picture, "ddim-global")


# What each gives back


def test_latent_interpolation_is_the_trajectory_at_0_and_ddim_global_at_1(
    small_model, picture, z0, ddim_global
):
    assert torch.equal(latent(small_model, picture, "latent", eta=0.0), z0)
    assert torch.equal(latent(small_model, picture, "latent", eta=1.0), ddim_global)


@pytest.mark.parametrize("encode_ratio", [0.2, 0.5, 0.84, 1.0])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_edit_friendly_inversion_returns_the_picture_at_every_skip(
    small_model, picture, z0, encode_ratio, guidance
):
    """To float32's rounding, as an untrained network's guided walk carries it on."""
    back = latent(
        small_model,
        picture,
        "edit-friendly",
        source=PROMPT,
        inversion_guidance=guidance,
        guidance=guidance,
        encode_ratio=encode_ratio,
    )
    torch.testing.assert_close(back, z0, rtol=0, atol=5e-4)


def test_edit_friendly_inversion_reconstructs_and_edits(small_model, picture):
    ceiling = ptinv.reconstruct(small_model, picture, method="vae")
    again = ptinv.reconstruct(small_model, picture, PROMPT, method="edit-friendly", **STEPS)
    difference = np.asarray(again, np.int16) - np.asarray(ceiling, np.int16)
    assert np.abs(difference).max() <= 1
    edited = ptinv.edit(small_model, picture, PROMPT, method="edit-friendly", **STEPS)
    assert edited.tobytes() != ceiling.tobytes()


def test_ilvr_with_a_filter_one_cell_wide_returns_the_picture(small_model, picture, z0):
    assert torch.equal(low_pass(z0, 1), z0)
    torch.testing.assert_close(
        latent(small_model, picture, "ilvr", low_pass=1), z0, rtol=0, atol=1e-6
    )
    assert (latent(small_model, picture, "ilvr", low_pass=4) - z0).abs().max() > 0.01


@pytest.mark.parametrize("method", ["sdedit", "noising", "ddim-global", "diffedit"])
def test_at_strength_0_the_encoded_picture_is_returned(small_model, picture, z0, method):
    assert torch.equal(latent(small_model, picture, method, encode_ratio=0.0), z0)


def test_a_method_that_makes_something_of_each_step_needs_one():
    for method in ("pti", "edit-friendly"):
        with pytest.raises(InputError, match="leaves none"):
            METHODS[method].settings(encode_ratio=0.0)


@pytest.mark.parametrize("method", ["sdedit", "ilvr", "edit-friendly"])
def test_a_seed_decides_what_noise_decides(small_model, picture, method):
    one, again, other = (latent(small_model, picture, method, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_ancestral_sampler_is_another_walk(small_model, picture):
    plain, noisy = (
        latent(small_model, picture, "sdedit", sampler=s) for s in ("ddim", "ancestral")
    )
    assert not torch.equal(plain, noisy)


def test_an_inversion_can_be_guided_by_a_text_of_the_picture(small_model, picture, ddim_global):
    guided = latent(small_model, picture, "ddim-global", inversion_guidance=1.0, source=PROMPT)
    assert not torch.equal(guided, ddim_global)
    with pytest.raises(InputError, match="source"):
        ptinv.invert(small_model, picture, method="ddim-global", inversion_guidance=1.0, **STEPS)


def test_an_inversion_of_another_kind_is_refused(small_model, picture):
    inversion = ptinv.invert(small_model, picture, method="sdedit", **STEPS)
    with pytest.raises(InputError, match="one Gaussian noise.*needs DDIM inversion"):
        ptinv.edit(small_model, inversion, PROMPT, method="pti")
    assert ptinv.edit(small_model, inversion, PROMPT, method="sdedit").size == picture.size


def test_a_row_without_a_name_runs(small_model, picture, ddim_global):
    unmasked = replace(METHODS["ddim-edit"], defaults={})
    assert torch.equal(latent(small_model, picture, unmasked), ddim_global)


def test_with_eta_0_the_walk_is_the_one_that_was_tuned(small_model, picture):
    """Not only the same call: sampled here under c_t alone, and where the tuning itself landed."""
    inversion = ptinv.invert(small_model, picture, PROMPT, **STEPS)
    found, null = inversion.on("cpu"), small_model.embed("")
    walk = Walk(lambda k: (null, found["embeddings"][k - 1]), 7.5)
    start, rungs = found["trajectory"][-1], inversion.rungs[::-1]
    with torch.no_grad():
        by_hand = list(walk_down(small_model, start, rungs, walk))
    edited = latent(small_model, picture, "pti", eta=0.0, mask=None)
    assert torch.equal(edited, by_hand[-1])
    missed = (by_hand[-1] - found["trajectory"][0]).square().mean()
    torch.testing.assert_close(missed, inversion.losses[0], rtol=1e-3, atol=1e-6)


# Pictures of two sizes, one by one and two at once


@pytest.mark.parametrize("size", [(4, 4), (4, 8)])
def test_every_inversion_takes_several_latents_and_treats_each_alone(small_model, size):
    """To 1e-4, since a batch of two adds up in another order than a batch of one."""
    z, rungs = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)), ddim.ladder(3)
    null, target = small_model.embed(""), small_model.embed(PROMPT)
    noise = fresh_noise(0, 0, (1, 4, *size))

    def all_of(z):
        condition = constant(null, target)
        guided = ddim_inversion(small_model, z, rungs, condition, 2.0)
        trajectory = ddim_inversion(small_model, z, rungs)
        tuning = tune_prompt(small_model, trajectory, rungs, target, lr=0.01)
        with torch.no_grad():
            missed = residuals(small_model, trajectory, rungs, Walk(condition))
        return guided, trajectory, noised(z, rungs, noise), missed, tuning.losses

    both, alone = all_of(z), [all_of(one) for one in z.split(1)]
    for together, first, second in zip(both, *alone, strict=True):
        assert together.shape[1] == 2
        torch.testing.assert_close(together, torch.cat([first, second], 1), rtol=1e-3, atol=1e-4)


def test_residuals_put_back_lead_to_the_picture_whatever_the_guidance(small_model, z0):
    rungs, null, target = ddim.ladder(4), small_model.embed(""), small_model.embed(PROMPT)
    walk = Walk(constant(null, target), 7.5)
    with torch.no_grad():
        trajectory = ddim_inversion(small_model, z0, rungs)
        missed = residuals(small_model, trajectory, rungs, walk)
        back = replace(walk, after=(lambda step: step.z + missed[step.rung.k - 1],))
        bottom = last(walk_down(small_model, trajectory[-1], rungs[::-1], back), trajectory[-1])
    torch.testing.assert_close(bottom, z0, rtol=0, atol=5e-4)  # as above


# Noise


def test_noises_do_not_depend_on_the_order_in_which_they_are_asked_for():
    noise = fresh_noise(3, 0, (1, 4, 8, 8))
    forwards = [noise(k) for k in range(5)]
    assert all(torch.equal(noise(k), forwards[k]) for k in reversed(range(5)))
    for other in (fresh_noise(4, 0, (1, 4, 8, 8)), fresh_noise(3, 1, (1, 4, 8, 8))):
        assert not torch.equal(other(2), forwards[2])


# Masks


def mask_of(*cells):
    return fixed(torch.tensor(cells, dtype=torch.float32).reshape(1, 1, 1, -1))


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("a", [1, 1, 0, 0]),
        ("~a", [0, 0, 1, 1]),
        ("a+b", [1, 1, 1, 0]),
        ("a*b", [1, 0, 0, 0]),
        ("a * ~b", [0, 1, 0, 0]),
        ("~a*b+a", [1, 1, 1, 0]),
    ],
)
def test_masks_are_joined(expression, expected):
    named = {"a": mask_of(1, 1, 0, 0), "b": mask_of(1, 0, 1, 0)}
    assert combined(expression, named.__getitem__)(1).flatten().tolist() == expected


def test_what_is_not_known_yet_stays_unknown():
    named = {"a": mask_of(1, 0), "later": lambda k: None}
    for expression in ("a+later", "a*later", "~later"):
        assert combined(expression, named.__getitem__)(1) is None


def test_a_softened_mask_grows_and_fades_outside_and_keeps_its_middle():
    dot = torch.zeros(1, 1, 9, 9)
    dot[..., 4, 4] = 1
    assert softened(fixed(dot), 1, 0)(1).sum() == 9
    faded = softened(fixed(dot), 0, 1)(1)[0, 0]
    assert faded[4, 4] == 1 and 0 < faded[4, 6] < faded[4, 5] < 1 and faded[4, 7] == 0


def test_each_object_can_have_its_own_measure():
    maps = torch.full((1, 16, 16), 0.01)
    for x, peak in ((2, 1.0), (8, 0.28), (13, 0.12)):
        maps[0, 8, x] = peak
    together, each = (attention_mask(maps, (16, 16), 0.3, by)[0, 0] for by in (False, True))
    assert [together[8, x].item() for x in (2, 8, 13)] == [1, 0, 0]
    assert [each[8, x].item() for x in (2, 8, 13)] == [1, 1, 1]
    assert each[0].sum() == 0 and each[-1].sum() == 0  # the ground is still left out


def test_a_difference_of_noises_is_the_same_in_chunks_and_none_between_equal_texts(small_model, z0):
    null, target = small_model.embed(""), small_model.embed(PROMPT)
    noise = fresh_noise(0, 2, z0.shape)
    whole, chunks = (
        noise_difference(small_model, z0, null, target, 10, noise, draws=5, chunk=n)
        for n in (20, 4)
    )
    torch.testing.assert_close(chunks, whole, rtol=1e-4, atol=1e-4)
    assert whole.shape == (1, 1, *z0.shape[-2:])
    assert 0 <= whole.min() and whole.max() <= 1
    same = noise_difference(small_model, z0, target, target, 10, noise, draws=2)
    assert not same.any()


# Pixels


def test_outside_the_mask_the_picture_s_own_pixels_can_be_put_back(small_model, picture):
    mask = Image.new("L", picture.size, "black")
    mask.paste("white", (0, 0, 8, 8))
    edited = ptinv.edit(small_model, picture, PROMPT, mask=mask, paste_back=True, **STEPS)
    plain = ptinv.edit(small_model, picture, PROMPT, mask=mask, **STEPS)
    old, new, free = (np.asarray(images.to_rgb(p)) for p in (picture, edited, plain))
    assert np.array_equal(old[16:], new[16:]) and np.array_equal(old[:, 16:], new[:, 16:])
    assert not np.array_equal(old[16:], free[16:])
    assert not np.array_equal(old[:8, :8], new[:8, :8])


def test_putting_back_needs_a_mask():
    with pytest.raises(InputError, match="paste_back needs a mask"):
        METHODS["ddim-global"].settings(paste_back=True)
    with pytest.raises(InputError, match="mask_from names magic"):
        METHODS["pti"].settings(mask_from="attention+magic")
    with pytest.raises(InputError, match="names a file"):
        METHODS["pti"].settings(mask_from="attention*file")
