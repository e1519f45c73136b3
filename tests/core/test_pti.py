"""The paper's method: both stages in one function, then Algorithm 1 in detail.

The first part reads as a tutorial. `edit_latent` makes a picture's latent into the one that a
prompt describes; the row `pti` of the methods' table, which `ptinv.edit` and the command line run,
gives the same numbers to the bit.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small import PROMPT

import ptinv
from ptinv.core import ddim
from ptinv.core.pti import ddim_inversion, edit_latent, gradient, guided_step, tune
from ptinv.core.sampling import constant

SCHEDULE = ddim.schedule(5, 0.8)
GUIDANCE = 7.5


@pytest.fixture(scope="module")
def trajectory(small_model, picture, null):
    z0, condition = small_model.encode(picture), constant(null, null)
    return ddim_inversion(small_model, z0, SCHEDULE, condition, guidance=0)


@pytest.fixture(scope="module")
def null(small_model):
    return small_model.embed("")


@pytest.fixture(scope="module")
def target(small_model):
    return small_model.embed(PROMPT)


@pytest.fixture(scope="module")
def tuned(small_model, trajectory, target, null):
    """The paper's N = 1, β = 0.1."""
    return tune(small_model, trajectory, SCHEDULE[::-1], target, null)


# Both stages


OPTIONS = dict(steps=5, encode_ratio=0.8, eta=0.7, guidance=5.0, inner_steps=2, lr=0.05)


@pytest.mark.parametrize("options", [dict(steps=5), OPTIONS], ids=["defaults", "options"])
def test_edit_latent_is_the_row_pti_without_a_mask_to_the_bit(small_model, picture, options):
    z0 = small_model.encode(picture)  # ENC: the picture's latent, (1, 4, h, w)
    edited = edit_latent(small_model, z0, PROMPT, **options)

    # the same edit, by a row of the methods' table
    whole = ptinv.result(small_model, picture, PROMPT, "pti", mask=None, **options)
    assert torch.equal(edited, whole.latent)
    assert whole.mask is None
    assert not torch.equal(edited, z0)  # and something has changed
    assert small_model.decode(edited).tobytes() == whole.decoded.tobytes()  # DEC: a picture again


@pytest.mark.parametrize("options", [dict(steps=5), OPTIONS], ids=["defaults", "options"])
def test_edit_latent_with_a_mask_is_the_row_pti_with_that_picture_to_the_bit(
    small_model, picture, options
):
    picture = picture.resize((32, 32))  # as large as the model edits, so a cell is 2 × 2 pixels
    z0 = small_model.encode(picture)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :6] = 1  # the edit may show in the six columns on the left
    edited = edit_latent(small_model, z0, PROMPT, mask=mask, **options)

    drawn = Image.new("L", (32, 32), "black")
    drawn.paste("white", (0, 0, 12, 32))  # the same columns in pixels
    whole = ptinv.result(small_model, picture, PROMPT, "pti", mask=drawn, **options)
    assert torch.equal(whole.mask, mask)
    assert torch.equal(edited, whole.latent)
    assert torch.equal(edited[..., 6:], z0[..., 6:])  # outside, the picture's own latent
    assert not torch.equal(edited[..., :6], z0[..., :6])


@pytest.mark.slow
def test_edit_latent_at_eta_0_returns_nearer_to_the_picture_than_the_prompt_alone(
    small_model, picture
):
    z0 = small_model.encode(picture)
    make = partial(edit_latent, small_model, z0, PROMPT, steps=5, inner_steps=10, lr=0.03)
    back, astray = (F.mse_loss(make(eta=eta), z0) for eta in (0.0, 1.0))
    assert back < astray / 4


# Where the tuned steps land


@pytest.mark.slow
def test_tuning_brings_guided_sampling_back_to_the_trajectory(
    small_model, trajectory, target, null
):
    left, tuned = (
        tune(small_model, trajectory, SCHEDULE[::-1], target, null, inner_steps=n, lr=0.03).losses
        for n in (0, 10)
    )
    assert (tuned < left / 4).all()


def test_each_embedding_takes_its_own_step_as_far_as_its_loss(small_model, trajectory, null, tuned):
    z = trajectory[-1]
    for timestep in reversed(SCHEDULE):
        eps_null = small_model.predict_noise(z, timestep.t, null)
        c = tuned.embeddings[timestep.k - 1]
        z = guided_step(small_model, z, timestep, eps_null, GUIDANCE, c)
        loss = F.mse_loss(z, trajectory[timestep.k - 1])
        torch.testing.assert_close(loss[None], tuned.losses[timestep.k - 1])


def test_a_loss_is_kept_for_every_step(tuned):
    assert tuned.losses.shape == (len(SCHEDULE), 1)
    assert tuned.losses.isfinite().all()
    assert tuned.embeddings.shape == (len(SCHEDULE), 1, 77, 128)


@pytest.mark.parametrize("options", [dict(lr=0.0, inner_steps=3), dict(inner_steps=0)])
def test_without_a_step_to_take_the_embedding_stays_to_the_bit(
    small_model, trajectory, target, null, options
):
    tuning = tune(small_model, trajectory, SCHEDULE[::-1], target, null, **options)
    assert torch.equal(tuning.embeddings, target.expand(len(SCHEDULE), -1, -1, -1))


def test_tuning_leaves_its_start_alone(small_model, trajectory, target, tuned):
    assert torch.equal(target, small_model.embed(PROMPT))


# How far the embedding moves


def moves(tuning, target):
    """How far each step's tuning took each coordinate, the first tuned step first."""
    path = torch.cat([target, tuning.embeddings.flip(0)[:, 0]])
    return path.diff(dim=0).abs()


def test_a_single_iteration_moves_each_coordinate_by_at_most_the_learning_rate(target, tuned):
    rounding = 1e-6  # of float32, in embeddings of a few units
    assert (moves(tuned, target) <= 0.1 + rounding).all()


def test_a_single_iteration_moves_most_coordinates_by_nearly_the_learning_rate(target, tuned):
    assert (moves(tuned, target) > 0.099).float().mean() > 0.5


def test_each_step_starts_where_the_last_one_ended(target, tuned):
    """From c* at every step, no coordinate could ever be further from it than one move."""
    away = (tuned.embeddings - target).abs().amax(dim=(1, 2, 3)).flip(0)
    for step, distance in enumerate(away.tolist(), start=1):
        assert 0.1 * (step - 1) < distance <= 0.1 * step + 1e-5


# Calls of the network


class Witness:
    """A model that notes of each call: its timestep, if ∅ was the embedding, if gradient flows."""

    def __init__(self, model):
        self.model, self.device, self.dtype = model, model.device, model.dtype
        self.null, self.calls = model.embed(""), []

    def predict_noise(self, z, t, context):
        eps = self.model.predict_noise(z, t, context)
        self.calls.append((t, torch.equal(context, self.null), eps.requires_grad))
        return eps


def test_the_unconditional_side_is_predicted_once_a_step_and_without_gradient(
    small_model, trajectory, target, null
):
    witness = Witness(small_model)
    tune(witness, trajectory, SCHEDULE[::-1], target, null, inner_steps=2)
    unconditional, tuning, landing = (True, False), (False, True), (False, False)
    assert witness.calls == [
        (timestep.t, *call)
        for timestep in reversed(SCHEDULE)
        for call in (unconditional, tuning, tuning, landing)
    ]


def test_gradient_reaches_the_embedding_and_nothing_else(small_model, trajectory, target, tuned):
    for network in (small_model.unet, small_model.vae, small_model.text_encoder):
        assert not any(weight.requires_grad for weight in network.parameters())
        assert all(weight.grad is None for weight in network.parameters())
    for tensor in (trajectory, target, *tuned):
        assert not tensor.requires_grad and tensor.grad is None


def test_tuning_works_where_gradients_are_off(small_model, trajectory, target, null, tuned):
    with torch.no_grad():
        again = tune(small_model, trajectory, SCHEDULE[::-1], target, null)
    assert torch.equal(again.embeddings, tuned.embeddings)


# Precision


@pytest.mark.parametrize("dtype, likeness", [("bfloat16", 0.8), ("float16", 0.9)])
def test_reduced_precision_tunes_in_the_same_direction(
    small_folder, trajectory, target, null, tuned, dtype, likeness
):
    """Not quite: where a gradient is nearly 0, rounding decides the sign, and so the whole step."""
    model = ptinv.load(small_folder, device="cpu", dtype=dtype)
    tuning = tune(model, trajectory, SCHEDULE[::-1], target, null)
    assert tuning.embeddings.dtype == torch.float32
    assert tuning.embeddings.isfinite().all() and tuning.losses.isfinite().all()
    ours, theirs = ((t.embeddings - target).flatten(1) for t in (tuning, tuned))
    assert (F.cosine_similarity(ours, theirs) > likeness).all()


@pytest.mark.slow
def test_a_scale_of_the_loss_that_overflows_the_network_is_halved(small_folder, trajectory, target):
    model, timestep = ptinv.load(small_folder, device="cpu", dtype="float16"), SCHEDULE[-1]
    c = target.clone().requires_grad_()
    found = {}
    for scale in (2.0**12, 2.0**60):
        land = partial(guided_step, model, trajectory[-1], timestep, torch.zeros(()), 7.5)
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


def test_a_trajectory_starts_with_the_picture_s_latent(small_model, picture, trajectory):
    assert torch.equal(trajectory[0], small_model.encode(picture))
    assert len(trajectory) == len(SCHEDULE) + 1
