"""Null-Text Inversion: the loop of Algorithm 1 about the other side of guidance."""

import pytest
import torch
from small import PROMPT

from ptinv import ddim
from ptinv.editing.conditions import constant, tuned_null
from ptinv.inversion import prompt_tuning
from ptinv.inversion.ddim import ddim_inversion
from ptinv.inversion.null_text import tune_null
from ptinv.sampling import Walk, last, walk_down

RUNGS = ddim.ladder(6)
GUIDANCE = 7.5


@pytest.fixture(scope="module")
def source(small_model):
    return small_model.embed(PROMPT)


@pytest.fixture(scope="module")
def trajectory(small_model, picture, source):
    """The pivot: inverted with the text of the picture, ω = 1."""
    condition = constant(small_model.embed(""), source)
    return ddim_inversion(small_model, small_model.encode(picture), RUNGS, condition, 1.0)


@pytest.fixture(scope="module")
def tuned(small_model, trajectory, source):
    return tune_null(small_model, trajectory, RUNGS, source)


@torch.no_grad()
def walk(model, trajectory, condition):
    down = walk_down(model, trajectory[-1], RUNGS[::-1], Walk(condition, GUIDANCE))
    return last(down, trajectory[-1])


def test_zero_iterations_are_ddim_from_the_same_pivot_to_the_bit(small_model, trajectory, source):
    null = small_model.embed("")
    tuning = tune_null(small_model, trajectory, RUNGS, source, inner_steps=0)
    assert torch.equal(tuning.embeddings, null.expand_as(tuning.embeddings))
    untuned = walk(small_model, trajectory, tuned_null(tuning.embeddings, source))
    assert torch.equal(untuned, walk(small_model, trajectory, constant(null, source)))


def test_the_tuned_walk_lands_where_the_tuning_did_and_nearer_the_picture(
    small_model, trajectory, source, tuned
):
    null = small_model.embed("")
    back = walk(small_model, trajectory, tuned_null(tuned.embeddings, source))
    astray = walk(small_model, trajectory, constant(null, source))
    missed, far = ((z - trajectory[0]).square().mean() for z in (back, astray))
    torch.testing.assert_close(missed, tuned.losses[0, 0], rtol=1e-2, atol=1e-6)
    assert missed < far / 3


def test_more_iterations_reach_lower_losses(small_model, trajectory, source):
    none, one, five = (
        tune_null(small_model, trajectory, RUNGS, source, inner_steps=n, stop_below=0.0).losses
        for n in (0, 1, 5)
    )
    assert five.mean() < one.mean() < none.mean()


class Witness:
    """The model, and what it was asked."""

    def __init__(self, model):
        self.model, self.asked = model, []

    dtype = property(lambda self: self.model.dtype)

    def embed(self, prompts):
        return self.model.embed(prompts)

    def predict_noise(self, z, t, context):
        self.asked.append((z, context, torch.is_grad_enabled()))
        return self.model.predict_noise(z, t, context)


def test_the_text_s_prediction_is_made_once_a_step_and_gradient_reaches_the_null_text_alone(
    small_model, trajectory, source
):
    witness = Witness(small_model)
    tune_null(witness, trajectory, RUNGS, source, inner_steps=2, stop_below=0.0)
    text = [torch.equal(context, source) for _, context, _ in witness.asked]
    wanted = [context.requires_grad for _, context, _ in witness.asked]
    recorded = [enabled for *_, enabled in witness.asked]
    # the text, two iterations of ∅_t, and the step that is then made
    assert text == [True, False, False, False] * len(RUNGS)
    assert wanted == recorded == [False, True, True, False] * len(RUNGS)
    assert all(p.grad is None for p in small_model.unet.parameters())


def test_nothing_accumulates_from_step_to_step(small_model, trajectory, source):
    """No latent and no embedding that a step begins with has a history."""
    witness = Witness(small_model)
    tuning = tune_null(witness, trajectory, RUNGS, source, inner_steps=2)
    assert all(z.grad_fn is None and not z.requires_grad for z, _, _ in witness.asked)
    assert all(context.is_leaf for _, context, _ in witness.asked)
    assert not tuning.embeddings.requires_grad


def test_a_step_s_tuning_ends_once_its_loss_is_small_enough(small_model, trajectory, source):
    """With a limit that all losses are below, every step is tuned exactly once."""
    once, stopped = (
        tune_null(small_model, trajectory, RUNGS, source, inner_steps=n, stop_below=stop)
        for n, stop in ((1, 0.0), (10, 1e3))
    )
    assert torch.equal(once.embeddings, stopped.embeddings)


def test_that_loss_grows_by_twice_itself_with_each_step(
    small_model, trajectory, source, monkeypatch
):
    """Every iteration is said to have the loss 4: below 1·(1 + 2i) from the third step on."""
    tries = []

    def gradient(land, c, pivot, scale):
        tries.append(land.args[2].k)
        return torch.zeros_like(c), torch.tensor([4.0]), scale

    monkeypatch.setattr(prompt_tuning, "gradient", gradient)
    tune_null(small_model, trajectory, RUNGS, source, inner_steps=3, stop_below=1.0)
    assert [tries.count(k) for k in range(len(RUNGS), 0, -1)] == [3, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("decay, moved", [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_the_learning_rate_falls_by_its_share_with_each_step(
    small_model, trajectory, source, decay, moved
):
    """Adam's one step from ∅ is as long as the learning rate, for most coordinates."""
    tuning = tune_null(
        small_model, trajectory, RUNGS, source, inner_steps=1, lr=0.01, lr_decay=decay
    )
    noisiest, second = tuning.embeddings[-1], tuning.embeddings[-2]
    first_move = (noisiest - small_model.embed("")).abs().median()
    torch.testing.assert_close(first_move, torch.tensor(0.01), rtol=1e-2, atol=0)
    torch.testing.assert_close(
        (second - noisiest).abs().median(), torch.tensor(0.01 * moved), rtol=1e-2, atol=1e-6
    )
