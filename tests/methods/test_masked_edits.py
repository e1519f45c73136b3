"""Edits under masks: full and empty ones, DiffEdit's own, and the picture's pixels outside them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from edits import SOURCE, latent, result
from PIL import Image
from small import PROMPT

import ptinv
from ptinv.core.pictures import to_rgb
from ptinv.errors import InputError
from ptinv.methods.masks import noise_difference, spread, to_mask
from ptinv.methods.request import request_edit
from ptinv.methods.run import prepare
from ptinv.methods.table import METHODS

STEPS = dict(steps=6)


@pytest.fixture(scope="module")
def z0(small_model, picture):
    return small_model.encode(picture)


@pytest.fixture(scope="module")
def ddim_global(small_model, picture):
    return latent(small_model, picture, "ddim-global")


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
    outside = to_mask(mask, z0.shape[2:]).eq(0).expand_as(z0)
    assert outside.float().mean() > 0.9
    assert torch.equal(edited[outside], z0[outside])
    assert not torch.equal(edited[~outside], z0[~outside])


@pytest.mark.parametrize("method", ["pti", *MASKED])
def test_a_threshold_of_1_masks_everything_and_the_encoded_picture_comes_back(
    small_model, picture, z0, method
):
    edited = result(small_model, picture, method, mask_threshold=1.0)
    assert not edited.mask.any()
    assert torch.equal(edited.latent, z0)


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
    assert torch.equal(edited.latent, ddim_global)


def test_local_blending_s_own_mask_where_it_is_full_is_ddim_global(
    small_model, picture, ddim_global
):
    edited = result(small_model, picture, "ddim-edit", mask_threshold=0.0)
    assert edited.mask.all()
    # attention that is recorded is not computed by the fused kernel: float32's rounding
    torch.testing.assert_close(edited.latent, ddim_global, rtol=0, atol=1e-4)


def test_masks_of_several_kinds_work_together(small_model, picture, z0):
    left = Image.new("L", picture.size, "black")
    left.paste("white", (0, 0, 24, 32))
    either, both, none = (
        result(small_model, picture, "pti", mask=left, mask_from=expression).mask
        for expression in ("attention+file", "attention*file", "attention*file*~attention")
    )
    file = to_mask(left, z0.shape[2:])
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
    edit = prepare(small_model, request_edit(picture, PROMPT, "diffedit", **STEPS))
    assert torch.equal(edit.source, small_model.embed(""))
    shares = noise_difference(edit)
    assert torch.equal(edited.mask, (shares > 0.5).float())
    outside = edited.mask.eq(0).expand_as(z0)
    assert 0 < outside.float().mean() < 1
    assert torch.equal(edited.latent[outside], z0[outside])
    assert not torch.equal(edited.latent[~outside], z0[~outside])


def test_diffedit_compares_with_the_source_text_where_there_is_one(small_model, picture):
    without, other = (
        result(small_model, picture, "diffedit", mask_threshold=0.3, **options).mask
        for options in ({}, dict(source=SOURCE))
    )
    assert not torch.equal(without, other)
    same = result(small_model, picture, "diffedit", source=PROMPT)
    assert not same.mask.any()


def test_the_port_s_ten_noises_are_one():
    paper, port = (METHODS[name].settings() for name in ("diffedit", "diffedit-port"))
    assert (paper.mask_draws, paper.mask_clamp, paper.mask_threshold) == (10, 3.0, 0.5)
    assert port == replace(paper, mask_draws=1)


# Pixels


def test_outside_the_mask_the_picture_s_own_pixels_can_be_put_back(small_model, picture):
    mask = Image.new("L", picture.size, "black")
    mask.paste("white", (0, 0, 8, 8))
    edited = ptinv.edit(small_model, picture, PROMPT, "pti", mask=mask, paste_back=True, **STEPS)
    plain = ptinv.edit(small_model, picture, PROMPT, "pti", mask=mask, **STEPS)
    old, new, free = (np.asarray(to_rgb(p)) for p in (picture, edited, plain))
    assert np.array_equal(old[16:], new[16:]) and np.array_equal(old[:, 16:], new[:, 16:])
    assert not np.array_equal(old[16:], free[16:])
    assert not np.array_equal(old[:8, :8], new[:8, :8])


@pytest.mark.parametrize(
    "method, expression", [("pti", "attention*file"), ("diffedit", "difference*file")]
)
def test_the_last_mask_says_which_pixels_are_put_back(small_model, picture, method, expression):
    left = Image.new("L", picture.size, "black")
    left.paste("white", (0, 0, 24, 32))
    options = dict(mask=left, mask_from=expression, mask_threshold=0.3, paste_back=True)
    made = result(small_model, picture, method, **options)
    outside = spread(made.mask, picture.size).eq(0).numpy()
    assert 0 < outside.mean() < 1
    old, new = (np.asarray(p) for p in (to_rgb(picture), made.picture))
    assert np.array_equal(old[outside], new[outside])
    assert not np.array_equal(old[~outside], new[~outside])


def test_putting_back_needs_a_mask():
    with pytest.raises(InputError, match="paste_back needs a mask"):
        METHODS["ddim-global"].settings(paste_back=True)
