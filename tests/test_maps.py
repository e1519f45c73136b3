"""What each word sees in a picture: the maps, what they say of which step, and the command."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from commands import contents, pixels, ptinv_
from einops import rearrange
from PIL import Image
from small import PROMPT

import ptinv
from ptinv import heat
from ptinv.cli.given import TINY
from ptinv.editing.controls import Record
from ptinv.errors import InputError
from ptinv.images import resize
from ptinv.methods import METHODS
from ptinv.unet import UNet, UNetConfig

LEVEL = 1  # the small model's only one with attention to words
STEPS = 4
WALKED = 3  # of them, at the usual encode ratio


@pytest.fixture(scope="module")
def inversion(small_model, picture):
    return ptinv.invert(small_model, picture, steps=STEPS)


@pytest.fixture(scope="module")
def found(small_model, inversion):
    return ptinv.attention_maps(small_model, inversion, PROMPT)


# The maps


def test_each_pixel_s_attention_sums_to_one_at_every_level_and_step_of_any_picture(picture):
    tiny = ptinv.load(TINY, device="cpu", dtype="float32")
    maps = ptinv.attention_maps(tiny, picture, PROMPT, levels=[2, 1], steps=2, encode_ratio=1).maps
    width, height = tiny.picture_size(picture.size)
    assert width != height and list(maps) == [2, 1]
    for level, seen in maps.items():
        shrunk = tiny.pixels_per_cell * 2**level
        assert seen.shape == (2, 77, height // shrunk, width // shrunk)
        assert seen.dtype == torch.float32 and seen.device.type == "cpu" and seen.min() >= 0
        torch.testing.assert_close(seen.sum(dim=1), torch.ones_like(seen[:, 0]))


@torch.no_grad()
@pytest.mark.parametrize("k", range(1, WALKED + 1))
def test_step_k_is_the_mean_over_heads_and_layers_at_the_latent_that_it_leaves(
    small_model, inversion, found, k
):
    shown = []

    class Listen:
        def wants(self, place):
            return place.kind == "cross" and place.level == LEVEL

        def __call__(self, probabilities, place):
            height = place.height
            shown.append(rearrange(probabilities[0], "heads (h w) n -> heads n h w", h=height))
            return probabilities

    rung, context = inversion.rungs[k - 1], small_model.embed(PROMPT)
    small_model.predict_noise(inversion.trajectory[k : k + 1], rung.t, context, Listen())
    assert len(shown) > 1  # layers
    torch.testing.assert_close(found.maps[LEVEL][k - 1], torch.cat(shown).mean(dim=0))
    assert not torch.allclose(found.maps[LEVEL][k - 1], found.maps[LEVEL][k % WALKED])


@torch.no_grad()
def test_listening_changes_no_prediction_and_no_trajectory(small_model, inversion, found):
    rung, z = inversion.rungs[-1], inversion.trajectory[-1:]
    how = z, rung.t, small_model.embed(PROMPT)
    alone, heard = (small_model.predict_noise(*how, c) for c in (None, Record(LEVEL)))
    torch.testing.assert_close(heard, alone, rtol=1e-5, atol=1e-5)
    before = inversion.digest
    again = ptinv.attention_maps(small_model, inversion, PROMPT)
    assert inversion.digest == before
    assert again.maps[LEVEL].equal(found.maps[LEVEL])


def test_a_picture_and_its_inversion_have_the_same_maps(small_model, picture, found):
    fresh = ptinv.attention_maps(small_model, picture, PROMPT, steps=STEPS)
    assert fresh.maps[LEVEL].equal(found.maps[LEVEL])
    assert fresh.words == found.words
    assert found.picture.tobytes() == fresh.picture.tobytes() == picture.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_an_inversion_of_any_method_will_do(small_model, picture, method):
    how = dict(steps=3, encode_ratio=1.0, source="a red car on the grass")
    stored = ptinv.invert(small_model, picture, PROMPT, method, **how)
    found = ptinv.attention_maps(small_model, stored, "a red boat")
    assert found.steps == 3 and [word.text for word in found.words] == ["a", "red", "boat"]


def test_a_level_attends_where_its_blocks_do_and_the_coarsest_always():
    assert UNetConfig().cross_levels == [0, 1, 2, 3]
    assert UNetConfig(channels=(8, 8, 8), attends=(False, True, False)).cross_levels == [1, 2]
    for attends in [(True, False), (False, True), (False, False)]:
        places = []

        class Listen:
            def wants(self, place, places=places):
                places.append(place)
                return False

        table = UNetConfig((8, 8), attends, layers=1, heads=2, context_channels=4, groups=4)
        UNet(table)(torch.zeros(1, 4, 4, 4), 1, torch.zeros(1, 77, 4), Listen())
        heard = {place.level for place in places if place.kind == "cross"}
        assert sorted(heard) == table.cross_levels


# Words


def test_a_word_s_map_is_its_tokens_sum_averaged_over_steps(small_model, inversion):
    found = ptinv.attention_maps(small_model, inversion, "a red car and a red zebra")
    seen = found.maps[LEVEL]
    first, second = (word for word in found.words if word.text == "red")
    zebra = found.words[-1]
    assert len(zebra.positions) > 1  # the small vocabulary has no such word
    for word, tokens in [
        ("zebra", zebra.positions),
        ("Red", first.positions + second.positions),
        (second, second.positions),
    ]:
        for steps, rows in [(None, [0, 1, 2]), ([3], [2]), (range(1, 3), [0, 1])]:
            wanted = sum(seen[rows][:, token] for token in tokens).mean(dim=0)
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


def test_words_past_the_tokens_that_the_model_reads_have_no_map(small_model, inversion, caplog):
    found = ptinv.attention_maps(small_model, inversion, "red " * 75 + "boat")
    assert len(found.words) == 75 and "cut off: boat" in caplog.text


@pytest.mark.parametrize(
    "asked, reason",
    [
        (dict(word="boat"), '"boat" is not in the prompt; its words are: a, yellow, car, on'),
        (dict(word="car", level=0), "no attention to words at level 0; there is at 1"),
        (dict(word="car", steps=[0]), "no step 0; there are 1 to 3"),
        (dict(word="car", steps=[3, 4]), "no step 4; there are 1 to 3"),
        (dict(word="car", steps=[]), "no step is named"),
    ],
)
def test_a_map_that_there_is_not_is_refused_naming_those_there_are(found, asked, reason):
    with pytest.raises(InputError, match=reason):
        found.of(**asked)


@pytest.mark.parametrize(
    "prompt, options, reason",
    [
        (" ", {}, "the prompt is empty"),
        (PROMPT, dict(levels=[0, 1]), "no attention to words at level 0; there is at 1"),
        (PROMPT, dict(levels=[]), "no level is named"),
        (PROMPT, dict(steps=3, encode_ratio=0.1), "leaves none of the 3 steps"),
        (PROMPT, dict(steps=0), "steps must be"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(small_model, picture, prompt, options, reason):
    with pytest.raises(InputError, match=reason):
        ptinv.attention_maps(small_model, picture, prompt, **options)


def test_an_inversion_without_steps_is_refused(small_model, picture):
    stored = ptinv.invert(small_model, picture, method="ddim-global", encode_ratio=0.0)
    with pytest.raises(InputError, match="leaves none of the 50 steps"):
        ptinv.attention_maps(small_model, stored, PROMPT)


def test_attention_that_is_not_finite_is_noticed(small_model, inversion):
    unet = deepcopy(small_model.unet)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2.to_k" in name:
                weight[:] = torch.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        ptinv.attention_maps(replace(small_model, unet=unet), inversion, PROMPT)


# The command

ATTENTION = ["attention", "picture.png", PROMPT, "--steps", str(STEPS)]


@pytest.mark.parametrize(
    "flags, at",
    [
        ([], None),
        (["--levels", "1"], None),
        (["--at", "3,1-2"], [[3], [1, 2]]),
        (["--at", "2-1"], [[1, 2]]),
    ],
)
def test_the_command_draws_what_python_draws(here, capsys, found, flags, at):
    assert ptinv_(*ATTENTION, *flags, "-o", "old.png") == 0
    made = found.draw(at)
    assert pixels("old.png") == (made.size, made.tobytes())
    assert capsys.readouterr().out == ""


def test_each_strip_shows_every_word_at_its_own_steps(found, picture):
    at = [[3], [1, 2]]
    made, shown = found.draw(at), resize(picture, heat.on_a_sheet(picture.size))
    layout = heat.Layout(shown.size, len(found.words) + 1, len(at))
    for i, steps in enumerate(at):
        maps = [heat.over(shown, found.of(word, LEVEL, steps)) for word in found.words]
        for j, wanted in enumerate([shown, *maps]):
            x, y = layout.corner(i, j)
            box = (x, y, x + shown.width, y + shown.height)
            assert made.crop(box).tobytes() == wanted.tobytes()


def test_a_strip_is_drawn_for_each_level_and_each_of_the_steps_and_a_line_more_for_many_words(
    small_model, inversion, found
):
    heights = [found.draw([[1]] * strips).height for strips in (1, 2, 3)]
    assert heights[1] - heights[0] == heights[2] - heights[1] > 100
    twice = replace(found, maps={1: found.maps[LEVEL], 2: found.maps[LEVEL]})
    assert twice.draw([[3], [1, 2]]).height == found.draw([[1]] * 4).height
    many = ptinv.attention_maps(small_model, inversion, "a red car and a blue car on the grass")
    assert many.draw().height > found.draw().height


def test_a_stored_inversion_serves_as_the_picture_does(here):
    assert ptinv_("invert", *ATTENTION[1:2], "--steps", STEPS, "-o", "x.safetensors") == 0
    assert ptinv_("attention", "x.safetensors", PROMPT, "-o", "a.png") == 0
    assert ptinv_(*ATTENTION, "-o", "b.png") == 0
    assert contents(here)["a.png"] == contents(here)["b.png"]


@pytest.mark.parametrize("size", [(16, 128), (128, 16)])
def test_a_picture_of_any_shape_has_its_maps_drawn(here, size):
    Image.new("RGB", size, "green").save("odd.png")
    assert ptinv_("attention", "odd.png", PROMPT, "--steps", "2", "-o", "a.webp") == 0


EARLY = [  # before any model is opened
    (["attention", "picture.png", " "], "the prompt is empty"),
    (["attention", "notes.txt", PROMPT], "notes.txt"),
    ([*ATTENTION, "--at", "4"], "no step 4; there are 1 to 3"),
    ([*ATTENTION, "--at", "1-999999999"], "no step 4; there are 1 to 3"),
    ([*ATTENTION, "--at", "0-2"], "no step 0; there are 1 to 3"),
    ([*ATTENTION, "--at", "first"], "is not steps, such as"),
    ([*ATTENTION, "--at", "1,,2"], "is not steps, such as"),
    ([*ATTENTION, "--at", "9" * 5000], "is not steps, such as"),
    ([*ATTENTION, "--levels", "fine"], "is not levels, such as"),
    ([*ATTENTION, "--levels", "-1"], "is not levels, such as"),
    ([*ATTENTION, "--encode-ratio", "0.1"], "--encode-ratio 0.1 leaves none of the 4 steps"),
    ([*ATTENTION, "--steps", "0"], "--steps must be"),
    ([*ATTENTION, "--model", "nowhere"], "nowhere"),
    ([*ATTENTION, "--eta", "1"], "--eta"),
]
LATER = [  # before any long work
    ([*ATTENTION, "--levels", "1,0"], "no attention to words at level 0; there is at 1"),
    ([*ATTENTION, "--at", ",".join(["1"] * 99)], "pixels tall"),
]


@pytest.mark.parametrize("out", ["new.png", "old.png"])
@pytest.mark.parametrize("words, reason", [*EARLY, *LATER])
def test_what_cannot_be_drawn_is_refused_in_a_line_before_the_long_work(
    here, capsys, monkeypatch, words, reason, out
):
    def long_work(*_):
        raise AssertionError("it should have been refused before")

    monkeypatch.setattr(UNet, "forward", long_work)
    if (words, reason) in EARLY and "--model" not in words:
        words = [*words, "--model", "nowhere"]
    before = contents(here)
    assert ptinv_(*words, "-o", out) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("ptinv")
    assert reason in said.err
    assert contents(here) == before
