"""The one loop, with networks so simple that their path is known beforehand."""

from dataclasses import replace

import pytest
import torch

from ptinv.core import ddim
from ptinv.core.pti import blend
from ptinv.core.sampling import ancestral, constant, invert, last, sample

SCHEDULE = ddim.schedule(10, 0.8)
DOWN = SCHEDULE[::-1]
UP = [timestep.upwards for timestep in SCHEDULE]


class Echo:
    """Predicts its embedding as the noise, whatever the latent; keeps its calls."""

    def __init__(self):
        self.calls = []

    def predict_noise(self, z, t, context, control=None):
        self.calls.append((t, context, control))
        return context


class Pull:
    """Predicts a noise that depends on the latent, on the timestep and on the embedding."""

    def predict_noise(self, z, t, context, control=None):
        return 0.5 * z + context * t / 1000


def normal(seed, rows=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, 3, 5, generator=generator, dtype=torch.float64)


NULL, COND = normal(1), normal(2)
CONDITION = constant(NULL, COND)


@pytest.mark.parametrize("guidance", [0, 1, 7.5])
def test_inverting_and_sampling_with_a_constant_noise_leaves_no_trace(guidance):
    z0 = normal(0)
    top = last(invert(Echo(), z0, SCHEDULE, CONDITION, guidance), z0)
    bottom = last(sample(Echo(), top, DOWN, CONDITION, guidance), top)
    assert (top - z0).abs().max() > 0.1
    torch.testing.assert_close(bottom, z0, rtol=1e-12, atol=1e-12)


def test_both_ways_the_noise_is_predicted_at_the_noisier_end_of_each_step():
    up, down = Echo(), Echo()
    list(invert(up, normal(0), SCHEDULE, CONDITION, 0))
    list(sample(down, normal(0), DOWN, CONDITION, 0))
    timesteps = [timestep.t for timestep in SCHEDULE]
    assert [t for t, _, _ in up.calls] == timesteps == [1, 101, 201, 301, 401, 501, 601, 701]
    assert [t for t, _, _ in down.calls] == timesteps[::-1]


@pytest.mark.parametrize("guidance, side", [(0, NULL), (0.0, NULL), (1, COND), (1.0, COND)])
def test_guidance_0_and_1_predict_one_side_only(guidance, side):
    model = Echo()
    (step,) = sample(model, normal(0), DOWN[:1], CONDITION, guidance)
    ((_, context, _),) = model.calls
    assert torch.equal(context, side)
    assert torch.equal(step.eps_null, side) and torch.equal(step.eps_cond, side)
    assert torch.equal(step.eps, side)


def test_other_guidance_predicts_both_sides_in_one_call_the_null_side_first():
    model = Echo()
    (step,) = sample(model, normal(0), DOWN[:1], CONDITION, 7.5)
    ((_, context, _),) = model.calls
    assert torch.equal(context, torch.cat([NULL, COND]))
    assert torch.equal(step.eps_null, NULL) and torch.equal(step.eps_cond, COND)


def test_sampling_follows_the_guided_prediction():
    timestep = SCHEDULE[-1]
    (step,) = sample(Echo(), normal(0), [timestep], CONDITION, 7.5)
    guided = NULL + 7.5 * (COND - NULL)
    expected = ddim.step(normal(0), guided, timestep.alpha_from, timestep.alpha_to)
    torch.testing.assert_close(step.z, expected)


@pytest.mark.parametrize("guidance", [0, 1, 7.5])
def test_a_control_is_made_for_each_call_and_is_given_both_sides(guidance):
    made = []

    def control(k, rows):
        made.append((k, rows))
        return f"control of step {k}"

    model = Echo()
    list(sample(model, normal(0), DOWN, CONDITION, guidance, control=control))
    assert made == [(k, ("null:target", "target")) for k in range(8, 0, -1)]
    for (_, context, given), (k, _) in zip(model.calls, made, strict=True):
        assert given == f"control of step {k}"
        assert torch.equal(context, torch.cat([NULL, COND]))


def test_rows_of_several_branches_are_named_in_the_order_of_the_batch():
    made = []
    (_,) = sample(
        Echo(),
        normal(0, rows=2),
        DOWN[:1],
        constant(normal(1, rows=2), normal(2, rows=2)),
        control=lambda k, rows: made.append(rows),
        branches=("source", "target"),
    )
    assert made == [("null:source", "null:target", "source", "target")]


def test_rows_without_names_are_all_target_rows():
    made = []
    control = lambda k, rows: made.append(rows)  # noqa: E731
    (_,) = sample(Echo(), normal(0, rows=2), DOWN[:1], CONDITION, control=control)
    assert made == [("null:target", "null:target", "target", "target")]


def test_more_branches_than_rows_are_refused():
    with pytest.raises(ValueError, match="1 rows of the latent"):
        list(sample(Echo(), normal(0), DOWN, CONDITION, branches=("source", "target")))


def test_each_step_has_its_own_condition():
    model = Echo()
    embeddings = normal(3, rows=8)
    condition = lambda k: (NULL, embeddings[k - 1 : k])  # noqa: E731
    list(sample(model, normal(0), DOWN, condition, 1))
    used = torch.cat([context for _, context, _ in model.calls])
    assert torch.equal(used, embeddings.flip(0))


def test_a_rule_is_given_the_latent_of_its_step_and_may_replace_it():
    pivots, given = normal(4, rows=9), []

    def after(step):
        given.append((step.k - 1, step.z))
        return replace(step, z=pivots[step.k - 1 : step.k])

    steps = list(sample(Echo(), pivots[-1:], DOWN, CONDITION, 0, after=[after]))
    assert [k for k, _ in given] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(torch.cat([step.z for step in steps]), pivots[:-1].flip(0))
    for timestep, (k, reached) in zip(DOWN, given, strict=True):
        from_pivot = ddim.step(pivots[k + 1 : k + 2], NULL, timestep.alpha_from, timestep.alpha_to)
        assert torch.equal(reached, from_pivot)


@pytest.mark.parametrize(
    "guidance, predicted", [(0, (NULL, NULL)), (1, (COND,) * 2), (3, CONDITION(1))]
)
def test_a_rule_is_given_both_predictions_where_both_were_made(guidance, predicted):
    steps = []

    def after(step):
        steps.append(step)
        return step

    list(sample(Echo(), normal(0), DOWN, CONDITION, guidance, after=[after]))
    assert [step.timestep for step in steps] == DOWN
    for step in steps:
        assert torch.equal(step.eps_null, predicted[0])
        assert torch.equal(step.eps_cond, predicted[1])


def test_rules_follow_one_another():
    rules = [lambda step: replace(step, z=step.z + 1), lambda step: replace(step, z=2 * step.z)]
    (plain,) = sample(Echo(), normal(0), SCHEDULE[-1:], CONDITION)
    (ruled,) = sample(Echo(), normal(0), SCHEDULE[-1:], CONDITION, after=rules)
    assert torch.equal(ruled.z, 2 * (plain.z + 1))


def test_no_timesteps_end_in_the_latent_that_they_start_from():
    z = normal(0)
    assert last(invert(Echo(), z, [], CONDITION, 7.5), z) is z
    assert last(sample(Echo(), z, [], CONDITION), z) is z


# A step as a record


def made(direction, guidance=7.5):
    """Both directions' steps from one start, with a network that depends on the latent."""
    run, schedule = {"invert": (invert, SCHEDULE), "sample": (sample, DOWN)}[direction]
    return list(run(Pull(), normal(0), schedule, CONDITION, guidance))


directions = pytest.mark.parametrize("direction", ["invert", "sample"])


@directions
def test_each_step_starts_where_the_one_before_it_ended(direction):
    steps = made(direction)
    assert torch.equal(steps[0].z_from, normal(0))
    for before, step in zip(steps, steps[1:], strict=False):
        assert torch.equal(step.z_from, before.z)
        assert not torch.equal(step.z_from, step.z)


@directions
@pytest.mark.parametrize("guidance", [0, 1, 7.5])
def test_a_step_holds_the_predictions_made_where_it_started(direction, guidance):
    sides = {0: (NULL, NULL), 1: (COND, COND)}.get(guidance, (NULL, COND))
    for step in made(direction, guidance):
        eps = [Pull().predict_noise(step.z_from, step.timestep.t, side) for side in sides]
        assert torch.equal(step.eps_null, eps[0]) and torch.equal(step.eps_cond, eps[1])
        assert torch.equal(step.eps, ddim.guide(step.eps_null, step.eps_cond, guidance))


@pytest.mark.parametrize("direction, schedule", [("invert", UP), ("sample", DOWN)])
def test_a_step_s_ends_are_those_of_its_timestep_in_the_order_of_its_direction(direction, schedule):
    steps = made(direction)
    assert [step.timestep for step in steps] == schedule
    assert [step.k for step in steps] == [timestep.k for timestep in schedule]
    for step in steps:
        alpha_from, alpha_to = step.timestep.alpha_from, step.timestep.alpha_to
        assert (alpha_from < alpha_to) == (direction == "sample")
        assert torch.equal(step.z, ddim.step(step.z_from, step.eps, alpha_from, alpha_to))
        assert torch.equal(step.z0, ddim.predict_z0(step.z_from, step.eps, alpha_from))


def test_a_step_holds_the_noise_that_its_guide_made():
    def guide(eps_null, eps_cond, guidance):
        return eps_null - guidance * eps_cond

    for step in sample(Pull(), normal(0), DOWN, CONDITION, 3, guide=guide):
        assert torch.equal(step.eps, step.eps_null - 3 * step.eps_cond)
        assert torch.equal(
            step.z0, ddim.predict_z0(step.z_from, step.eps, step.timestep.alpha_from)
        )
        expected = ddim.step(
            step.z_from, step.eps, step.timestep.alpha_from, step.timestep.alpha_to
        )
        assert torch.equal(step.z, expected)


def test_a_step_holds_its_mask_and_the_latent_after_blending():
    """The rest of it is as without the mask, and the next step starts from the blended latent."""
    mask = torch.zeros(1, 1, 3, 5)
    mask[..., :2] = 1
    pivot = normal(4, rows=9)
    rule = lambda step: blend(step, mask, pivot[step.k - 1 : step.k])  # noqa: E731
    steps = list(sample(Pull(), normal(0), DOWN, CONDITION, after=[rule]))
    for before, step in zip(steps, steps[1:], strict=False):
        assert torch.equal(step.z_from, before.z)
    for step in steps:
        (plain,) = sample(Pull(), step.z_from, [step.timestep], CONDITION)
        assert plain.mask is None
        assert step.mask is mask
        assert torch.equal(step.z[..., :2], plain.z[..., :2])
        assert torch.equal(step.z[..., 2:], pivot[step.k - 1 : step.k, ..., 2:])
        assert torch.equal(step.eps, plain.eps) and torch.equal(step.z0, plain.z0)


# The ancestral step of Eq. 2


MEAN, DEVIATION = 2.0, 0.5


class Perfect:
    """Predicts E[ε | z_t] for data whose elements are N(MEAN, DEVIATION²), as a network would."""

    alphas = {timestep.t: timestep.alpha_from for timestep in ddim.schedule(250)}

    def predict_noise(self, z, t, context, control=None):
        alpha = self.alphas[t]
        return (1 - alpha) ** 0.5 * (z - alpha**0.5 * MEAN) / (alpha * DEVIATION**2 + 1 - alpha)


def test_ancestral_sampling_makes_data_of_noise():
    """A wrong σ would show: too small a one leaves less spread than the data has."""
    schedule, shape = ddim.schedule(250), (1, 4, 50, 100)

    def noise(k):
        return torch.randn(shape, generator=torch.Generator().manual_seed(k))

    start, advance = noise(len(schedule) + 1).double(), ancestral(noise)
    steps = sample(Perfect(), start, schedule[::-1], CONDITION, 0, advance=advance)
    z0 = last(steps, start)
    # of 20,000 elements a mean strays by 0.004 and a deviation by 0.003; 250 steps are not endless
    assert z0.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert z0.std().item() == pytest.approx(DEVIATION, abs=0.03)


def test_an_ancestral_step_adds_the_noise_of_its_own_timestep():
    noises = normal(5, rows=9)
    timestep = SCHEDULE[4]
    advance = ancestral(lambda k: noises[k : k + 1])
    alphas = timestep.alpha_from, timestep.alpha_to
    sigma = ddim.ancestral_sigma(*alphas)
    expected = ddim.step(normal(0), NULL, *alphas, sigma, noises[5:6])
    assert torch.equal(advance(timestep, normal(0), NULL), expected)
