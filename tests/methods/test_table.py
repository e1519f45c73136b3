"""The table of methods: what each row gives back exactly, and where two of them are one."""

from dataclasses import replace

import pytest
import torch
from edits import SOURCE, largest_difference, latent, result
from small import OTHER_PROMPT, PROMPT
from tensors import normal

import ptinv
from ptinv.core.pti import guided_step, interpolate
from ptinv.core.sampling import constant, last, sample
from ptinv.errors import InputError
from ptinv.methods import stages
from ptinv.methods.request import settings_for
from ptinv.methods.table import METHODS

STEPS = dict(steps=6)


@pytest.fixture(scope="module")
def z0(small_model, picture):
    return small_model.encode(picture)


@pytest.fixture(scope="module")
def ddim_global(small_model, picture):
    return latent(small_model, picture, "ddim-global")


# Conditions


NULL, TARGET = normal(1, 77, 8, seed=1), normal(1, 77, 8, seed=3)
TUNED = normal(3, 1, 77, 8, seed=2)


def test_a_constant_condition_is_the_same_at_every_step():
    condition = constant(NULL, TARGET)
    assert condition(1) == condition(40) == (NULL, TARGET)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_interpolation_is_exact_at_both_ends_and_between_them_a_mixture(k):
    c_t = TUNED[k - 1]
    for eta, expected in [(0.0, c_t), (1.0, TARGET)]:
        null, c = interpolate(NULL, TUNED, TARGET, eta)(k)
        assert null is NULL
        assert torch.equal(c, expected)
    _, c = interpolate(NULL, TUNED, TARGET, 0.9)(k)
    torch.testing.assert_close(c, 0.9 * TARGET + 0.1 * c_t)


@pytest.mark.parametrize("eta", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_interpolation_between_equals_changes_nothing(eta):
    _, c = interpolate(NULL, TARGET.expand(3, 1, -1, -1), TARGET, eta)(2)
    assert torch.equal(c, TARGET)


# What each row gives back


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
    """To float32's rounding, as an untrained network's guided steps carry it on."""
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
    torch.testing.assert_close(narrow, z0, rtol=0, atol=1e-6)
    assert (wide - z0).abs().max() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_no_method_edits_in_no_step(method):
    with pytest.raises(InputError, match="encode_ratio 0.0 leaves none of the 50 steps; raise it"):
        METHODS[method].settings(steps=50, encode_ratio=0.0, source="a car")


@pytest.mark.slow
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
def test_a_seed_changes_nothing_where_no_noise_is_drawn(small_model, picture, method):
    one, other = (latent(small_model, picture, method, seed=seed) for seed in (1, 2))
    assert torch.equal(one, other)


def test_naive_noising_forgets_the_prompt_and_sdedit_does_not(small_model, picture):
    for method, forgets in (("noising", True), ("sdedit", False)):
        one, other = (
            latent(small_model, picture, method, prompt) for prompt in (PROMPT, OTHER_PROMPT)
        )
        assert torch.equal(one, other) == forgets


def test_the_ancestral_sampler_leads_elsewhere(small_model, picture):
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


@pytest.mark.slow
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
        settings_for(inversion, method, source="a blue boat")


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
    unmasked = replace(METHODS["ddim-edit"], defaults={"mask_from": None})
    assert torch.equal(latent(small_model, picture, unmasked), ddim_global)


def test_a_row_can_be_put_together_from_the_cells_of_others(small_model, picture):
    ilvr = replace(
        METHODS["ddim-global"],
        trajectory=stages.NOISED_EACH,
        after=METHODS["ilvr"].after,
        defaults={"encode_ratio": 1.0, "sampler": "ancestral", "mask_from": None},
    )
    assert torch.equal(latent(small_model, picture, ilvr), latent(small_model, picture, "ilvr"))


def test_prompt_tuning_takes_the_after_step_rule_of_another_row(small_model, picture, z0):
    """Eqs. 9 and 10 at once: at η = 0 both lead to the picture, at η = 1 neither is at work."""
    both = replace(METHODS["pti"], after=METHODS["latent"].after)
    assert torch.equal(latent(small_model, picture, both, eta=0.0, mask=None), z0)
    plain, mixed = (latent(small_model, picture, row, eta=1.0) for row in ("pti", both))
    assert torch.equal(mixed, plain)


def test_an_inversion_by_a_row_without_a_name_is_saved_and_serves_by_its_stages(
    small_model, picture, tmp_path
):
    copy = replace(METHODS["pti"], title="without a name")
    inversion = ptinv.invert(small_model, picture, PROMPT, method=copy, lr=0.05, **STEPS)
    inversion.save(path := tmp_path / "inversion.safetensors")
    opened = ptinv.Inversion.load(path)
    assert opened.settings["method"] == [stages.INVERTED.title, stages.TUNED.title]
    expected = latent(small_model, picture, "pti", lr=0.05)
    for made in (inversion, opened):
        for method in (copy, "pti"):
            assert torch.equal(latent(small_model, made, method), expected)
    with pytest.raises(InputError, match="give the method"):
        ptinv.edit(small_model, opened, PROMPT)


# Prompt Tuning Inversion at η = 0


def test_with_eta_0_sampling_follows_what_was_tuned(small_model, picture):
    """Sampled here under c_t alone, to the bit; and where the tuning itself had landed."""
    inversion = ptinv.invert(small_model, picture, PROMPT, **STEPS)
    embeddings, null = inversion.embeddings, small_model.embed("")
    start = inversion.trajectory[-1]
    edited = latent(small_model, picture, "pti", eta=0.0, mask=None)
    with torch.no_grad():
        z = start
        for step in reversed(inversion.schedule):
            eps_null = small_model.predict_noise(z, step.t, null)
            z = guided_step(small_model, z, step, eps_null, 7.5, embeddings[step.k - 1])
    steps = sample(
        small_model, start, inversion.schedule[::-1], lambda k: (null, embeddings[k - 1]), 7.5
    )
    by_hand = last(steps, start)
    assert torch.equal(edited, by_hand)
    # the tuning asks for each side of guidance in a call of its own: float32's rounding
    torch.testing.assert_close(edited, z, rtol=0, atol=1e-4)
    missed = (edited - inversion.trajectory[0]).square().mean()
    torch.testing.assert_close(missed, inversion.losses[0, 0], rtol=1e-3, atol=1e-6)


# Pictures of two sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.slow if name == "null-text" else ()) for name in METHODS],
)
@pytest.mark.parametrize("size, latent_size", [((48, 32), (14, 20)), ((30, 60), (22, 12))])
def test_every_method_inverts_and_samples_a_picture_of_any_size(
    small_model, picture, method, size, latent_size
):
    given = picture.resize(size)
    made = result(small_model, given, method)
    trajectory, steps = made.inversion.trajectory, len(made.inversion.schedule)
    assert trajectory.shape == (steps + 1, 1, 4, *latent_size)
    assert torch.equal(trajectory[0], small_model.encode(given))
    assert made.latent.shape == (1, 4, *latent_size) and made.latent.isfinite().all()
    assert bool(made.inversion.extras) == (METHODS[method].extra is not None)
    assert made.picture.size == size
