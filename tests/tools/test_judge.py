"""The judge: small, and right about scenes that it has not seen, sharp or through the VAE."""

import pytest
import torch
from evaluation import embedded
from world import judge as judges
from world import scenes
from world.grounds import BACKGROUNDS
from world.scenes import Content
from world.things import COLOURS, KINDS

import ptinv

COUNT = 64


@pytest.fixture(scope="module")
def judge():
    return judges.load()


@pytest.fixture(scope="module")
def held_out():
    drawn = embedded.held_out(COUNT, seed=7)
    return [scenes.draw(scene) for scene in drawn], [scenes.content(scene) for scene in drawn]


def right(judge, pictures, truth) -> tuple[float, float]:
    """The share of pictures about whose things and place it is right, and about all."""
    seen = judges.look(judge, pictures)
    pairs = list(zip(truth, seen, strict=True))
    coarse = [t.kinds.keys() == s.kinds.keys() and t.background == s.background for t, s in pairs]
    return sum(coarse) / len(pairs), sum(t == s for t, s in pairs) / len(pairs)


def test_the_weights_file_is_small():
    assert judges.WEIGHTS.stat().st_size <= 4e6


@pytest.mark.slow
def test_it_is_right_about_drawn_scenes_and_their_round_trips(judge, held_out):
    pictures, truth = held_out
    model = ptinv.load(device="cpu", dtype="float32")
    blurred = [model.decode(model.encode(picture)) for picture in pictures]
    for shown in (pictures, blurred):
        coarse, everything = right(judge, shown, truth)
        assert coarse > 0.98
        assert everything > 0.95


def test_a_picture_and_its_mirror_image_show_the_same(judge):
    x = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for a, b in zip(judges.both(judge, x), judges.both(judge, x.flip(3)), strict=True):
        torch.testing.assert_close(a, b)


def test_answers_are_read_as_words():
    """Two of a kind in one colour, three in two colours, and none of all others."""
    answers = judges.Answers(
        torch.zeros(1, judges.K, judges.N),
        torch.full((1, judges.K, judges.C), -5.0),
        torch.zeros(1, judges.B),
    )
    kinds, colours = list(KINDS), list(COLOURS)
    answers.counts[..., 0] = 1
    answers.counts[0, 0, 2] = answers.counts[0, 1, 3] = 9
    answers.colours[0, 0, 4] = -1  # the likeliest counts though it is unlikely
    answers.colours[0, 1, 5], answers.colours[0, 1, 6] = 2, 1
    answers.background[0, 3] = 1
    expected = {
        (colours[4], kinds[0]): 2,
        (colours[5], kinds[1]): 2,
        (colours[6], kinds[1]): 1,
    }
    place = list(BACKGROUNDS)[3]
    assert judges.contents(answers) == [Content(expected, place)]


def test_a_picture_is_no_distance_from_itself_and_some_from_another(judge, held_out):
    a, b, *_ = held_out[0]
    same, other = judges.perceptual_distance(judge, [a, a], [a, b])
    assert same == 0
    assert other > 0.1
