"""The drawing of the trajectories: true to the latents, and legible."""

from pathlib import Path

import pytest
import small
import torch
import trajectories
from PIL import Image

import ptinv
from ptinv.storage.pictures import open_picture

BIRDS = Path(__file__).parents[2] / "weights" / "tiny" / "examples" / "birds.png"
COLOURS = (trajectories.GREY, trajectories.RED, trajectories.GREEN)


@pytest.fixture(scope="module")
def curves(small_model, picture):
    return trajectories.curves(small_model, picture, small.PROMPT, 6)


def test_the_curves_are_the_way_up_and_two_ways_down(small_model, picture, curves):
    up, guided, tuned = (curve.latents for curve in curves)
    inversion = ptinv.invert(small_model, picture, small.PROMPT, steps=6)
    trajectory = inversion.trajectory.flatten(1)
    assert torch.equal(up, trajectory)
    assert torch.equal(guided[-1], up[-1]) and torch.equal(tuned[-1], up[-1])
    for latents, method, options in (
        (guided, "ddim-global", {}),
        (tuned, "pti", {"eta": 0.0, "mask": None}),
    ):
        result = ptinv.result(small_model, inversion, small.PROMPT, method, **options)
        assert torch.equal(latents[0], result.latent[0].flatten())


@pytest.mark.slow
def test_the_tuned_way_returns_and_the_guided_way_does_not():
    model = ptinv.load(device="cpu", dtype="float32")
    found = trajectories.curves(model, open_picture(BIRDS), "two pink dogs in the snow", 10)
    up, guided, tuned = (curve.latents for curve in found)
    assert (tuned[0] - up[0]).norm() < (guided[0] - up[0]).norm() / 2


def test_the_plane_keeps_distances_of_what_lies_in_it():
    g = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(9, 2, generator=g, dtype=torch.float64)).Q.T
    flat = [torch.randn(5, 2, generator=g, dtype=torch.float64) for _ in range(3)]
    placed, share = trajectories.on_a_plane([points @ axes + 3 for points in flat])
    assert share == pytest.approx(1)
    for before, after in zip(flat, placed, strict=True):
        torch.testing.assert_close(torch.cdist(before, before), torch.cdist(after, after))
    first, second, _ = placed
    assert first[0, 1] == pytest.approx(float(first[-1, 1]), abs=1e-9)  # on a level
    assert first[0, 0] < first[-1, 0]
    assert second[0, 1] < first[0, 1]  # above


def test_pictures_at_the_ends_do_not_hide_each_other():
    room = trajectories.TILE + 2 * trajectories.FRAME
    for wanted in ([300.0, 40.0, 301.0], [10.0, 10.0, 10.0], [500.0, 20.0, 250.0]):
        places = sorted(trajectories.stacked(wanted))
        assert all(b - a > room for a, b in zip(places, places[1:], strict=False))
        assert places[0] >= trajectories.EDGE + trajectories.TILE / 2


def test_the_command_draws_every_curve_in_its_colour(small_folder, picture, tmp_path):
    source, out = tmp_path / "picture.png", tmp_path / "out.png"
    picture.save(source)
    words = [str(source), small.PROMPT, "-o", str(out), "--model", str(small_folder)]
    assert trajectories.main([*words, "--steps", "5"]) == 0
    with Image.open(out) as page:
        counts = {colour: count for count, colour in page.getcolors(page.width * page.height)}
    assert page.width == trajectories.WIDTH
    assert all(counts[colour] > 200 for colour in (*COLOURS, trajectories.INK))
    assert counts[trajectories.PAPER] > page.width * page.height / 2


@pytest.mark.parametrize(
    "words, said",
    [
        (("notes.txt", "a car", "-o", "out.png"), "notes.txt"),
        (("missing.png", "a car", "-o", "out.png"), "missing.png"),
        (("picture.png", " ", "-o", "out.png"), "the prompt is empty"),
        (("picture.png", "a car", "-o", "out.gif"), "must end in"),
        (("picture.png", "a car", "-o", "picture.png"), "overwrite"),
        (("picture.png", "a car", "-o", "out.png", "--steps", "0"), "steps must be"),
        (("picture.png", "a car", "-o", "out.png", "--model", "nowhere"), "nowhere"),
    ],
)
def test_input_that_is_refused(here, capsys, words, said):
    before = sorted(here.iterdir())
    assert trajectories.main(list(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("trajectories.py: ") and len(error.splitlines()) == 1
    assert said in error
    assert sorted(here.iterdir()) == before
