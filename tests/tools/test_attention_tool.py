"""The drawing of words' attention: true to the maps, and refused before anything is written."""

from dataclasses import replace

import attention
import numpy as np
import pytest
import torch
from attention import SHOWN, draw, listed, over, row_of
from commands import contents, pixels
from PIL import Image, ImageOps
from small import PROMPT
from world.sheets import Tile

import ptinv
from ptinv.errors import InputError

LEVEL = 1  # the small model's only one with attention to words
STEPS = 4
INVERTED = 3  # of them, at the usual encode ratio
GREY = Image.new("RGB", (40, 24), (120, 120, 120))
ATTENTION = ["picture.png", PROMPT, "--steps", str(STEPS)]


@pytest.fixture
def attention_(small_folder, capsys):
    """Runs the program on the small model, which is given unless a test names another."""

    def run(*words: str) -> int:
        model = [] if "--model" in words else ["--model", str(small_folder)]
        try:
            return attention.main([*map(str, words), *model])
        except SystemExit as end:
            return end.code

    return run


def brightness(picture):
    return np.asarray(picture.convert("L"), np.int32)


def test_more_heat_is_brighter_and_the_most_is_brightest():
    steps = brightness(over(Image.new("RGB", (65, 1)), torch.linspace(0, 1, 65)[None]))[0]
    assert (np.diff(steps) > 0).all()
    rising = torch.arange(10.0).expand(6, 10)
    row = brightness(over(GREY, rising))[12]
    assert (np.diff(row) >= 0).all() and row[-1] > row[0] + 100


def test_heat_is_relative_to_the_map_s_own_maximum():
    heat = torch.rand(6, 10, generator=torch.Generator().manual_seed(0))
    assert over(GREY, heat).tobytes() == over(GREY, 0.01 * heat).tobytes()


def test_where_the_map_is_zero_the_picture_is_left_in_dim_grey(picture):
    pixels = np.asarray(over(picture, torch.zeros(4, 6)), np.int32)
    assert pixels.shape[:2] == picture.size[::-1]
    assert np.ptp(pixels, axis=2).max() <= 4  # the ramp's own lowest blue
    original = brightness(picture)
    assert pixels.mean() < original.mean()
    assert np.corrcoef(pixels[..., 0].ravel(), original.ravel())[0, 1] > 0.99


def test_each_row_shows_every_word_at_its_own_steps(found, picture):
    shown = ImageOps.contain(picture, SHOWN)
    for steps, said in [([3], "step 3 of 3"), ([2, 1], "mean of steps 1 to 2 of 3")]:
        tiles, name, remark = row_of(found, LEVEL, steps)
        assert tiles[0] == Tile(shown, "the picture")
        assert [tile.label for tile in tiles[1:]] == PROMPT.split()
        for tile, word in zip(tiles[1:], found.words, strict=True):
            heat = found.of(word, LEVEL, steps)
            assert tile.picture.tobytes() == over(shown, heat).tobytes()
            assert tile.remark == f"max {heat.max():.1%}"
        assert (name, remark) == ("level 1 (10 x 7)", said)


def test_numbers_are_listed_as_a_range_where_none_is_left_out():
    told = {"1 to 40": range(1, 41), "1 to 3": [3, 1, 2], "7": [7], "2, 4": [2, 4], "2, 2": [2, 2]}
    assert {listed(numbers): numbers for numbers in told.values()} == told


def test_each_level_and_each_of_the_steps_has_a_row_and_many_words_take_more_lines(
    small_model, inversion, found
):
    heights = [draw(found, [[1]] * rows).height for rows in (1, 2, 3)]
    assert heights[1] - heights[0] == heights[2] - heights[1] > 100
    twice = replace(found, maps={1: found.maps[LEVEL], 2: found.maps[LEVEL]})
    assert draw(twice, [[3], [1, 2]]).height == draw(found, [[1]] * 4).height
    many = ptinv.attention_maps(small_model, inversion, "a red car and a blue car on the grass")
    assert draw(many).height > draw(found).height


def test_a_sheet_too_tall_to_be_saved_is_refused_also_while_its_maps_are_blank(found):
    found = replace(found, words=found.words[:1])
    one, two = (draw(found, [[1]] * rows).height for rows in (1, 2))
    most = 1 + (16_000 - one) // (two - one)
    blank = replace(found, maps={LEVEL: torch.zeros(INVERTED, 77, 1, 1)})
    for maps in (found, blank):
        assert draw(maps, [[1]] * most).height < 16_383  # WebP's limit
        with pytest.raises(InputError, match="more than 16000 pixels tall; ask for fewer"):
            draw(maps, [[1]] * (most + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, at",
    [
        ([], None),
        (["--levels", "1"], None),
        (["--at", "3,1-2"], [[3], [1, 2]]),
        (["--at", "2-1"], [[1, 2]]),
    ],
)
def test_the_command_draws_what_python_draws(
    here, capsys, attention_, small_model, picture, flags, at
):
    found = ptinv.attention_maps(small_model, picture, PROMPT, steps=STEPS)
    assert attention_(*ATTENTION, *flags, "-o", "old.png") == 0
    made = draw(found, at)
    assert pixels("old.png") == (made.size, made.tobytes())
    assert capsys.readouterr().out == ""


def test_a_stored_inversion_serves_as_the_picture_does(here, attention_, small_model, picture):
    ptinv.invert(small_model, picture, steps=STEPS).save("x.safetensors")
    assert attention_("x.safetensors", PROMPT, "-o", "a.png") == 0
    assert attention_(*ATTENTION, "-o", "b.png") == 0
    assert contents(here)["a.png"] == contents(here)["b.png"]


@pytest.mark.parametrize("size", [(16, 128), (128, 16)])
def test_a_picture_of_any_shape_has_its_maps_drawn(here, attention_, size):
    Image.new("RGB", size, "green").save("odd.png")
    assert attention_("odd.png", PROMPT, "--steps", "2", "-o", "a.webp") == 0


REFUSED = [
    (["picture.png", " "], "the prompt is empty"),
    (["notes.txt", PROMPT], "notes.txt"),
    ([*ATTENTION, "--at", "4"], "no maps of words at step 4, only at 1, 2, 3"),
    ([*ATTENTION, "--at", "1-9999"], "no maps of words at step 4, only at 1"),
    ([*ATTENTION, "--at", "1,,2"], "is not numbers, such as"),
    ([*ATTENTION, "--at", "9" * 5000], "is not numbers, such as"),
    ([*ATTENTION, "--levels", "fine"], "is not numbers, such as"),
    ([*ATTENTION, "--levels", "-1"], "is not numbers, such as"),
    ([*ATTENTION, "--encode-ratio", "0.1"], "encode_ratio 0.1 leaves none of the 4 steps"),
    ([*ATTENTION, "--steps", "0"], "steps must be"),
    ([*ATTENTION, "--model", "nowhere"], "nowhere"),
    ([*ATTENTION, "--eta", "1"], "--eta"),
    ([*ATTENTION, "--levels", "1,0"], "no maps of words at level 0, only at 1"),
    ([*ATTENTION, "--at", ",".join(["1"] * 99)], "pixels tall"),
]


@pytest.mark.parametrize("out", ["new.png", "old.png"])
@pytest.mark.parametrize("words, reason", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_a_line_and_nothing_is_written(
    here, capsys, attention_, words, reason, out
):
    before = contents(here)
    assert attention_(*words, "-o", out, "--quiet") == 2
    said = capsys.readouterr()
    assert said.out == "" and reason in said.err and "Traceback" not in said.err
    assert contents(here) == before
