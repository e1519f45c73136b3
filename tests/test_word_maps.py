"""Cross-attention of words over a picture."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange
from small import PROMPT

import ptinv
from ptinv.core.unet import UNet, UNetConfig
from ptinv.errors import InputError
from ptinv.methods.controls import Record
from ptinv.methods.table import METHODS
from ptinv.storage.provenance import made_with
from ptinv.word_maps import cross_levels

LEVEL = 1  # the small model's only one with attention to words
STEPS = 4
INVERTED = 3  # of them, at the usual encode ratio


# The maps


def test_each_pixel_s_attention_sums_to_one_at_every_level_and_step_of_any_picture(picture):
    tiny = ptinv.load(device="cpu", dtype="float32")
    maps = ptinv.attention_maps(tiny, picture, PROMPT, levels=[2, 1], steps=2, encode_ratio=1).maps
    width, height = tiny.picture_size(picture.size)
    assert width != height and list(maps) == [2, 1]
    for level, steps in maps.items():
        shrunk = tiny.pixels_per_cell * 2**level
        assert steps.shape == (2, 77, height // shrunk, width // shrunk)
        assert steps.dtype == torch.float32 and steps.device.type == "cpu" and steps.min() >= 0
        torch.testing.assert_close(steps.sum(dim=1), torch.ones_like(steps[:, 0]))


@torch.no_grad()
@pytest.mark.parametrize("k", range(1, INVERTED + 1))
def test_step_k_is_the_mean_over_heads_and_layers_at_the_latent_that_it_leaves(
    small_model, inversion, found, k
):
    layers = []

    class Recorder(ptinv.Control):
        def wants(self, place):
            return place.kind == "cross" and place.level == LEVEL

        def __call__(self, probabilities, place):
            height = place.height
            layers.append(rearrange(probabilities[0], "heads (h w) n -> heads n h w", h=height))
            return probabilities

    t, embedding = inversion.schedule[k - 1].t, small_model.embed(PROMPT)
    small_model.predict_noise(inversion.trajectory[k], t, embedding, Recorder())
    assert len(layers) > 1
    torch.testing.assert_close(found.maps[LEVEL][k - 1], torch.cat(layers).mean(dim=0))
    assert not torch.allclose(found.maps[LEVEL][k - 1], found.maps[LEVEL][k % INVERTED])


@torch.no_grad()
def test_recording_attention_changes_no_prediction_and_no_trajectory(small_model, inversion, found):
    z, t = inversion.trajectory[-1], inversion.schedule[-1].t
    call = z, t, small_model.embed(PROMPT)
    alone, recorded = (small_model.predict_noise(*call, c) for c in (None, Record(LEVEL)))
    torch.testing.assert_close(recorded, alone, rtol=1e-5, atol=1e-5)
    before = inversion.digest
    again = ptinv.attention_maps(small_model, inversion, PROMPT)
    assert inversion.digest == before
    assert again.maps[LEVEL].equal(found.maps[LEVEL])


def test_a_picture_and_its_inversion_have_the_same_maps(small_model, picture, found):
    fresh = ptinv.attention_maps(small_model, picture, PROMPT, steps=STEPS)
    assert fresh.maps[LEVEL].equal(found.maps[LEVEL])
    assert fresh.words == found.words
    assert found.picture.tobytes() == fresh.picture.tobytes() == picture.tobytes()


@pytest.mark.parametrize("kind", ["path", "array", "inversion's path"])
def test_any_picture_will_do(small_model, inversion, picture, found, tmp_path, kind):
    picture.save(tmp_path / "picture.png")
    inversion.save(tmp_path / "x.safetensors")
    given = {
        "path": str(tmp_path / "picture.png"),
        "array": np.asarray(picture),
        "inversion's path": tmp_path / "x.safetensors",
    }[kind]
    again = ptinv.attention_maps(small_model, given, PROMPT, steps=STEPS)
    assert again.maps[LEVEL].equal(found.maps[LEVEL])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_an_inversion_of_any_method_will_do(small_model, picture, method):
    how = dict(steps=3, encode_ratio=1.0, source="a red car on the grass")
    stored = ptinv.invert(small_model, picture, PROMPT, method, **how)
    found = ptinv.attention_maps(small_model, stored, "a red boat")
    assert found.steps == 3 and [word.text for word in found.words] == ["a", "red", "boat"]


def test_a_level_attends_where_its_blocks_do_and_the_coarsest_always():
    assert cross_levels(UNetConfig()) == [0, 1, 2, 3]
    assert cross_levels(UNetConfig(channels=(8, 8, 8), attends=(False, True, False))) == [1, 2]
    for attends in [(True, False), (False, True), (False, False)]:
        places = []

        class Places(ptinv.Control):
            def wants(self, place, places=places):
                places.append(place)
                return False

        table = UNetConfig((8, 8), attends, layers=1, heads=2, context_channels=4, groups=4)
        UNet(table)(torch.zeros(1, 4, 4, 4), 1, torch.zeros(1, 77, 4), Places())
        levels = {place.level for place in places if place.kind == "cross"}
        assert sorted(levels) == cross_levels(table)


# Words


def test_a_word_s_map_is_its_tokens_sum_averaged_over_steps(small_model, inversion):
    found = ptinv.attention_maps(small_model, inversion, "a red car and a red zebra")
    maps = found.maps[LEVEL]
    first, second = (word for word in found.words if word.text == "red")
    zebra = found.words[-1]
    assert len(zebra.positions) > 1  # the small vocabulary has no such word
    for word, tokens in [
        ("zebra", zebra.positions),
        ("Red", first.positions + second.positions),
        (second, second.positions),
    ]:
        for steps, rows in [(None, [0, 1, 2]), ([3], [2]), (range(1, 3), [0, 1])]:
            wanted = sum(maps[rows][:, token] for token in tokens).mean(dim=0)
            torch.testing.assert_close(found.of(word, LEVEL, steps), wanted)
            torch.testing.assert_close(found.of(word, steps=steps), wanted)


def test_the_words_leave_out_the_start_and_end_tokens(found):
    positions = [i for word in found.words for i in word.positions]
    assert [word.text for word in found.words] == PROMPT.split()
    assert positions == list(range(1, 7))
    words = sum(found.of(word) for word in found.words)
    rest = found.maps[LEVEL].mean(dim=0)[[0, *range(7, 77)]].sum(dim=0)
    assert rest.min() > 0
    torch.testing.assert_close(words + rest, torch.ones_like(rest))


def test_words_past_the_tokens_that_the_model_reads_have_no_map(small_model, inversion, remarks):
    found = ptinv.attention_maps(small_model, inversion, "red " * 75 + "boat")
    assert len(found.words) == 75 and "cut off: boat" in "".join(remarks.messages)


@pytest.mark.parametrize(
    "asked, reason",
    [
        (dict(word="boat"), '"boat" is not in the prompt; its words are: a, yellow, car, on'),
        (dict(word="car", level=0), "no maps of words at level 0, only at 1"),
        (dict(word="car", steps=[0]), "no maps of words at step 0, only at 1, 2, 3"),
        (dict(word="car", steps=[3, 4]), "no maps of words at step 4, only at 1, 2, 3"),
        (dict(word="car", steps=[]), "no maps of words at step None"),
    ],
)
def test_a_map_that_does_not_exist_is_refused_naming_those_that_do(found, asked, reason):
    with pytest.raises(InputError, match=reason):
        found.of(**asked)


@pytest.mark.parametrize(
    "prompt, options, reason",
    [
        (" ", {}, "the prompt is empty"),
        (PROMPT, dict(levels=[0, 1]), "no maps of words at level 0, only at 1"),
        (PROMPT, dict(levels=[]), "no maps of words at level None"),
        (PROMPT, dict(steps=3, encode_ratio=0.1), "leaves none of the 3 steps"),
        (PROMPT, dict(steps=0), "steps must be"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(small_model, picture, prompt, options, reason):
    with pytest.raises(InputError, match=reason):
        ptinv.attention_maps(small_model, picture, prompt, **options)


def test_attention_that_is_not_finite_is_noticed(small_model, inversion):
    unet = deepcopy(small_model.unet)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2.to_k" in name:
                weight[:] = torch.nan
    model = replace(small_model, unet=unet)
    stored = replace(inversion, made_with=made_with(model))
    with pytest.raises(FloatingPointError, match="NaN"):
        ptinv.attention_maps(model, stored, PROMPT)
