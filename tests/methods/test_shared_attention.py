"""Edits whose branches share attention: their masks, their weights, and which maps are shared."""

from dataclasses import replace

import pytest
import torch
from edits import SOURCE, both_latents, latent, result
from small import PROMPT

from ptinv.core.attention import Place
from ptinv.core.model import StableDiffusion
from ptinv.errors import InputError
from ptinv.methods.controls import Record
from ptinv.methods.request import request_edit
from ptinv.methods.run import prepare
from ptinv.methods.table import METHODS
from ptinv.methods.words import find, read

EXACT = 1e-4


# Local blending


def masks_of(model, picture, **options):
    """The last mask of an edit by Prompt-to-Prompt."""
    return result(model, picture, "p2p", mask_threshold=0.6, **options).mask


def test_the_blend_shows_the_edit_where_either_branch_attends_to_its_words(small_model, picture):
    """As `p2p` has it: the words that differ, each in its own prompt."""
    # a source all of whose words are in the prompt, too, adds no places of its own
    target_alone = masks_of(small_model, picture, source="a car on the grass")
    named = masks_of(small_model, picture, focus="yellow", source_focus="red")
    assert torch.equal(named, masks_of(small_model, picture))
    assert not torch.equal(named, target_alone)
    wider = masks_of(small_model, picture, focus="yellow", source_focus="red car on the grass")
    assert not torch.equal(wider, named)


def test_outside_the_blend_the_edit_is_its_source_to_the_bit(small_model, picture):
    both = both_latents(small_model, picture, "p2p", mask_threshold=0.9)
    mask = result(small_model, picture, "p2p", mask_threshold=0.9).mask.eq(0).expand_as(both[:1])
    assert 0 < mask.float().mean() < 1
    assert torch.equal(both[1:][mask], both[:1][mask])
    assert not torch.equal(both[1:][~mask], both[:1][~mask])


def test_where_the_prompt_only_leaves_words_out_the_mask_follows_those(small_model, picture):
    """ "a red car and a blue boat" -> "a red car": the boat's places, and not the car's."""
    long, short = "a red car and a blue boat", "a red car"
    default, boat = (
        result(small_model, picture, "p2p", short, source=long, mask_threshold=0.6, **options).mask
        for options in ({}, dict(source_focus="blue boat"))
    )
    assert torch.equal(default, boat)
    assert 0 < default.mean() < 1
    car = result(small_model, picture, "p2p", short, source=long, mask_threshold=0.6, focus="car")
    assert not torch.equal(default, car.mask)


def test_the_mask_s_attention_is_recorded_before_words_are_weighed(
    small_model, picture, monkeypatch
):
    """But after the source's attention was given to the target."""
    chains, predict = [], StableDiffusion.predict_noise

    def spy(model, z, t, context, control=None):
        chains.append(control)
        return predict(model, z, t, context, control)

    monkeypatch.setattr(StableDiffusion, "predict_noise", spy)
    latent(small_model, picture, "p2p", reweight={"yellow": 3.0})
    sampled = [chain.controls for chain in chains if chain]
    assert len(sampled) == 6
    for i, controls in enumerate(sampled):
        cross, own = (
            ["cross"] * (i / 6 < 0.8),
            ["self"] * (i / 6 < 0.4),
        )  # while their gates are open
        kinds = [getattr(control, "kind", "record") for control in controls]
        assert kinds == [*cross, *own, "record", *cross]
    level = small_model.unet.config.mask_level
    place = Place("cross", "down", level, height=1, width=1)
    weighed = sampled[0][-1](torch.ones(4, 1, 1, 77), place)
    assert weighed[3].max() == 3 and weighed[:3].eq(1).all()


def test_subtracted_words_take_their_places_from_the_mask(small_model, picture):
    whole = masks_of(small_model, picture, mask_relative_to="map")
    less = masks_of(small_model, picture, subtract="grass")
    nothing = masks_of(small_model, picture, subtract="yellow")
    assert torch.equal(torch.minimum(whole, less), less)
    assert less.sum() < whole.sum()
    assert nothing.sum() < whole.sum()
    with pytest.raises(InputError, match='"sea" is not in the prompt'):
        masks_of(small_model, picture, subtract="sea")


# Shared attention, in the UNet


def test_inside_the_gate_the_other_words_maps_are_the_source_s_and_later_their_own(
    small_model, picture
):
    """Of a one-word edit, at each step that is sampled."""
    records, level = {}, small_model.unet.config.mask_level
    row = METHODS["p2p"]

    def recorded(edit):
        def at(k, rows):
            records[k] = Record(level)
            return records[k]

        return [*row.control(edit), at]

    latent(
        small_model,
        picture,
        replace(row, control=recorded),
        source=SOURCE,
        mask=None,
        cross_replace=0.5,
        self_replace=0.0,
    )
    (changed,) = find(small_model.tokenizer, "yellow", PROMPT)
    others = [p for w in read(small_model.tokenizer, PROMPT) for p in w.positions if p != changed]
    assert sorted(records) == [1, 2, 3, 4, 5, 6]
    for k, record in records.items():
        source, target = record.total[2], record.total[3]
        same = torch.isclose(source[others], target[others], rtol=1e-5, atol=1e-6).all()
        assert same == (k > 3)  # the first three of six steps


def test_the_largest_map_that_is_replaced_is_set_at_the_model_s_own_size(small_model, picture):
    """8 of its 16 across are a quarter of the latent, whatever the picture's size."""
    for size in ((48, 32), (30, 60)):
        for cells, share in ((8, 1 / 4), (16, 1)):
            options = dict(source=SOURCE, self_cells=cells)
            request = request_edit(picture.resize(size), PROMPT, "p2p", **options)
            edit = prepare(small_model, request)
            _, control = edit.controls
            height, width = edit.latent_size
            now = control(len(edit.schedule), ("source", "target"))
            assert now.area == share * height * width


def test_weighing_a_word_by_1_changes_nothing_and_by_2_something(small_model, picture):
    plain, one, two, gated = (
        latent(small_model, picture, "p2p", reweight=weights, cross_replace=gate)
        for weights, gate in (
            ({}, 0.8),
            ({"yellow": 1.0}, 0.8),
            ({"yellow": 2.0}, 0.8),
            ({"yellow": 2.0}, {"default": 0.8, "yellow": 0.0}),
        )
    )
    torch.testing.assert_close(one, plain, rtol=0, atol=EXACT)
    assert (two - plain).abs().max() > 100 * EXACT
    assert not torch.equal(two, gated)


def test_unequal_prompts_cannot_be_replaced_word_by_word(small_model, picture):
    with pytest.raises(InputError, match="as many words"):
        latent(small_model, picture, "p2p", source="a car", align="replace")
    assert latent(small_model, picture, "p2p", source="a car").isfinite().all()


def test_a_word_with_a_gate_must_be_in_the_prompt(small_model, picture):
    with pytest.raises(InputError, match='"boat" is not in the prompt'):
        latent(small_model, picture, "p2p", cross_replace={"boat": 0.3})
