"""The one walk, with networks so simple that its way is known beforehand."""

import pytest
import torch

from ptinv import ddim
from ptinv.editing.conditions import constant
from ptinv.sampling import guided_noise, last, walk_down, walk_up

RUNGS = ddim.ladder(10, 0.8)


class Echo:
    """Predicts the context as the noise, whatever the latent; notes what it is asked."""

    def __init__(self):
        self.asked = []

    def predict_noise(self, z, t, context, control=None):
        self.asked.append((t, context, control))
        return context


def normal(seed, rows=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, 3, 5, generator=generator, dtype=torch.float64)


NULL, COND = normal(1), normal(2)
CONDITION = constant(NULL, COND)


@pytest.mark.parametrize("guidance", [0, 1, 7.5])
def test_a_noise_that_never_changes_is_walked_up_and_down_without_a_trace(guidance):
    z0 = normal(0)
    top = last(walk_up(Echo(), z0, RUNGS, CONDITION, guidance))
    bottom = last(walk_down(Echo(), top, RUNGS[::-1], CONDITION, guidance))
    assert (top - z0).abs().max() > 0.1
    torch.testing.assert_close(bottom, z0, rtol=1e-12, atol=1e-12)


def test_both_ways_the_noise_is_asked_at_the_noisier_end_of_each_step():
    up, down = Echo(), Echo()
    last(walk_up(up, normal(0), RUNGS, CONDITION, 0))
    last(walk_down(down, normal(0), RUNGS[::-1], CONDITION, 0))
    timesteps = [rung.t for rung in RUNGS]
    assert [t for t, _, _ in up.asked] == timesteps == [1, 101, 201, 301, 401, 501, 601, 701]
    assert [t for t, _, _ in down.asked] == timesteps[::-1]


@pytest.mark.parametrize("guidance, side", [(0, NULL), (0.0, NULL), (1, COND), (1.0, COND)])
def test_guidance_0_and_1_ask_one_side_only(guidance, side):
    model = Echo()
    eps = guided_noise(model, normal(0), RUNGS[0], (NULL, COND), guidance)
    ((_, context, _),) = model.asked
    assert torch.equal(context, side)
    assert torch.equal(eps, side)


def test_other_guidance_asks_both_sides_in_one_call_the_null_side_first():
    model = Echo()
    eps = guided_noise(model, normal(0), RUNGS[0], (NULL, COND), 7.5)
    ((_, context, _),) = model.asked
    assert torch.equal(context, torch.cat([NULL, COND]))
    torch.testing.assert_close(eps, NULL + 7.5 * (COND - NULL))


@pytest.mark.parametrize("guidance", [0, 1, 7.5])
def test_a_control_is_made_for_each_call_and_sees_both_sides(guidance):
    made = []

    def control(k, rows):
        made.append((k, rows))
        return f"control of rung {k}"

    model = Echo()
    last(walk_down(model, normal(0), RUNGS[::-1], CONDITION, guidance, control))
    assert made == [(k, ("null", "target")) for k in range(8, 0, -1)]
    for (_, context, given), (k, _) in zip(model.asked, made, strict=True):
        assert given == f"control of rung {k}"
        assert torch.equal(context, torch.cat([NULL, COND]))


def test_rows_of_several_branches_are_named_in_the_order_of_the_batch():
    made = []
    guided_noise(
        Echo(),
        normal(0, rows=2),
        RUNGS[0],
        (normal(1, rows=2), normal(2, rows=2)),
        7.5,
        lambda k, rows: made.append(rows),
        branches=("source", "target"),
    )
    assert made == [("null", "null", "source", "target")]


def test_each_rung_has_its_own_condition():
    model = Echo()
    contexts = normal(3, rows=8)
    condition = lambda k: (NULL, contexts[k - 1 : k])  # noqa: E731
    last(walk_down(model, normal(0), RUNGS[::-1], condition, 1))
    asked = torch.cat([context for _, context, _ in model.asked])
    assert torch.equal(asked, contexts.flip(0))


def test_what_comes_after_a_step_is_told_where_it_led_and_may_lead_elsewhere():
    pivots, told = normal(4, rows=9), []

    def after(k, z):
        told.append((k, z))
        return pivots[k : k + 1]

    z = pivots[-1:]
    walked = list(walk_down(Echo(), z, RUNGS[::-1], CONDITION, 0, after=after))
    assert [k for k, _ in told] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(torch.cat(walked), pivots[:-1].flip(0))
    for rung, (k, reached) in zip(RUNGS[::-1], told, strict=True):
        from_pivot = ddim.step(pivots[k + 1 : k + 2], NULL, rung.alpha, rung.alpha_prev)
        assert torch.equal(reached, from_pivot)
