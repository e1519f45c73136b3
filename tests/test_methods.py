"""The methods that walk alone: what each must give back exactly, and where two of them are one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv import choices, ddim, images, methods, pipeline, stages
from ptinv.editing.conditions import constant
from ptinv.editing.masks import noise_difference
from ptinv.errors import InputError
from ptinv.inversion.ddim import ddim_inversion
from ptinv.inversion.noising import fresh_noise, noised
from ptinv.inversion.null_text import tune_null
from ptinv.inversion.prompt_tuning import guided_step, tune_prompt
from ptinv.inversion.residuals import residuals
from ptinv.inverting import settings_of
from ptinv.methods import METHODS
from ptinv.sampling import Walk, last, walk_down

STEPS = dict(steps=6)
SOURCE = "a red car on the grass"


def source_for(method):
    """A text of the picture for the methods that need one."""
    return dict(source=SOURCE) if methods.find(method).needs_source else {}


def result(model, picture, method, prompt=PROMPT, **options):
    if not isinstance(picture, ptinv.Inversion):
        options = {**STEPS, **source_for(method), **options}
    return pipeline.run(model, picture, prompt, method, settings_of(picture, method, **options))


def latent(*args, **options):
    """z_0 of an edit, before decoding hides anything."""
    return result(*args, **options).z0


@pytest.fixture(scope="module")
def z0(small_model, picture):
    return small_model.encode(picture)


@pytest.fixture(scope="module")
def ddim_global(small_model, picture):
    return latent(small_model, picture, "ddim-global")


def largest_difference(a, b):
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max()


# Masks that are full, and masks that are empty


MASKED = ["ddim-edit", "diffedit", "diffedit-port"]


@pytest.mark.parametrize("method", MASKED)
def test_a_mask_that_is_white_everywhere_is_ddim_global_to_the_bit(
    small_model, picture, ddim_global, method
):
    white = Image.new("L", picture.size, "white")
    assert torch.equal(latent(small_model, picture, method, mask=white), ddim_global)


@pytest.mark.parametrize("method", ["pti", *MASKED])
def test_where_a_mask_is_black_the_encoded_picture_comes_back(small_model, picture, z0, method):
    mask = Image.new("L", picture.size, "black")
    mask.putpixel((0, 0), 255)
    edited = latent(small_model, picture, method, mask=mask)
    outside = images.to_mask(mask, z0.shape[:1:-1]).eq(0).expand_as(z0)
    assert outside.float().mean() > 0.9
    assert torch.equal(edited[outside], z0[outside])
    assert not torch.equal(edited[~outside], z0[~outside])


@pytest.mark.parametrize("method", ["pti", *MASKED])
def test_a_threshold_of_1_masks_everything_and_the_encoded_picture_comes_back(
    small_model, picture, z0, method
):
    edited = result(small_model, picture, method, mask_threshold=1.0)
    assert not edited.mask.any()
    assert torch.equal(edited.z0, z0)


@pytest.mark.parametrize("method", ["diffedit", "diffedit-port"])
@pytest.mark.parametrize(
    "full",
    [dict(mask_threshold=0.0), dict(mask_dilate=64), dict(mask_from="difference+~difference")],
)
def test_diffedit_s_own_mask_where_it_is_full_is_ddim_global_to_the_bit(
    small_model, picture, ddim_global, method, full
):
    edited = result(small_model, picture, method, **full)
    assert edited.mask.all()
    assert torch.equal(edited.z0, ddim_global)


def test_local_blending_s_own_mask_where_it_is_full_is_ddim_global(
    small_model, picture, ddim_global
):
    edited = result(small_model, picture, "ddim-edit", mask_threshold=0.0)
    assert edited.mask.all()
    # the attention that is listened to is not computed by the fused kernel: float32's rounding
    torch.testing.assert_close(edited.z0, ddim_global, rtol=0, atol=1e-4)


def test_masks_of_several_kinds_work_together(small_model, picture, z0):
    left = Image.new("L", picture.size, "black")
    left.paste("white", (0, 0, 24, 32))
    either, both, none = (
        result(small_model, picture, "pti", mask=left, mask_from=expression).mask
        for expression in ("attention+file", "attention*file", "attention*file*~attention")
    )
    file = images.to_mask(left, z0.shape[:1:-1])
    assert torch.equal(torch.maximum(either, file), either)
    assert torch.equal(torch.minimum(both, file), both)
    assert torch.equal(either + both, file + result(small_model, picture, "pti").mask)
    assert not none.any()


def test_a_prompt_that_names_nothing_edits_everywhere_whatever_else_masks_it(
    small_model, picture, ddim_global
):
    white = Image.new("L", picture.size, "white")
    everywhere = latent(small_model, picture, "ddim-global", "the")
    for expression in ("attention", "attention+difference", "attention*file"):
        mask = white if "file" in expression else "auto"
        options = dict(mask=mask, mask_from=expression)
        assert torch.equal(latent(small_model, picture, "ddim-edit", "the", **options), everywhere)


# DiffEdit


def test_diffedit_is_ddim_global_inside_its_mask_of_differences_and_the_picture_outside(
    small_model, picture, z0
):
    edited = result(small_model, picture, "diffedit")
    shares = noise_difference(
        small_model,
        z0,
        small_model.embed(""),
        small_model.embed(PROMPT),
        STEPS["steps"],
        fresh_noise(0, 2, z0.shape),
    )
    assert torch.equal(edited.mask, (shares > 0.5).float())
    outside = edited.mask.eq(0).expand_as(z0)
    assert 0 < outside.float().mean() < 1
    assert torch.equal(edited.z0[outside], z0[outside])
    assert not torch.equal(edited.z0[~outside], z0[~outside])


def test_diffedit_compares_with_the_source_text_where_there_is_one(small_model, picture):
    without, other = (
        result(small_model, picture, "diffedit", mask_threshold=0.3, **options).mask
        for options in ({}, dict(source=SOURCE))
    )
    assert not torch.equal(without, other)
    same = result(small_model, picture, "diffedit", source=PROMPT)
    assert not same.mask.any()


def test_the_port_s_ten_noises_are_one_and_it_cuts_at_four_times_the_mean():
    paper, port = (METHODS[name].settings() for name in ("diffedit", "diffedit-port"))
    assert (paper.mask_draws, paper.mask_clamp, paper.mask_threshold) == (10, 3.0, 0.5)
    assert port == replace(paper, mask_draws=1, mask_clamp=4.0)


# What each gives back


def test_latent_interpolation_is_the_picture_at_0_and_ddim_global_at_1(
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
    stored = ptinv.invert(small_model, picture, method="edit-friendly", **STEPS)
    for given, options in ((picture, STEPS), (stored, {})):
        again = ptinv.reconstruct(small_model, given, PROMPT, method="edit-friendly", **options)
        assert largest_difference(again, ceiling) <= 1  # of 255 levels, where rounding tips one
    edited = ptinv.edit(small_model, picture, PROMPT, method="edit-friendly", **STEPS)
    assert largest_difference(edited, ceiling) > 1


def test_ilvr_with_a_filter_one_cell_wide_returns_the_picture(small_model, picture, z0):
    narrow, wide = (latent(small_model, picture, "ilvr", low_pass=width) for width in (1, 4))
    assert torch.equal(narrow, z0)
    assert (wide - z0).abs().max() > 0.01


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.extra is None])
def test_at_strength_0_the_encoded_picture_is_returned(small_model, picture, z0, method):
    assert torch.equal(latent(small_model, picture, method, encode_ratio=0.0), z0)


@pytest.mark.parametrize("method", ["pti", "edit-friendly"])
def test_a_method_that_makes_something_of_each_step_needs_one(method):
    with pytest.raises(InputError, match="leaves none"):
        METHODS[method].settings(encode_ratio=0.0)


@pytest.mark.parametrize("method", ["pti", "ddim-edit", "diffedit"])
def test_weighing_a_word_by_1_changes_nothing(small_model, picture, method):
    plain, weighed, doubled = (
        latent(small_model, picture, method, reweight=reweight)
        for reweight in ({}, {"yellow": 1.0}, {"yellow": 2.0})
    )
    # without a weight the layers use the fused kernel, which rounds otherwise
    torch.testing.assert_close(weighed, plain, rtol=0, atol=1e-4)
    assert (doubled - plain).abs().max() > 1e-3


# Noise and guidance


@pytest.mark.parametrize("method", ["noising", "sdedit", "ilvr", "edit-friendly"])
def test_a_seed_decides_what_noise_decides(small_model, picture, method):
    one, again, other = (latent(small_model, picture, method, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("method", ["pti", "ddim-global", "latent"])
def test_and_nothing_else(small_model, picture, method):
    one, other = (latent(small_model, picture, method, seed=seed) for seed in (1, 2))
    assert torch.equal(one, other)


def test_naive_noising_forgets_the_prompt_and_sdedit_does_not(small_model, picture):
    for method, forgets in (("noising", True), ("sdedit", False)):
        one, other = (
            latent(small_model, picture, method, prompt) for prompt in (PROMPT, OTHER_PROMPT)
        )
        assert torch.equal(one, other) == forgets


def test_the_ancestral_sampler_is_another_walk(small_model, picture):
    plain, noisy = (
        latent(small_model, picture, "sdedit", sampler=sampler) for sampler in ("ddim", "ancestral")
    )
    assert not torch.equal(plain, noisy)


def test_an_inversion_can_be_guided_by_a_text_of_the_picture(small_model, picture, ddim_global):
    guided, harder = (
        latent(small_model, picture, "ddim-global", inversion_guidance=w, source=SOURCE)
        for w in (1.0, 3.0)
    )
    assert not torch.equal(guided, ddim_global)
    assert not torch.equal(guided, harder)
    with pytest.raises(InputError, match="source"):
        ptinv.invert(small_model, picture, method="ddim-global", inversion_guidance=1.0, **STEPS)


@pytest.mark.parametrize("method", ["pti", "ddim-edit", "ddim-global"])
@pytest.mark.parametrize("made_by", ["pti", "ddim-global"])
def test_a_stored_inversion_remembers_the_text_that_guided_it(
    small_model, picture, made_by, method
):
    guided = dict(inversion_guidance=1.0, source=SOURCE)
    inversion = ptinv.invert(small_model, picture, method=made_by, **guided, **STEPS)
    fresh = latent(small_model, picture, method, **guided)
    assert torch.equal(latent(small_model, inversion, method), fresh)
    with pytest.raises(InputError, match=f"^source must be {SOURCE!r}, the text that guided"):
        settings_of(inversion, method, source="a blue boat")


def test_an_inversion_of_another_kind_is_refused(small_model, picture):
    inversion = ptinv.invert(small_model, picture, method="sdedit", **STEPS)
    with pytest.raises(InputError, match="one Gaussian noise.*needs DDIM inversion"):
        ptinv.edit(small_model, inversion, PROMPT, method="pti")
    assert ptinv.edit(small_model, inversion, PROMPT, method="sdedit").size == picture.size


# Rows without a name


def test_a_copy_of_a_row_is_the_row(small_model, picture):
    copy = replace(METHODS["pti"], title="without a name")
    named, unnamed = (
        ptinv.edit(small_model, picture, PROMPT, method=method, **STEPS) for method in ("pti", copy)
    )
    assert largest_difference(named, unnamed) == 0


def test_a_row_without_its_mask_is_the_row_that_has_none(small_model, picture, ddim_global):
    unmasked = replace(METHODS["ddim-edit"], defaults={})
    assert torch.equal(latent(small_model, picture, unmasked), ddim_global)


def test_a_row_can_be_put_together_from_the_cells_of_others(small_model, picture):
    ilvr = replace(
        METHODS["ddim-global"],
        trajectory=stages.NOISED_EACH,
        after=choices.low_frequencies,
        defaults={"encode_ratio": 1.0, "sampler": "ancestral"},
    )
    assert torch.equal(latent(small_model, picture, ilvr), latent(small_model, picture, "ilvr"))


def test_prompt_tuning_takes_the_after_step_rule_of_another_row(small_model, picture, z0):
    """Eqs. 9 and 10 at once: at η = 0 both lead to the picture, at η = 1 neither is at work."""
    both = replace(METHODS["pti"], after=choices.latent_interpolation)
    assert torch.equal(latent(small_model, picture, both, eta=0.0, mask=None), z0)
    plain, mixed = (latent(small_model, picture, row, eta=1.0) for row in ("pti", both))
    assert torch.equal(mixed, plain)


def test_an_inversion_by_a_row_without_a_name_serves_but_is_not_saved(
    small_model, picture, tmp_path
):
    copy = replace(METHODS["pti"], title="without a name")
    inversion = ptinv.invert(small_model, picture, PROMPT, method=copy, **STEPS)
    assert torch.equal(latent(small_model, inversion, copy), latent(small_model, picture, "pti"))
    with pytest.raises(InputError, match="no name"):
        inversion.save(tmp_path / "inversion.safetensors")
    assert list(tmp_path.iterdir()) == []


# Prompt Tuning Inversion at η = 0


def test_with_eta_0_the_walk_is_the_one_that_was_tuned(small_model, picture):
    """Sampled here under c_t alone, to the bit; and where the tuning itself had landed."""
    inversion = ptinv.invert(small_model, picture, PROMPT, **STEPS)
    found, null = inversion.on("cpu"), small_model.embed("")
    embeddings, start = found["embeddings"], found["trajectory"][-1]
    walk = Walk(lambda k: (null, embeddings[k - 1]), 7.5)
    edited = latent(small_model, picture, "pti", eta=0.0, mask=None)
    with torch.no_grad():
        z = start
        for rung in reversed(inversion.rungs):
            eps_null = small_model.predict_noise(z, rung.t, null)
            z = guided_step(small_model, z, rung, eps_null, 7.5, embeddings[rung.k - 1])
        by_hand = last(walk_down(small_model, start, inversion.rungs[::-1], walk), start)
    assert torch.equal(edited, by_hand)
    # the tuning asks for each side of guidance in a call of its own: float32's rounding
    torch.testing.assert_close(edited, z, rtol=0, atol=1e-4)
    missed = (edited - found["trajectory"][0]).square().mean()
    torch.testing.assert_close(missed, inversion.losses[0], rtol=1e-3, atol=1e-6)


# Pictures of two sizes, one by one and two at once


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size, cells", [((48, 32), (14, 20)), ((30, 60), (22, 12))])
def test_every_method_inverts_and_walks_over_a_picture_of_any_size(
    small_model, picture, method, size, cells
):
    given = picture.resize(size)
    row, settings = METHODS[method], settings_of(given, method, **STEPS, **source_for(method))
    walked = pipeline.run(small_model, given, PROMPT, method, settings)
    trajectory = walked.inversion.trajectory
    rungs = len(walked.inversion.rungs)
    assert trajectory.shape == (rungs + 1, 4, *cells)
    assert torch.equal(trajectory[:1], small_model.encode(given))
    assert walked.z0.shape == (1, 4, *cells) and walked.z0.isfinite().all()
    assert bool(walked.inversion.extras) == (row.extra is not None)
    assert walked.picture.size == size


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
        null_tuning = tune_null(small_model, trajectory, rungs, target, inner_steps=1)
        with torch.no_grad():
            missed = residuals(small_model, trajectory, rungs, Walk(condition))
        exact = guided, trajectory, noised(z, rungs, noise), missed
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


@pytest.mark.parametrize(
    "method, expression", [("pti", "attention*file"), ("diffedit", "difference*file")]
)
def test_the_last_mask_of_a_walk_says_which_pixels_are_put_back(
    small_model, picture, method, expression
):
    left = Image.new("L", picture.size, "black")
    left.paste("white", (0, 0, 24, 32))
    options = dict(mask=left, mask_from=expression, mask_threshold=0.3, paste_back=True)
    walked = result(small_model, picture, method, **options)
    outside = images.spread(walked.mask, picture.size).eq(0).numpy()
    assert 0 < outside.mean() < 1
    old, new = (np.asarray(p) for p in (images.to_rgb(picture), walked.picture))
    assert np.array_equal(old[outside], new[outside])
    assert not np.array_equal(old[~outside], new[~outside])


def test_after_no_steps_all_of_the_picture_is_its_own(small_model, picture):
    white = Image.new("L", picture.size, "white")
    options = dict(mask=white, paste_back=True, encode_ratio=0.0)
    same = ptinv.edit(small_model, picture, PROMPT, method="sdedit", **options)
    assert largest_difference(same, images.to_rgb(picture)) == 0


def test_putting_back_needs_a_mask():
    with pytest.raises(InputError, match="paste_back needs a mask"):
        METHODS["ddim-global"].settings(paste_back=True)
    with pytest.raises(InputError, match="mask_from names magic"):
        METHODS["pti"].settings(mask_from="attention+magic")
    with pytest.raises(InputError, match="names a file"):
        METHODS["pti"].settings(mask_from="attention*file")
