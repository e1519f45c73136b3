"""The verbs, from pictures to pictures, on a model that was never trained: what holds
to the bit, an edit step by step, and what is refused before any work is done."""

import pytest
import torch
from edits import same
from PIL import Image
from small import PROMPT

import ptinv
from ptinv.errors import InputError

STEPS = dict(steps=4)


def latent(model, picture, prompt=PROMPT, method="pti", **options):
    """z_0 of an edit, before decoding hides anything."""
    return ptinv.result(model, picture, prompt, method, **{**STEPS, **options}).latent


# The ends of η and β


def test_eta_1_is_ddim_edit_to_the_bit(small_model, picture):
    assert torch.equal(
        latent(small_model, picture, eta=1.0), latent(small_model, picture, method="ddim-edit")
    )


def test_eta_0_is_the_reconstruction_to_the_bit(small_model, picture):
    edited = ptinv.edit(small_model, picture, PROMPT, "pti", eta=0.0, mask=None, **STEPS)
    assert same(edited, ptinv.reconstruct(small_model, picture, PROMPT, **STEPS))


@pytest.mark.parametrize("eta", [0.0, 0.4, 0.9])
def test_beta_0_is_ddim_edit_to_the_bit_whatever_eta(small_model, picture, eta):
    untuned = latent(small_model, picture, lr=0.0, inner_steps=2, eta=eta)
    assert torch.equal(untuned, latent(small_model, picture, method="ddim-edit"))


def test_between_the_ends_an_edit_is_neither(small_model, picture):
    tuned, half, target = (latent(small_model, picture, eta=eta) for eta in (0.0, 0.5, 1.0))
    assert not torch.equal(half, tuned)
    assert not torch.equal(half, target)


def test_a_null_embedding_left_untuned_reconstructs_without_guidance(small_model, picture):
    options = dict(init_embedding="null", inner_steps=0, eta=0.0, mask=None)
    free = latent(small_model, picture, **options)
    unguided = latent(small_model, picture, method="ddim-global", guidance=0.0)
    torch.testing.assert_close(free, unguided, rtol=1e-4, atol=1e-4)


def test_tuning_longer_reconstructs_better(small_model, picture):
    z0 = small_model.encode(picture)
    untuned, tuned = (
        (latent(small_model, picture, eta=0.0, mask=None, lr=0.03, inner_steps=n) - z0).square()
        for n in (0, 10)
    )
    assert tuned.mean() < untuned.mean() / 2


def test_reweighting_by_1_is_no_reweighting_and_by_2_is(small_model, picture):
    plain, one, two = (
        latent(small_model, picture, mask=None, reweight=weights)
        for weights in ({}, {"yellow": 1}, {"yellow": 2})
    )
    torch.testing.assert_close(one, plain, rtol=1e-3, atol=1e-3)
    assert (two - plain).abs().max() > 10 * (one - plain).abs().max()


# Pictures of any kind


@pytest.mark.parametrize("size", [(48, 32), (33, 57), (128, 16), (17, 100), (16, 16), (200, 150)])
def test_an_edit_has_the_picture_s_own_size(small_model, picture, size):
    assert ptinv.edit(small_model, picture.resize(size), PROMPT, "pti", **STEPS).size == size


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_a_picture_of_any_mode_is_edited_to_rgb(small_model, picture, mode):
    given = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
    edited = ptinv.edit(small_model, given, PROMPT, method="ddim-edit", **STEPS)
    assert (edited.mode, edited.size) == ("RGB", picture.size)


def test_a_picture_is_turned_upright_first(small_model, picture):
    lying = picture.transpose(Image.Transpose.ROTATE_90)
    lying.getexif()[0x0112] = 6  # to be shown a quarter turn clockwise
    assert torch.equal(small_model.encode(lying), small_model.encode(picture))
    for method in ("vae", "ddim"):
        assert same(
            ptinv.reconstruct(small_model, lying, method=method, **STEPS),
            ptinv.reconstruct(small_model, picture, method=method, **STEPS),
        )


# The same again


def test_the_same_inputs_give_the_same_bytes(small_model, picture):
    one, two = (ptinv.edit(small_model, picture, PROMPT, "pti", **STEPS) for _ in range(2))
    assert same(one, two)


def test_a_seed_makes_a_picture_and_another_seed_another(small_model):
    one, two, other = (
        ptinv.generate(small_model, PROMPT, seed=seed, steps=3) for seed in (1, 1, 2)
    )
    assert one.size == (32, 32)
    assert same(one, two)
    assert not same(one, other)


def test_nothing_that_is_given_is_changed(small_model, picture):
    pixels, reweight = picture.tobytes(), {"yellow": 2.0}
    mask = Image.new("L", picture.size, "white")
    ptinv.edit(small_model, picture, PROMPT, "pti", mask=mask, reweight=reweight, **STEPS)
    assert picture.tobytes() == pixels
    assert mask.getextrema() == (255, 255)
    assert reweight == {"yellow": 2.0}


# What is refused


def test_a_word_that_the_prompt_lacks_is_refused_before_a_step(small_model, picture, unet_calls):
    with pytest.raises(InputError, match='"boat" is not in the prompt'):
        next(ptinv.steps(small_model, picture, PROMPT, "pti", focus="boat", **STEPS))
    assert unet_calls == []


@pytest.mark.parametrize("verb", [ptinv.invert, ptinv.edit, ptinv.reconstruct])
def test_an_unknown_option_is_a_type_error(small_model, picture, verb, unet_calls):
    for method in ("pti", "ddim-edit"):
        with pytest.raises(TypeError, match="strength"):
            verb(small_model, picture, PROMPT, method, strength=0.5)
    assert unet_calls == []


@pytest.mark.parametrize("verb", [ptinv.invert, ptinv.edit, ptinv.reconstruct])
def test_an_unknown_method_is_refused_with_the_names_of_all(small_model, picture, verb):
    with pytest.raises(InputError, match="'magic'; there are pti, auto, fast, ddim-edit"):
        verb(small_model, picture, PROMPT, "magic")


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_edit_needs_a_prompt_and_a_reconstruction_does_not(
    small_model, picture, prompt, unet_calls
):
    with pytest.raises(InputError, match="the prompt is empty"):
        ptinv.edit(small_model, picture, prompt, "pti", **STEPS)
    assert unet_calls == []
    assert ptinv.reconstruct(small_model, picture, prompt, **STEPS).size == picture.size


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(focus="boat"), '"boat" is not in the prompt; its words are: a, yellow, car'),
        (dict(reweight={"boat": 2}), '"boat" is not in the prompt'),
        (dict(mask=Image.new("L", (48, 32), "black")), "all black"),
        (dict(mask=Image.new("L", (32, 48), "white")), "32 × 48 pixels but the picture is 48 × 32"),
    ],
)
def test_words_and_masks_are_refused_before_the_unet_is_called(
    small_model, picture, inversion, unet_calls, options, reason
):
    for given in (picture, inversion):
        with pytest.raises(InputError, match=reason):
            ptinv.edit(small_model, given, PROMPT, **options)
    assert unet_calls == []


# Progress


def test_each_long_loop_is_shown_by_the_progress(small_model, picture):
    loops = []

    def progress(loop, label):
        loops.append((label, len(loop)))
        return loop

    ptinv.edit(small_model, picture, PROMPT, "pti", progress=progress, **STEPS)
    assert loops == [("inverting", 3), ("tuning", 3), ("sampling", 3)]
