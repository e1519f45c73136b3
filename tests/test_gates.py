"""A gate is open on the steps that it names, for all tokens or for each its own."""

import pytest
import torch

from ptinv.editing.gates import interval, opened, token_gates
from ptinv.errors import InputError
from ptinv.settings import Settings

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
    def find(words):
        return small_model.tokenizer.find(words, "a red car on the grass")

    table = token_gates({"default": 0.8, "red": (0.2, 0.5), "the grass": 0.1}, find)
    expected = interval(0.8).repeat(77, 1)
    expected[2] = interval((0.2, 0.5))
    expected[5:7] = interval(0.1)
    assert torch.equal(table, expected)
    assert torch.equal(token_gates(0.8, find), interval(0.8).repeat(77, 1))
    assert torch.equal(token_gates({"red": 0.5}, find)[3], interval(Settings.cross_replace))
    with pytest.raises(InputError, match="yellow"):
        token_gates({"yellow": 0.5}, find)
