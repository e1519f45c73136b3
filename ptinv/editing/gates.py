"""Gates: on which of a walk's steps a control acts, for all tokens or for each its own.

A gate counts in progress, the fraction of the walk's steps that are done, 0 at the first: a number
f stands for [0, f), a pair (a, b) for [a, b). By word, {"default": 0.8, "tiger": (0.2, 0.5)}.
A step that a gate ends within is still in it, where the original code has already shut it.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..settings import DEFAULT, Gate, Settings, WordGates, bounds
from ..text import LENGTH


def interval(gate: Gate) -> Tensor:
    """The [a, b) of a gate, (2,). Raises InputError unless 0 ≤ a ≤ b ≤ 1."""
    # in float64, where a step's fraction and the same fraction written down are equal
    return torch.tensor(bounds("a gate", gate), dtype=torch.float64)


def token_gates(gates: WordGates, find: Callable[[str], list[int]], length: int = LENGTH) -> Tensor:
    """(77, 2): the gate of each token of a prompt, from `gates` as one or by word.

    find: the positions of a phrase in the prompt, as `Tokenizer.find` has it. Tokens that no phrase
    names have the "default", which is that of the settings if it isn't said.
    """
    by_word = dict(gates) if isinstance(gates, Mapping) else {DEFAULT: gates}
    table = interval(by_word.pop(DEFAULT, Settings.cross_replace)).repeat(length, 1)
    for phrase, gate in by_word.items():
        table[find(phrase)] = interval(gate)
    return table


def opened(gates: Tensor, k: int, steps: int) -> Tensor:
    """Which of the gates (…, 2) are open on the step that leaves rung k of a walk of T' steps."""
    progress = (steps - k) / steps
    return (gates[..., 0] <= progress) & (progress < gates[..., 1])
