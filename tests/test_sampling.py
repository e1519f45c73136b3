"""The one walk, with networks so simple that its way is known beforehand."""

import pytest
import torch

from ptinv import ddim
from ptinv.editing.conditions import constant
from ptinv.sampling import Walk, ancestral, last, predictions, walk_down, walk_up

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
    top = last(walk_up(Echo(), z0, RUNGS, CONDITION, guidance), z0)
    bottom = last(walk_down(Echo(), top, RUNGS[::-1], Walk(CONDITION, guidance)), top)
    assert (top - z0).abs().max() > 0.1
    torch.testing.assert_close(bottom, z0, rtol=1e-12, atol=1e-12)


def test_both_ways_the_noise_is_asked_at_the_noisier_end_of_each_step():
    up, down = Echo(), Echo()
    list(walk_up(up, normal(0), RUNGS, CONDITION, 0))
    list(walk_down(down, normal(0), RUNGS[::-1], Walk(CONDITION, 0)))
    timesteps = [rung.t for rung in RUNGS]
    assert [t for t, _, _ in up.asked] == timesteps == [1, 101, 201, 301, 401, 501, 601, 701]
    assert [t for t, _, _ in down.asked] == timesteps[::-1]


@pytest.mark.parametrize("guidance, side", [(0, NULL), (0.0, NULL), (1, COND), (1.0, COND)])
def test_guidance_0_and_1_ask_one_side_only(guidance, side):
    model = Echo()
    eps_null, eps_cond = predictions(model, normal(0), RUNGS[0], (NULL, COND), guidance)
    ((_, context, _),) = model.asked
    assert torch.equal(context, side)
    assert torch.equal(ddim.guide(eps_null, eps_cond, guidance), side)


def test_other_guidance_asks_both_sides_in_one_call_the_null_side_first():
    model = Echo()
    eps_null, eps_cond = predictions(model, normal(0), RUNGS[0], (NULL, COND), 7.5)
    ((_, context, _),) = model.asked
    assert torch.equal(context, torch.cat([NULL, COND]))
    assert torch.equal(eps_null, NULL) and torch.equal(eps_cond, COND)


def test_the_walk_follows_the_guided_prediction():
    rung = RUNGS[-1]
    (z,) = walk_down(Echo(), normal(0), [rung], Walk(CONDITION, 7.5))
    guided = NULL + 7.5 * (COND - NULL)
    torch.testing.assert_close(z, ddim.step(normal(0), guided, rung.alpha, rung.alpha_prev))


@pytest.mark.parametrize("guidance", [0, 1, 7.5])
def test_a_control_is_made_for_each_call_and_sees_both_sides(guidance):
    made = []

    def control(k, rows):
        made.append((k, rows))
        return f"control of rung {k}"

    model = Echo()
    list(walk_down(model, normal(0), RUNGS[::-1], Walk(CONDITION, guidance, control)))
    assert made == [(k, ("null", "target")) for k in range(8, 0, -1)]
    for (_, context, given), (k, _) in zip(model.asked, made, strict=True):
        assert given == f"control of rung {k}"
        assert torch.equal(context, torch.cat([NULL, COND]))


def test_rows_of_several_branches_are_named_in_the_order_of_the_batch():
    made = []
    predictions(
        Echo(),
        normal(0, rows=2),
        RUNGS[0],
        (normal(1, rows=2), normal(2, rows=2)),
        7.5,
        lambda k, rows: made.append(rows),
        branches=("source", "target"),
    )
    assert made == [("null", "null", "source", "target")]


def test_rows_without_names_are_all_the_target_s():
    made = []
    control = lambda k, rows: made.append(rows)  # noqa: E731
    predictions(Echo(), normal(0, rows=2), RUNGS[0], (NULL, COND), 7.5, control)
    assert made == [("null", "null", "target", "target")]


def test_names_for_more_rows_than_there_are_are_refused():
    with pytest.raises(ValueError, match="1 rows of the latent"):
        predictions(Echo(), normal(0), RUNGS[0], (NULL, COND), 7.5, branches=("source", "target"))


def test_each_rung_has_its_own_condition():
    model = Echo()
    contexts = normal(3, rows=8)
    condition = lambda k: (NULL, contexts[k - 1 : k])  # noqa: E731
    list(walk_down(model, normal(0), RUNGS[::-1], Walk(condition, 1)))
    asked = torch.cat([context for _, context, _ in model.asked])
    assert torch.equal(asked, contexts.flip(0))


def test_what_comes_after_a_step_is_told_where_it_led_and_may_lead_elsewhere():
    pivots, told = normal(4, rows=9), []

    def after(step):
        told.append((step.rung.k - 1, step.z))
        return pivots[step.rung.k - 1 : step.rung.k]

    z = pivots[-1:]
    walked = list(walk_down(Echo(), z, RUNGS[::-1], Walk(CONDITION, 0, after=(after,))))
    assert [k for k, _ in told] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(torch.cat(walked), pivots[:-1].flip(0))
    for rung, (k, reached) in zip(RUNGS[::-1], told, strict=True):
        from_pivot = ddim.step(pivots[k + 1 : k + 2], NULL, rung.alpha, rung.alpha_prev)
        assert torch.equal(reached, from_pivot)


@pytest.mark.parametrize("guidance, seen", [(0, (NULL, NULL)), (1, (COND,) * 2), (3, CONDITION(1))])
def test_what_comes_after_a_step_also_sees_the_two_predictions_where_both_were_asked(
    guidance, seen
):
    steps = []

    def after(step):
        steps.append(step)
        return step.z

    list(walk_down(Echo(), normal(0), RUNGS[::-1], Walk(CONDITION, guidance, after=(after,))))
    assert [step.rung for step in steps] == RUNGS[::-1]
    for step in steps:
        assert torch.equal(step.eps_null, seen[0]) and torch.equal(step.eps_cond, seen[1])


def test_rules_follow_one_another():
    rung = RUNGS[-1]
    rules = (lambda step: step.z + 1), (lambda step: 2 * step.z)
    (plain,) = walk_down(Echo(), normal(0), [rung], Walk(CONDITION))
    (ruled,) = walk_down(Echo(), normal(0), [rung], Walk(CONDITION, after=rules))
    assert torch.equal(ruled, 2 * (plain + 1))


def test_a_walk_of_no_rungs_ends_where_it_starts():
    z = normal(0)
    assert last(walk_up(Echo(), z, [], CONDITION, 7.5), z) is z
    assert last(walk_down(Echo(), z, [], Walk(CONDITION)), z) is z


# The ancestral step of Eq. 2


MEAN, DEVIATION = 2.0, 0.5


class Perfect:
    """Predicts E[ε | z_t] for data whose elements are N(MEAN, DEVIATION²), as a network would."""

    alphas = {rung.t: rung.alpha for rung in ddim.ladder(250)}

    def predict_noise(self, z, t, context, control=None):
        alpha = self.alphas[t]
        return (1 - alpha) ** 0.5 * (z - alpha**0.5 * MEAN) / (alpha * DEVIATION**2 + 1 - alpha)


def test_the_ancestral_walk_makes_data_of_noise():
    """A wrong σ would show: too small a one leaves less spread than the data has."""
    rungs, shape = ddim.ladder(250), (1, 4, 50, 100)

    def noise(k):
        return torch.randn(shape, generator=torch.Generator().manual_seed(k))

    walk = Walk(CONDITION, 0, advance=ancestral(noise))
    start = noise(len(rungs) + 1).double()
    z0 = last(walk_down(Perfect(), start, rungs[::-1], walk), start)
    # of 20,000 elements a mean strays by 0.004 and a deviation by 0.003; 250 steps are not endless
    assert z0.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert z0.std().item() == pytest.approx(DEVIATION, abs=0.03)


def test_the_ancestral_step_adds_the_noise_of_its_own_rung():
    noises = normal(5, rows=9)
    rung = RUNGS[4]
    advance = ancestral(lambda k: noises[k : k + 1])
    sigma = ddim.ancestral_sigma(rung.alpha, rung.alpha_prev)
    expected = ddim.step(normal(0), NULL, rung.alpha, rung.alpha_prev, sigma, noises[5:6])
    assert torch.equal(advance(rung, normal(0), NULL), expected)
