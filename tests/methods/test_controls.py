"""Attention controls, each on its own: recording, re-weighting, chains, and gates on the steps."""

import pytest
import torch
from tensors import normal

from ptinv.core.attention import Place
from ptinv.errors import InputError
from ptinv.methods.controls import (
    AttentionStore,
    Chain,
    Record,
    chained,
    interval,
    opened,
    reweight,
    rows_of,
    token_gates,
)
from ptinv.methods.words import find
from ptinv.settings import Settings

ROWS = ("null", "source", "null", "target")
CROSS = Place("cross", "down", level=1, height=2, width=3)
ELSEWHERE = [
    Place("self", "down", level=1, height=2, width=3),
    Place("cross", "down", level=0, height=4, width=6),
    Place("self", "mid", level=0, height=4, width=6),
]


def probabilities(seed=0, place=CROSS):
    return normal(len(ROWS), 2, place.height * place.width, 77, seed=seed).softmax(dim=-1)


def test_rows_of_a_branch_are_found_by_its_name():
    assert rows_of("null", ROWS) == [0, 2]
    assert rows_of("target", ROWS) == [3]
    assert rows_of("other", ROWS) == []


def test_a_record_wants_the_cross_attention_of_its_level_alone():
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


def test_a_record_s_mean_is_over_the_heads_of_all_layers():
    """So that over the tokens it adds up to 1."""
    record = Record(level=1)
    for seed in (1, 2):
        record(probabilities(seed), CROSS)
    assert record.heads == 4
    torch.testing.assert_close(record.mean, record.total / 4)
    torch.testing.assert_close(record.mean.sum(dim=1), torch.ones(len(ROWS), 2, 3))


def weighed(factors):
    """Re-weighting of all tokens, on a step of ten."""
    return reweight(factors, token_gates(1.0, None), steps=10)(5, ROWS)


def test_reweighting_multiplies_its_rows_and_leaves_the_others_to_the_bit():
    factors = torch.ones(77)
    factors[[2, 5]] = torch.tensor([2.0, 0.0])
    given = probabilities()
    out = weighed(factors)(given, CROSS)
    assert torch.equal(out[:3], given[:3])
    assert torch.equal(out[3, ..., 2], 2 * given[3, ..., 2])
    assert not out[3, ..., 5].any()
    untouched = [i for i in range(77) if i not in (2, 5)]
    assert torch.equal(out[3][..., untouched], given[3][..., untouched])


def test_reweighting_acts_in_all_cross_attention_and_in_no_other():
    control = weighed(torch.full((77,), 2.0))
    assert control.wants(CROSS) and control.wants(ELSEWHERE[1])
    assert not control.wants(ELSEWHERE[0])


def test_factors_of_1_change_nothing():
    assert weighed(torch.ones(77)) is None


def test_a_chain_passes_what_one_control_made_to_the_next_that_wants_it():
    doubled, record = weighed(torch.full((77,), 2.0)), Record(1)
    chain = Chain((doubled, record))
    given = probabilities()
    assert torch.equal(chain(given, CROSS)[3], 2 * given[3])
    torch.testing.assert_close(record.total[3, 2].flatten(), 2 * given[3, :, :, 2].sum(dim=0))
    assert chain.wants(ELSEWHERE[1])  # the re-weighting does
    chain(probabilities(place=ELSEWHERE[1]), ELSEWHERE[1])
    assert record.total.shape == (len(ROWS), 77, 2, 3)  # it was kept from the record
    assert not chain.wants(ELSEWHERE[0])


def test_a_chain_is_made_anew_for_each_call_and_none_is_none():
    made = chained([lambda k, rows: Record(k)])
    first, second = made(7, ROWS), made(6, ROWS)
    assert [chain.controls[0].level for chain in (first, second)] == [7, 6]
    assert chained([]) is None


# The attention of a whole edit


def test_a_store_adds_up_the_steps_and_keeps_the_branches_and_tokens_apart():
    store, first, second = AttentionStore(level=1), *normal(2, len(ROWS), 2, 6, 77).abs()
    store.control(9, ROWS)(first, CROSS)
    store.control(8, ROWS)(second, CROSS)
    for branch, row in {"source": 1, "target": 3}.items():
        both = (first[row] + second[row]).sum(dim=0)  # over the heads
        torch.testing.assert_close(store.maps(branch), both.T.reshape(1, 77, 2, 3))
    assert store.maps("null").shape == (2, 77, 2, 3)


# Gates


STEPS = 10


@pytest.mark.parametrize(
    "gate, open_steps",
    [
        (0.0, []),
        (0, []),
        (0.3, [0, 1, 2]),
        (1, list(range(10))),
        ((0.2, 0.5), [2, 3, 4]),
        ([0.9, 1.0], [9]),
        ((0.4, 0.4), []),
        ((1.0, 1.0), []),
    ],
)
def test_a_gate_is_open_for_its_fraction_of_the_steps(gate, open_steps):
    steps = [k for k in range(STEPS, 0, -1) if opened(interval(gate), k, STEPS)]
    assert [STEPS - k for k in steps] == open_steps


@pytest.mark.parametrize("steps", [1, 7, 40, 50, 100])
def test_a_gate_of_whole_steps_opens_for_exactly_so_many(steps):
    for count in range(steps + 1):
        gates = interval(count / steps)
        assert sum(bool(opened(gates, k, steps)) for k in range(1, steps + 1)) == count


@pytest.mark.parametrize("gate", [-0.1, 1.1, (0.5, 0.4), (-1, 0.5), float("nan")])
def test_a_gate_out_of_range_is_refused(gate):
    with pytest.raises(InputError, match="gate"):
        interval(gate)


def test_words_have_gates_of_their_own(small_model):
    def places(words):
        return find(small_model.tokenizer, words, "a red car on the grass")

    table = token_gates({"default": 0.8, "red": (0.2, 0.5), "the grass": 0.1}, places)
    expected = interval(0.8).repeat(77, 1)
    expected[2] = interval((0.2, 0.5))
    expected[5:7] = interval(0.1)
    assert torch.equal(table, expected)
    assert torch.equal(token_gates(0.8, places), interval(0.8).repeat(77, 1))
    assert torch.equal(token_gates({"red": 0.5}, places)[3], interval(Settings.cross_replace))
    with pytest.raises(InputError, match="yellow"):
        token_gates({"yellow": 0.5}, places)
