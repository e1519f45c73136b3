"""DiffEdit's map: how much two texts disagree about the noise of a picture."""

from types import SimpleNamespace

import pytest
import torch
from small import PROMPT
from tensors import normal

from ptinv import ddim
from ptinv.methods.edit import fresh_noise
from ptinv.methods.masks import noise_difference
from ptinv.settings import Settings


class Pattern:
    """Predicts a pattern times the number that a context is filled with; keeps every call."""

    def __init__(self, *channels):
        self.pattern = torch.tensor(channels)[None, :, None]  # (1, c, 1, w)
        self.calls = []

    def predict_noise(self, z, t, context):
        self.calls.append((z, t, context))
        return self.pattern * context[:, :1, :1, None]


def filled_with(number):
    return torch.full((1, 77, 8), float(number))


def edit_of(model, z0, source, target, **settings):
    """An edit as far as the map depends on it."""
    return SimpleNamespace(
        model=model,
        z0=z0,
        source=source,
        target=target,
        settings=Settings(**settings),
        noise=lambda stream: fresh_noise(0, stream, z0.shape),
    )


def difference(model, reference, target, draws=10, clamp=3.0, **options):
    z0 = torch.zeros(1, *model.pattern.shape[1:])
    texts = filled_with(reference), filled_with(target)
    edit = edit_of(model, z0, *texts, steps=50, mask_draws=draws, mask_clamp=clamp)
    return noise_difference(edit, **options)


@pytest.mark.parametrize(
    "clamp, expected", [(3.0, [1 / 9, 1 / 9, 1 / 9, 1]), (2.0, [1 / 6, 1 / 6, 1 / 6, 1])]
)
def test_differences_are_cut_at_some_times_their_mean_and_made_shares_of_that(clamp, expected):
    """Over two channels they average to 1, 1, 1 and 9, a mean of 3; their signs do not matter."""
    model = Pattern([1.0, -2.0, 0.0, 9.0], [-1.0, 0.0, 2.0, 9.0])
    shares = difference(model, 2, 3, clamp=clamp)
    torch.testing.assert_close(shares.flatten(), torch.tensor(expected))
    assert torch.equal(difference(model, 3, 2, clamp=clamp), shares)


@pytest.mark.parametrize("scale", [0.3, 7.5])
def test_guidance_multiplies_all_differences_alike_and_so_changes_nothing(scale):
    """∅ + ω (c - ∅) of two texts differs by ω times as much as c does."""
    model = Pattern([1.0, 2.0, 0.5, 9.0])
    guided = difference(model, 5 + scale * 1, 5 + scale * 3)
    torch.testing.assert_close(guided, difference(model, 6, 8))


@pytest.mark.parametrize("draws, chunk", [(10, 8), (10, 1), (3, 100), (1, 2)])
def test_each_noise_is_predicted_for_both_texts_half_the_way_and_few_at_once(draws, chunk):
    model = Pattern([1.0, 2.0, 0.5, 9.0])
    difference(model, 0, 1, draws, chunk=chunk)
    (half,) = [step for step in ddim.schedule(50) if step.k == 25]
    halves, noise = [], fresh_noise(0, 2, (1, 1, 1, 4))
    for z, t, context in model.calls:
        assert t == half.t == 481
        assert len(z) <= max(chunk, 2)
        there, here = z.chunk(2)
        assert torch.equal(there, here)
        assert context[:, 0, 0].tolist() == [0] * len(here) + [1] * len(here)
        halves.append(here)
    expected = [ddim.add_noise(torch.zeros(1), noise(i), half.alpha_from) for i in range(draws)]
    assert torch.equal(torch.cat(halves), torch.cat(expected))


@pytest.fixture(scope="module")
def texts(small_model):
    return small_model.embed(""), small_model.embed(PROMPT)


@pytest.mark.parametrize("size", [(4, 4), (6, 10)])
def test_how_many_go_through_the_network_at_once_changes_rounding_alone(small_model, texts, size):
    edit = edit_of(small_model, normal(1, 4, *size), *texts, steps=10, mask_draws=5)
    whole, *parts = (noise_difference(edit, chunk) for chunk in (100, 8, 4, 1))
    assert whole.shape == (1, 1, *size)
    assert 0 < whole.min() < whole.max() <= 1
    for shares in parts:
        # float32's, in differences a hundred times smaller than the noise that they are taken of
        torch.testing.assert_close(shares, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [2, 8, 100])
def test_between_equal_texts_there_is_no_difference(small_model, texts, chunk):
    """Not a NaN either, as 0 / 0 would be."""
    edit = edit_of(small_model, normal(1, 4, 6, 10), texts[1], texts[1], steps=10)
    shares = noise_difference(edit, chunk)
    assert torch.equal(shares, torch.zeros(1, 1, 6, 10))
