"""Several edits at once: the same pictures by fewer calls of the UNet."""

import threading
from dataclasses import replace
from functools import partial

import pytest
import torch
from evaluation.together import together
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.metrics import psnr

FEW = {"steps": 4, "source": "a red car on the grass"}


def edit(picture, prompt, method, **options):
    return lambda model: ptinv.edit(model, picture, prompt, method, **FEW | options)


def test_each_edit_is_what_it_is_alone_and_their_calls_are_one(small_model, picture, unet_calls):
    upside_down = picture.rotate(180)
    edits = [
        edit(picture, PROMPT, "ddim-edit"),
        edit(upside_down, OTHER_PROMPT, "ddim-edit"),
        edit(picture, OTHER_PROMPT, "p2p", reweight={"boat": 2.0}),
        edit(picture, PROMPT, "diffedit", mask_draws=3),
        edit(upside_down, PROMPT, "pti"),
        edit(picture, PROMPT, "null-text", inner_steps=2),
    ]
    alone = [one(small_model) for one in edits]
    calls_alone = len(unet_calls)
    at_once = together(small_model, edits)
    assert len(unet_calls) - calls_alone < calls_alone / 2
    for one, other in zip(alone, at_once, strict=True):
        assert psnr(one, other) > 50


def test_pictures_of_several_sizes_go_through_beside_each_other(small_model, picture):
    edits = [edit(picture, PROMPT, "ddim-edit"), edit(picture.rotate(90), PROMPT, "ddim-edit")]
    edits[1] = edit(picture.transpose(2), PROMPT, "ddim-edit")
    for one, other in zip(edits, together(small_model, edits), strict=True):
        assert psnr(one(small_model), other) > 50


def test_rows_are_those_of_each_edit(small_model, picture):
    calls = [
        partial(ptinv.result, picture=picture, prompt=PROMPT, method=method, **FEW)
        for method in ("ddim-edit", "diffedit")
    ]
    for call, result in zip(calls, together(small_model, calls), strict=True):
        assert result.rows == call(small_model).rows


def test_one_that_fails_is_its_error_and_the_others_are_made(small_model, picture):
    bad, good = edit(picture, " ", "pti"), edit(picture, PROMPT, "ddim-edit")
    error, made = together(small_model, [bad, good])
    assert isinstance(error, ptinv.InputError) and made.size == picture.size


class Broken(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, *_):
        raise RuntimeError("broken")


def test_an_error_of_the_networks_is_everybody_s(small_model, picture):
    model = replace(small_model, unet=Broken(small_model.unet.config))
    errors = together(model, [edit(picture, PROMPT, "ddim-edit")] * 2)
    assert [str(error) for error in errors] == ["broken", "broken"]


def test_an_interruption_ends_the_others_at_their_next_call(small_model, picture, unet_calls):
    def interrupted(model):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        together(small_model, [interrupted, edit(picture, PROMPT, "noising", steps=500)])
    assert threading.active_count() == before and len(unet_calls) < 100


def test_nothing_at_once_is_nothing(small_model):
    assert together(small_model, []) == []


def test_threads_need_no_gradient_mode_of_the_caller_s(small_model, picture):
    with torch.inference_mode():
        (made,) = together(small_model, [edit(picture, PROMPT, "pti")])
    assert psnr(made, ptinv.edit(small_model, picture, PROMPT, "pti", **FEW)) > 50
