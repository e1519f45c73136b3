"""Prompt-to-Prompt through the small untrained UNet; the equations are in the file beside this."""

import pytest
import torch
from pairs import (
    ALWAYS,
    CROSS,
    ROWS,
    SELF,
    STEPS,
    assert_sums_to_1,
)
from tensors import normal

from ptinv.core import ddim
from ptinv.core.attention import Control
from ptinv.core.sampling import constant, last, sample
from ptinv.methods.controls import Record, chained, reweight
from ptinv.methods.prompt_to_prompt import cross_attention, self_attention

TIMESTEP = ddim.schedule(STEPS)[-1]


def noise(pair, size, control, branches=("source", "target"), z=None):
    """ε̃ of Eq. 5 from the small UNet for each branch, from one call."""
    if z is None:
        z = normal(1, 4, *size).expand(2, -1, -1, -1)
    how = dict(control=control, branches=branches)
    (step,) = sample(pair.model, z, [TIMESTEP], constant(*pair.embeddings()), 7.5, **how)
    return step.eps


SIZES = pytest.mark.parametrize("size", [(16, 16), (12, 20), (24, 8)])
KINDS = {
    "replace": lambda pair: cross_attention(pair.mapper("replace"), ALWAYS, STEPS),
    "refine": lambda pair: cross_attention(pair.mapper("refine"), ALWAYS, STEPS),
    "self": lambda pair: self_attention(1.0, STEPS, 16 * 16),
    "reweight": lambda pair: reweight(torch.ones(77), ALWAYS, STEPS),
    "everything": lambda pair: pair.everything(factors=torch.ones(77)),
    "by word": lambda pair: pair.everything({"default": 0.0, "car": 1.0}),
}


@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_source_s_prompt_the_target_is_the_source(same, size, kind):
    control = KINDS[kind](same)
    out = noise(same, size, control)
    torch.testing.assert_close(out[1], out[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out, noise(same, size, None), rtol=1e-4, atol=1e-4)


@SIZES
def test_an_edit_moves_the_target_towards_the_source_and_leaves_the_source(swap, size):
    plain, controlled = noise(swap, size, None), noise(swap, size, swap.everything())
    torch.testing.assert_close(controlled[0], plain[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(controlled[1], plain[1], rtol=1e-2, atol=1e-2)


@SIZES
@pytest.mark.parametrize("gate", [0.0, (0.0, 0.0), {"default": 0.0, "red": (0.5, 0.5)}])
def test_a_gate_of_zero_length_changes_no_bit(swap, size, gate):
    factors = torch.full((77,), 2.0)
    control = swap.everything(gate, self_gate=0.0, factors=factors)
    assert torch.equal(noise(swap, size, control), noise(swap, size, None))


def test_a_gate_that_shuts_changes_no_bit_from_then_on(swap):
    control = swap.everything(0.4, self_gate=0.2)
    for timestep in ddim.schedule(STEPS)[::-1]:
        now, done = control(timestep.k, ROWS), STEPS - timestep.k
        acts = [now is not None and now.wants(place) for place in (CROSS, SELF)]
        assert acts == [done < 4, done < 2]


class Spy(Control):
    """Keeps the maps that a control leaves behind."""

    def __init__(self):
        self.kept = []

    def wants(self, place):
        return place.kind == "cross"

    def __call__(self, probabilities, place):
        self.kept.append(probabilities)
        return probabilities


@SIZES
def test_in_every_layer_the_other_words_maps_are_the_source_s(swap, size):
    spy = Spy()
    noise(swap, size, chained([swap.everything(), lambda k, rows: spy]))
    assert len(spy.kept) > 1
    for maps in spy.kept:
        assert_sums_to_1(maps)
        others = [1, 3, 4, 5, 6]
        torch.testing.assert_close(maps[3][..., others], maps[2][..., others])


def test_sampling_under_control_with_equal_prompts_ends_in_two_equal_latents(same):
    z = normal(1, 4, 16, 16).expand(2, -1, -1, -1)
    control = same.everything(0.8, self_gate=0.4)
    schedule = ddim.schedule(STEPS)[::-1]
    condition, branches = constant(*same.embeddings()), ("source", "target")
    steps = sample(same.model, z, schedule, condition, control=control, branches=branches)
    z = last(steps, z)
    torch.testing.assert_close(z[1], z[0], rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_the_unet_to_both_embeddings(longer):
    null, cond = longer.embeddings()
    cond = cond.clone().requires_grad_()
    z = normal(2, 4, 16, 16)
    control = longer.everything()(TIMESTEP.k, ROWS)
    both = torch.cat([null, cond])
    eps = longer.model.predict_noise(torch.cat([z, z]), TIMESTEP.t, both, control)
    (eps[3] ** 2).sum().backward()
    assert cond.grad.isfinite().all()
    assert cond.grad[0].any() and cond.grad[1].any()  # the target looks at the source


def test_a_record_at_the_end_of_the_chain_holds_the_maps_that_the_target_was_given(swap):
    level = swap.model.unet.config.mask_level
    record = Record(level)
    noise(swap, (12, 20), chained([swap.everything(), lambda k, rows: record]))
    assert record.total.shape == (4, 77, 6, 10)
    torch.testing.assert_close(record.total[3, 3], record.total[2, 3])  # car, in both
