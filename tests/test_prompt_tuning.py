"""Prompt tuning: the embedding moves, nothing else does, and the walk comes back for it."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small import PROMPT

import ptinv
from ptinv import ddim
from ptinv.inversion.ddim import ddim_inversion
from ptinv.inversion.prompt_tuning import gradient, guided_step, tune_prompt

RUNGS = ddim.ladder(5, 0.8)
GUIDANCE = 7.5


@pytest.fixture(scope="module")
def trajectory(small_model, picture):
    return ddim_inversion(small_model, small_model.encode(picture), RUNGS)


@pytest.fixture(scope="module")
def target(small_model):
    return small_model.embed(PROMPT)


@pytest.fixture(scope="module")
def tuned(small_model, trajectory, target):
    """The paper's N = 1, β = 0.1."""
    return tune_prompt(small_model, trajectory, RUNGS, target)


def moves(tuning, target):
    """How far each step's tuning took each coordinate, the first tuned step first."""
    path = torch.cat([target, tuning.embeddings.flip(0)[:, 0]])
    return path.diff(dim=0).abs()


# Where the walk goes


def test_tuning_brings_the_guided_walk_back_to_the_trajectory(small_model, trajectory, target):
    left, tuned = (
        tune_prompt(small_model, trajectory, RUNGS, target, inner_steps=n, lr=0.03).losses
        for n in (0, 10)
    )
    assert (tuned < left / 4).all()


def test_each_embedding_takes_its_own_step_to_where_its_loss_says(small_model, trajectory, tuned):
    z = trajectory[-1]
    for rung in reversed(RUNGS):
        eps_null = small_model.predict_noise(z, rung.t, small_model.embed(""))
        c = tuned.embeddings[rung.k - 1]
        z = guided_step(small_model, z, rung, eps_null, GUIDANCE, c)
        loss = F.mse_loss(z, trajectory[rung.k - 1])
        torch.testing.assert_close(loss[None], tuned.losses[rung.k - 1])


def test_a_loss_is_kept_for_every_step(tuned):
    assert tuned.losses.shape == (len(RUNGS), 1)
    assert tuned.losses.isfinite().all()
    assert tuned.embeddings.shape == (len(RUNGS), 1, 77, 128)


@pytest.mark.parametrize("options", [dict(lr=0.0, inner_steps=3), dict(inner_steps=0)])
def test_without_a_step_to_take_the_embedding_stays_to_the_bit(
    small_model, trajectory, target, options
):
    tuning = tune_prompt(small_model, trajectory, RUNGS, target, **options)
    assert torch.equal(tuning.embeddings, target.expand(len(RUNGS), -1, -1, -1))


def test_the_start_itself_is_left_alone(small_model, trajectory, target, tuned):
    assert torch.equal(target, small_model.embed(PROMPT))


# How far the embedding moves


def test_a_single_iteration_moves_each_coordinate_by_at_most_the_learning_rate(target, tuned):
    rounding = 1e-6  # of float32, in embeddings of a few units
    assert (moves(tuned, target) <= 0.1 + rounding).all()


def test_and_most_coordinates_by_nearly_as_much_whichever_their_gradient(target, tuned):
    assert (moves(tuned, target) > 0.099).float().mean() > 0.5


def test_each_step_starts_where_the_last_one_ended(target, tuned):
    """From c* at every step, no coordinate could ever be further from it than one move."""
    away = (tuned.embeddings - target).abs().amax(dim=(1, 2, 3)).flip(0)
    for step, distance in enumerate(away.tolist(), start=1):
        assert 0.1 * (step - 1) < distance <= 0.1 * step + 1e-5


# What the networks are asked


class Witness:
    """A model that notes each question: is it the null prompt's, and does gradient flow back?"""

    def __init__(self, model):
        self.model, self.device, self.dtype = model, model.device, model.dtype
        self.embed, self.null, self.asked = model.embed, model.embed(""), []

    def predict_noise(self, z, t, context):
        eps = self.model.predict_noise(z, t, context)
        self.asked.append((t, torch.equal(context, self.null), eps.requires_grad))
        return eps


def test_the_unconditional_side_is_asked_once_a_step_and_without_gradient(
    small_model, trajectory, target
):
    witness = Witness(small_model)
    tune_prompt(witness, trajectory, RUNGS, target, inner_steps=2)
    unconditional, tuning, landing = (True, False), (False, True), (False, False)
    assert witness.asked == [
        (rung.t, *question)
        for rung in reversed(RUNGS)
        for question in (unconditional, tuning, tuning, landing)
    ]


def test_gradient_reaches_the_embedding_and_nothing_else(small_model, trajectory, target, tuned):
    for network in (small_model.unet, small_model.vae, small_model.text_encoder):
        assert not any(weight.requires_grad for weight in network.parameters())
        assert all(weight.grad is None for weight in network.parameters())
    for tensor in (trajectory, target, *tuned):
        assert not tensor.requires_grad and tensor.grad is None


def test_tuning_works_where_gradients_are_off(small_model, trajectory, target, tuned):
    with torch.no_grad():
        again = tune_prompt(small_model, trajectory, RUNGS, target)
    assert torch.equal(again.embeddings, tuned.embeddings)


# Precision


@pytest.mark.parametrize("dtype, likeness", [("bfloat16", 0.8), ("float16", 0.9)])
def test_reduced_precision_tunes_in_the_same_direction(
    small_folder, trajectory, target, tuned, dtype, likeness
):
    """Not quite: where a gradient is nearly 0, rounding decides the sign, and so the whole step."""
    model = ptinv.load(small_folder, device="cpu", dtype=dtype)
    tuning = tune_prompt(model, trajectory, RUNGS, target)
    assert tuning.embeddings.dtype == torch.float32
    assert tuning.embeddings.isfinite().all() and tuning.losses.isfinite().all()
    ours, theirs = ((t.embeddings - target).flatten(1) for t in (tuning, tuned))
    assert (F.cosine_similarity(ours, theirs) > likeness).all()


def test_a_scale_of_the_loss_that_overflows_the_network_is_halved(small_folder, trajectory, target):
    model, rung = ptinv.load(small_folder, device="cpu", dtype="float16"), RUNGS[-1]
    c = target.clone().requires_grad_()
    found = {}
    for scale in (2.0**12, 2.0**60):
        land = partial(guided_step, model, trajectory[-1], rung, torch.zeros(()), 7.5)
        found[scale], losses, served = gradient(land, c, trajectory[-2], scale)
        assert found[scale].isfinite().all() and losses.isfinite().all()
    assert served < 2.0**60
    assert F.cosine_similarity(*(g.flatten() for g in found.values()), dim=0) > 0.99


def through_float16(c):
    """A network in miniature: values and gradients pass through float16."""
    return c.half().float()


def test_a_gradient_that_overflows_is_found_at_a_smaller_scale_of_the_loss():
    c = torch.full((1, 4), 1000.0, requires_grad=True)
    found, _, scale = gradient(through_float16, c, torch.zeros(1, 4), 2.0**12)
    # ∇ = 2 · 1000 / 4 = 500; the largest power of two that keeps it below float16's 65504 is 128
    assert scale == 128
    assert torch.equal(found, torch.full((1, 4), 500.0))


def test_a_gradient_too_small_for_float16_is_found_at_a_larger_scale():
    c, pivot = torch.zeros(1, 4, requires_grad=True), torch.full((1, 4), 2.0**-26)
    vanished, *_ = gradient(through_float16, c, pivot, 1.0)
    found, _, scale = gradient(through_float16, c, pivot, 2.0**12)
    assert not vanished.any()
    assert scale == 2**12
    assert torch.equal(found, torch.full((1, 4), -(2.0**-27)))


def test_the_gradient_of_a_row_does_not_depend_on_how_many_there_are():
    """A mean over the whole batch would halve it, and Adam's step with it where it is small."""
    c, pivot = torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True), torch.zeros(2, 2)
    both, *_ = gradient(lambda c: c, c, pivot, 1.0)
    assert torch.equal(both, c)  # ∇ of the mean of c² over two elements: 2 c / 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_never_finite_is_an_error_that_suggests_a_precision(value):
    c = torch.ones(1, 4, requires_grad=True)
    with pytest.raises(FloatingPointError, match="--dtype"):
        gradient(lambda c: c * value, c, torch.zeros(1, 4), 2.0**12)


# The trajectory


def test_a_trajectory_begins_with_the_picture_s_latent(small_model, picture, trajectory):
    assert torch.equal(trajectory[0], small_model.encode(picture))
    assert len(trajectory) == len(RUNGS) + 1
