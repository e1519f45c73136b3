"""Rows, stages and guides of one's own, and a model opened by the core alone."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.core.model import load
from ptinv.core.pti import edit_latent
from ptinv.errors import InputError
from ptinv.methods import stages
from ptinv.methods.request import request_edit
from ptinv.methods.table import METHODS

STEPS = dict(steps=4)


def latent(model, picture, method, **options):
    return ptinv.result(model, picture, PROMPT, method, **{**STEPS, **options}).latent


def test_a_row_that_is_registered_has_a_name(small_model, picture, monkeypatch):
    monkeypatch.setitem(ptinv.METHODS, "mine", replace(METHODS["pti"], title="mine"))
    expected = latent(small_model, picture, "pti")
    assert torch.equal(latent(small_model, picture, "mine"), expected)
    assert ptinv.reconstruct(small_model, picture, PROMPT, "mine", **STEPS).size == picture.size


def test_an_inversion_of_a_registered_row_is_saved_and_opened(
    small_model, picture, monkeypatch, tmp_path
):
    monkeypatch.setitem(ptinv.METHODS, "mine", replace(METHODS["pti"], title="mine"))
    ptinv.invert(small_model, picture, PROMPT, "mine", **STEPS).save(tmp_path / "x.safetensors")
    opened = ptinv.Inversion.load(tmp_path / "x.safetensors")
    expected = latent(small_model, picture, "pti")
    assert torch.equal(ptinv.result(small_model, opened, PROMPT).latent, expected)


@pytest.mark.parametrize("prompt", [None, PROMPT, OTHER_PROMPT])
def test_an_inversion_is_not_inverted_again(small_model, picture, prompt, unet_calls):
    inversion = ptinv.invert(small_model, picture, PROMPT, **STEPS)
    unet_calls.clear()
    with pytest.raises(InputError, match="an inversion already"):
        ptinv.invert(small_model, inversion, prompt)
    assert unet_calls == []


def test_a_stage_uses_only_settings_that_an_inversion_keeps():
    with pytest.raises(ValueError, match="eta"):
        stages.Stage("mine", ("steps", "eta"), lambda e, progress: {})


def test_a_stage_keeps_tensors_of_its_own_in_an_inversion_and_its_file(
    small_model, picture, tmp_path
):
    made = []

    def halved(e, progress):
        made.append(1)
        return {"halves": e.trajectory[1:] / 2}

    stage = stages.Stage("mine", ("steps",), halved)
    method = replace(
        METHODS["ddim-global"],
        extra=stage,
        after=lambda e, step: step.z + e.made["halves"][step.k - 1],
    )
    fresh = latent(small_model, picture, method)
    inversion = ptinv.invert(small_model, picture, PROMPT, method, steps=4)
    inversion.save(path := tmp_path / "x.safetensors")
    opened = ptinv.Inversion.load(path)
    assert torch.equal(opened.extras["halves"], inversion.trajectory[1:] / 2)
    made.clear()
    assert torch.equal(latent(small_model, opened, method), fresh)
    assert made == []


def test_an_own_guide_sees_both_predictions_also_at_1(small_model, picture):
    """Where Eq. 5 would need only one of them."""

    def halfway(eps_null, eps_cond, guidance):
        return (eps_null + eps_cond) / 2

    row = replace(METHODS["ddim-global"], guide=lambda e: halfway)
    expected = latent(small_model, picture, "ddim-global", guidance=0.5)
    torch.testing.assert_close(
        latent(small_model, picture, row, guidance=1.0), expected, rtol=1e-4, atol=1e-4
    )


def test_a_model_opened_by_the_core_edits_like_any(small_folder, small_model, picture):
    model = load(small_folder)
    assert model.files == small_model.files
    expected = latent(small_model, picture, "pti")
    assert torch.equal(latent(model, picture, "pti"), expected)


def test_an_encode_ratio_that_leaves_no_step_is_refused(small_model, picture):
    with pytest.raises(ValueError, match="leaves none"):
        edit_latent(small_model, small_model.encode(picture), PROMPT, encode_ratio=0.0)


def test_a_mask_becomes_rgb_once(small_model, picture):
    mask = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    request = request_edit(picture, PROMPT, mask=mask, **STEPS)
    assert (request.settings.mask.mode, request.image.mode) == ("RGB", "RGB")
