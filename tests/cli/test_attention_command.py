"""`ptinv attention`: it draws what Python draws, and refuses before the long work."""

import pytest
from commands import contents, pixels, ptinv_
from PIL import Image
from small import PROMPT

import ptinv
from ptinv.core.unet import UNet

STEPS = 4
ATTENTION = ["attention", "picture.png", PROMPT, "--steps", str(STEPS)]


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
def test_the_command_draws_what_python_draws(here, capsys, small_model, picture, flags, at):
    found = ptinv.attention_maps(small_model, picture, PROMPT, steps=STEPS)
    assert ptinv_(*ATTENTION, *flags, "-o", "old.png") == 0
    made = found.draw(at)
    assert pixels("old.png") == (made.size, made.tobytes())
    assert capsys.readouterr().out == ""


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
    ([*ATTENTION, "--at", "4"], "no maps of words at step 4, only at 1 to 3"),
    ([*ATTENTION, "--at", "1-999999999"], "no maps of words at step 4, only at 1"),
    ([*ATTENTION, "--at", "1,,2"], "is not numbers, such as"),
    ([*ATTENTION, "--at", "9" * 5000], "is not numbers, such as"),
    ([*ATTENTION, "--levels", "fine"], "is not numbers, such as"),
    ([*ATTENTION, "--levels", "-1"], "is not numbers, such as"),
    ([*ATTENTION, "--encode-ratio", "0.1"], "--encode-ratio 0.1 leaves none of the 4 steps"),
    ([*ATTENTION, "--steps", "0"], "--steps must be"),
    ([*ATTENTION, "--model", "nowhere"], "nowhere"),
    ([*ATTENTION, "--eta", "1"], "--eta"),
]
LATER = [  # before any long work
    ([*ATTENTION, "--levels", "1,0"], "no maps of words at level 0, only at 1"),
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
