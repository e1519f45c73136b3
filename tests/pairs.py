"""A source prompt beside a target prompt, for the tests of Prompt-to-Prompt."""

import torch

from ptinv.core.attention import Place
from ptinv.methods.controls import chained, reweight, token_gates
from ptinv.methods.prompt_to_prompt import alignment, cross_attention, self_attention
from ptinv.methods.words import find

ROWS = ("null", "null", "source", "target")
SOURCE = "a yellow car on the grass"
SWAPPED = "a red car on the grass"
LONGER = "a yellow car and a red boat on the grass"
CROSS = Place("cross", "down", level=1, height=2, width=3)
SELF = Place("self", "down", level=1, height=2, width=3)
STEPS = 10
ALWAYS = token_gates(1.0, None)


def assert_sums_to_1(probabilities):
    total = probabilities.sum(dim=-1)
    torch.testing.assert_close(total, torch.ones(total.shape))


class Pair:
    """A source and a target prompt, and the controls for them."""

    def __init__(self, model, source, target):
        self.model, self.source, self.target = model, source, target
        self.find = lambda phrase: find(model.tokenizer, phrase, target)

    def mapper(self, align="auto"):
        return alignment(self.model.tokenizer, self.source, self.target, align)

    def embeddings(self):
        """∅ and c for the source and the target, (2, 77, d) each."""
        null = self.model.embed("").expand(2, -1, -1)
        return null, self.model.embed([self.source, self.target])

    def everything(self, gate=1.0, self_gate=1.0, factors=None, align="auto"):
        gates = token_gates(gate, self.find)
        controls = [
            cross_attention(self.mapper(align), gates, STEPS),
            self_attention(self_gate, STEPS, 16 * 16),
        ]
        if factors is not None:
            controls.append(reweight(factors, gates, STEPS))
        return chained(controls)
