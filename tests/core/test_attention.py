"""The attention hook is harmless: it sees what it asks for, and changes only what it is told to.

On a UNet small enough to look at.
"""

import pytest
import torch
from networks import HALF_TOLERANCE, assert_near_float32, halves, relative_error

from ptinv.core.attention import Control, Place
from ptinv.core.unet import UNet, UNetConfig

SMALL = UNetConfig(
    channels=(16, 32, 32),
    attends=(True, True, False),
    layers=1,
    heads=2,
    context_channels=16,
    groups=8,
    trained_size=32,
)


class Everything(Control):
    """A control that wants every layer, keeps what it is shown, and may change it."""

    def __init__(self, change=lambda probabilities: probabilities):
        self.change = change
        self.shown = []

    def wants(self, place):
        return True

    def __call__(self, probabilities, place):
        self.shown.append((place, probabilities))
        return self.change(probabilities)


class Nothing(Control):
    """A control that wants no layer."""

    def wants(self, place):
        return False

    def __call__(self, probabilities, place):
        raise AssertionError("a layer that was not wanted was shown")


@pytest.fixture
def small():
    torch.manual_seed(0)
    return UNet(SMALL).eval().requires_grad_(False)


@pytest.fixture
def inputs():
    """Latents, timesteps and contexts of two rows; maps are 8×12, 4×6 and 2×3; 5 tokens."""
    torch.manual_seed(1)
    return torch.randn(2, 4, 8, 12), torch.tensor([10, 700]), torch.randn(2, 5, 16)


def test_masks_are_made_at_the_level_nearest_to_16_cells_across():
    assert UNetConfig().mask_level == 2
    assert SMALL.mask_level == 1


def test_a_control_that_wants_nothing_changes_no_bit(small, inputs):
    assert torch.equal(small(*inputs, control=Nothing()), small(*inputs))


def test_a_control_that_returns_what_it_is_shown_changes_next_to_nothing(small, inputs):
    """Not nothing: the fused kernel sums in another order."""
    assert relative_error(small(*inputs, control=Everything()), small(*inputs)) < 1e-5


def test_a_control_is_offered_every_attention_layer(small, inputs):
    control = Everything()
    small(*inputs, control=control)
    maps = [
        ("down", 0, 8, 12),
        ("down", 1, 4, 6),
        ("mid", 2, 2, 3),
        *[("up", 1, 4, 6)] * 2,
        *[("up", 0, 8, 12)] * 2,
    ]
    assert [place for place, _ in control.shown] == [
        Place(kind, *map) for map in maps for kind in ("self", "cross")
    ]


def test_a_control_is_shown_probabilities_of_each_pixel_over_what_it_attends_to(small, inputs):
    control = Everything()
    small(*inputs, control=control)
    for place, probabilities in control.shown:
        pixels = place.height * place.width
        assert probabilities.shape == (2, 2, pixels, pixels if place.kind == "self" else 5)
        assert (probabilities >= 0).all()
        torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(2, 2, pixels))


def test_what_a_control_returns_is_used_in_their_stead(small, inputs):
    """Where all attend to the first token alone, the others may say what they like."""

    def first_token(probabilities):
        return torch.eye(probabilities.shape[-1])[0].expand_as(probabilities)

    control = Everything(first_token)
    control.wants = lambda place: place.kind == "cross"
    z, t, context = inputs
    other = torch.cat([context[:, :1], torch.randn(2, 4, 16)], dim=1)
    assert torch.equal(small(z, t, context, control), small(z, t, other, control))
    assert not torch.equal(small(z, t, context), small(z, t, other))


def test_a_control_that_changes_one_row_leaves_the_others_alone(small, inputs):
    """Branches of an edit share a batch, and nothing else."""

    def blur_second(probabilities):
        blurred = torch.full_like(probabilities[1:], 1 / probabilities.shape[-1])
        return torch.cat([probabilities[:1], blurred])

    kept = small(*inputs, control=Everything())
    changed = small(*inputs, control=Everything(blur_second))
    assert torch.equal(changed[0], kept[0])
    assert relative_error(changed[1], kept[1]) > 1e-3


@pytest.mark.parametrize("control", [None, Everything()], ids=["fused", "controlled"])
def test_a_batch_equals_one_by_one(small, inputs, control):
    z, t, context = inputs
    rows = [small(z[i : i + 1], int(t[i]), context[i : i + 1], control) for i in range(2)]
    assert relative_error(small(*inputs, control=control), torch.cat(rows)) < 1e-5


@pytest.mark.parametrize("control", [None, Everything()], ids=["fused", "controlled"])
def test_inputs_are_left_as_they_were(small, inputs, control):
    before = [x.clone() for x in inputs]
    small(*inputs, control=control)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_the_gradient_reaches_every_token_with_and_without_a_control(small, inputs):
    z, t, context = inputs
    gradients = []
    for control in (None, Everything()):
        leaf = context.clone().requires_grad_()
        small(z, t, leaf, control).square().mean().backward()
        assert (leaf.grad.abs().amax(dim=-1) > 0).all()
        gradients.append(leaf.grad)
    assert relative_error(gradients[1], gradients[0]) < 1e-5
    assert all(parameter.grad is None for parameter in small.parameters())


@halves
@torch.no_grad()
def test_a_control_sees_float32_probabilities_whatever_the_precision(small, inputs, dtype):
    control = Everything()
    assert_near_float32("cpu", dtype, lambda: [small(*inputs, control=control)])
    expected = small(*inputs)
    stored = small.to(dtype)(*inputs, control=control)
    assert stored.dtype == torch.float32
    assert relative_error(stored, expected) < HALF_TOLERANCE[dtype]
    assert all(probabilities.dtype == torch.float32 for _, probabilities in control.shown)
