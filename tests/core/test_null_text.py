"""Null-Text Inversion: the loop of Algorithm 1 about the other side of guidance."""

import pytest
import torch
from small import PROMPT

from ptinv.core import ddim, pti
from ptinv.core.sampling import constant, last, sample

SCHEDULE = ddim.schedule(6)
GUIDANCE = 7.5


def tune_null(model, trajectory, source, **options):
    """∅_1 … ∅_T' with the defaults of the authors' code."""
    usual = dict(inner_steps=10, lr=1e-2, lr_decay=1e-2, stop_below=1e-5)
    null = model.embed("")
    options = usual | options
    return pti.tune(model, trajectory, SCHEDULE[::-1], null, source, side="null", **options)


def tuned_null(embeddings, cond):
    """∅_k in the place of the empty prompt's embedding."""
    return lambda k: (embeddings[k - 1], cond)


@pytest.fixture(scope="module")
def source(small_model):
    return small_model.embed(PROMPT)


@pytest.fixture(scope="module")
def trajectory(small_model, picture, source):
    """The pivot: inverted with the text of the picture, ω = 1."""
    condition = constant(small_model.embed(""), source)
    return pti.ddim_inversion(small_model, small_model.encode(picture), SCHEDULE, condition, 1.0)


@pytest.fixture(scope="module")
def tuned(small_model, trajectory, source):
    return tune_null(small_model, trajectory, source)


def sampled(model, trajectory, condition):
    """z_0, guided."""
    start = trajectory[-1]
    return last(sample(model, start, SCHEDULE[::-1], condition, GUIDANCE), start)


def test_zero_iterations_are_ddim_from_the_same_pivot_to_the_bit(small_model, trajectory, source):
    null = small_model.embed("")
    tuning = tune_null(small_model, trajectory, source, inner_steps=0)
    assert torch.equal(tuning.embeddings, null.expand_as(tuning.embeddings))
    untuned = sampled(small_model, trajectory, tuned_null(tuning.embeddings, source))
    assert torch.equal(untuned, sampled(small_model, trajectory, constant(null, source)))


def test_tuned_sampling_lands_where_the_tuning_did_and_nearer_the_picture(
    small_model, trajectory, source, tuned
):
    null = small_model.embed("")
    back = sampled(small_model, trajectory, tuned_null(tuned.embeddings, source))
    astray = sampled(small_model, trajectory, constant(null, source))
    missed, far = ((z - trajectory[0]).square().mean() for z in (back, astray))
    torch.testing.assert_close(missed, tuned.losses[0, 0], rtol=1e-2, atol=1e-6)
    assert missed < far / 3


@pytest.mark.slow
def test_more_iterations_reach_lower_losses(small_model, trajectory, source):
    none, one, five = (
        tune_null(small_model, trajectory, source, inner_steps=n, stop_below=0.0).losses
        for n in (0, 1, 5)
    )
    assert five.mean() < one.mean() < none.mean()


class Witness:
    """The model, with its calls kept."""

    def __init__(self, model):
        self.model, self.calls = model, []

    dtype = property(lambda self: self.model.dtype)

    def embed(self, prompts):
        return self.model.embed(prompts)

    def predict_noise(self, z, t, context):
        self.calls.append((z, context, torch.is_grad_enabled()))
        return self.model.predict_noise(z, t, context)


def test_the_text_s_prediction_is_made_once_a_step_and_gradient_reaches_the_null_text_alone(
    small_model, trajectory, source
):
    witness = Witness(small_model)
    tune_null(witness, trajectory, source, inner_steps=2, stop_below=0.0)
    text = [torch.equal(context, source) for _, context, _ in witness.calls]
    tuned = [context.requires_grad for _, context, _ in witness.calls]
    recorded = [enabled for *_, enabled in witness.calls]
    # the text, two iterations of ∅_t, and the step that is then made
    assert text == [True, False, False, False] * len(SCHEDULE)
    assert tuned == recorded == [False, True, True, False] * len(SCHEDULE)
    assert all(p.grad is None for p in small_model.unet.parameters())


def test_no_gradient_history_accumulates_from_step_to_step(small_model, trajectory, source):
    """No latent and no embedding that a step starts with has a history."""
    witness = Witness(small_model)
    tuning = tune_null(witness, trajectory, source, inner_steps=2)
    assert all(z.grad_fn is None and not z.requires_grad for z, _, _ in witness.calls)
    assert all(context.is_leaf for _, context, _ in witness.calls)
    assert not tuning.embeddings.requires_grad


def test_a_step_s_tuning_ends_once_its_loss_is_small_enough(small_model, trajectory, source):
    """With a limit that all losses are below, every step is tuned exactly once."""
    once, stopped = (
        tune_null(small_model, trajectory, source, inner_steps=n, stop_below=stop)
        for n, stop in ((1, 0.0), (10, 1e3))
    )
    assert torch.equal(once.embeddings, stopped.embeddings)


def test_the_loss_that_ends_a_step_s_tuning_grows_by_twice_itself_with_each_step(
    small_model, trajectory, source, monkeypatch
):
    """Every iteration is given the loss 4: below 1·(1 + 2i) from the third step on."""
    tries = []

    def gradient(land, c, pivot, scale):
        tries.append(land.args[2].k)
        return torch.zeros_like(c), torch.tensor([4.0]), scale

    monkeypatch.setattr(pti, "gradient", gradient)
    tune_null(small_model, trajectory, source, inner_steps=3, stop_below=1.0)
    assert [tries.count(k) for k in range(len(SCHEDULE), 0, -1)] == [3, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("decay, moved", [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_the_learning_rate_falls_by_its_share_with_each_step(
    small_model, trajectory, source, decay, moved
):
    """Adam's one step from ∅ is as long as the learning rate, for most coordinates."""
    tuning = tune_null(small_model, trajectory, source, inner_steps=1, lr=0.01, lr_decay=decay)
    noisiest, second = tuning.embeddings[-1], tuning.embeddings[-2]
    first_move = (noisiest - small_model.embed("")).abs().median()
    torch.testing.assert_close(first_move, torch.tensor(0.01), rtol=1e-2, atol=0)
    torch.testing.assert_close(
        (second - noisiest).abs().median(), torch.tensor(0.01 * moved), rtol=1e-2, atol=1e-6
    )
