"""What an edit plugs into the walk: conditions and attention controls, each on its own."""

import pytest
import torch

from ptinv.attention import Place
from ptinv.editing.conditions import constant, interpolated
from ptinv.editing.controls import Chain, Record, Reweight, chained, reweight, rows_of

ROWS = ("null", "source", "null", "target")
CROSS = Place("cross", "down", level=1, height=2, width=3)
ELSEWHERE = [
    Place("self", "down", level=1, height=2, width=3),
    Place("cross", "down", level=0, height=4, width=6),
    Place("self", "mid", level=0, height=4, width=6),
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def probabilities(seed=0, place=CROSS):
    return normal(len(ROWS), 2, place.height * place.width, 77, seed=seed).softmax(dim=-1)


# Conditions


NULL, TARGET = normal(1, 77, 8, seed=1), normal(1, 77, 8, seed=3)
TUNED = normal(3, 1, 77, 8, seed=2)


def test_a_constant_condition_is_the_same_on_every_rung():
    condition = constant(NULL, TARGET)
    assert condition(1) == condition(40) == (NULL, TARGET)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_interpolation_is_exact_at_both_ends_and_between_them_a_mixture(k):
    c_t = TUNED[k - 1]
    for eta, expected in [(0.0, c_t), (1.0, TARGET)]:
        null, c = interpolated(NULL, TUNED, TARGET, eta)(k)
        assert null is NULL
        assert torch.equal(c, expected)
    _, c = interpolated(NULL, TUNED, TARGET, 0.9)(k)
    torch.testing.assert_close(c, 0.9 * TARGET + 0.1 * c_t)


@pytest.mark.parametrize("eta", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_interpolation_between_equals_changes_nothing(eta):
    _, c = interpolated(NULL, TARGET.expand(3, 1, -1, -1), TARGET, eta)(2)
    assert torch.equal(c, TARGET)


# Controls


def test_rows_of_a_branch_are_found_by_its_name():
    assert rows_of("null", ROWS) == [0, 2]
    assert rows_of("target", ROWS) == [3]
    assert rows_of("other", ROWS) == []


def test_a_record_listens_to_the_cross_attention_of_its_level():
    record = Record(level=1)
    assert record.wants(CROSS)
    assert not any(record.wants(place) for place in ELSEWHERE)


def test_a_record_sums_over_heads_and_layers_and_changes_nothing():
    record = Record(level=1)
    first, second = probabilities(1), probabilities(2)
    assert record(first, CROSS) is first
    assert record(second, CROSS) is second
    expected = torch.zeros(len(ROWS), 77, 2, 3)
    for layer in (first, second):
        for row in range(len(ROWS)):
            for head in range(2):
                for token in (2, 5):
                    expected[row, token] += layer[row, head, :, token].reshape(2, 3)
    torch.testing.assert_close(record.total[:, [2, 5]], expected[:, [2, 5]])


def test_reweighting_multiplies_its_rows_and_leaves_the_others_to_the_bit():
    factors = torch.ones(77)
    factors[[2, 5]] = torch.tensor([2.0, 0.0])
    given = probabilities()
    out = Reweight([3], factors)(given, CROSS)
    assert torch.equal(out[:3], given[:3])
    assert torch.equal(out[3, ..., 2], 2 * given[3, ..., 2])
    assert not out[3, ..., 5].any()
    untouched = [i for i in range(77) if i not in (2, 5)]
    assert torch.equal(out[3][..., untouched], given[3][..., untouched])


def test_reweighting_is_at_work_in_all_cross_attention_and_no_other():
    control = reweight(torch.full((77,), 2.0))(5, ROWS)
    assert control.rows == [3]
    assert control.wants(CROSS) and control.wants(ELSEWHERE[1])
    assert not control.wants(ELSEWHERE[0])


def test_a_factor_of_1_changes_nothing():
    given = probabilities()
    assert torch.equal(Reweight([1, 3], torch.ones(77))(given, CROSS), given)


def test_a_chain_passes_what_one_control_made_to_the_next_that_wants_it():
    doubled, record = Reweight([3], torch.full((77,), 2.0)), Record(1)
    chain = Chain((doubled, record))
    given = probabilities()
    assert torch.equal(chain(given, CROSS)[3], 2 * given[3])
    torch.testing.assert_close(record.total[3, 2].flatten(), 2 * given[3, :, :, 2].sum(dim=0))
    assert chain.wants(ELSEWHERE[1])  # the re-weighting does
    chain(probabilities(place=ELSEWHERE[1]), ELSEWHERE[1])
    assert record.total.shape == (len(ROWS), 77, 2, 3)  # the record was not shown it
    assert not chain.wants(ELSEWHERE[0])


def test_a_chain_is_made_anew_for_each_call_and_none_is_none():
    made = chained([lambda k, rows: Record(k)])
    first, second = made(7, ROWS), made(6, ROWS)
    assert [chain.controls[0].level for chain in (first, second)] == [7, 6]
    assert chained([]) is None
