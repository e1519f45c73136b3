"""Prompt-to-Prompt: the target's attention is made of the source's, and so its layout stays.

Hertz et al., arXiv 2208.01626, Sec. 3.2. Source and target are sampled side by side, as branches:
rows of one batch that have names. In every call of the UNet the target's rows see the attention of
the source's rows, M -> M*:

    cross-attention   where its tokens have an answer in the source prompt (see `alignment.py`)
    self-attention    in small maps, which hold layout, not detail

each while its gate is open (see `gates.py`; for cross-attention it may differ by word). A shut gate
wants no layer. Re-weighting, and the record from which local blending makes its mask, are controls
of their own (see `controls.py`) that come after these in the chain.

Shapes: maps are (b, h, p, n), as in `attention.py`: batch, heads, pixels, tokens attended to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from torch import Tensor

from ..attention import Place
from ..sampling import ControlAt, Rows
from ..settings import Align, Gate
from ..text import Tokenizer
from .alignment import refinement, replacement, without_padding
from .controls import chained, rows_of
from .gates import interval, opened

Branches = tuple[str, str]  # the names of the source's rows and of the target's
BRANCHES = ("source", "target")
Change = Callable[[Tensor, Tensor], Tensor]  # (M of the source, M* of the target) -> the new M*


def replace(source: Tensor, mapper: Tensor) -> Tensor:
    """Word swap, M*_n = Σ_w M_w mapper_wn: the new words are where the old ones were."""
    return einsum(source, mapper.to(source), "b h p w, w n -> b h p n")


def refine(source: Tensor, own: Tensor, answers: Tensor) -> Tensor:
    """Adding a phrase: M*_n = M_A(n), or as it is where A(n) = -1, for the new words.

    answers: A, (n,), the source position of each target position.
    """
    answers = answers.to(source.device)
    return torch.where(answers >= 0, source[..., answers.clamp(min=0)], own)


def rebalance(maps: Tensor, words: Tensor) -> Tensor:
    """Makes the rows sum to 1 again, through the tokens that belong to no word.

    Maps taken from two prompts need not sum to 1, and the paper leaves it at that. Here the start,
    the end and the padding, where (n,) `words` is False, take up the difference, so that the words'
    maps stay what they were made. (Only words that want more than 1 between them are scaled.)
    """
    words = words.to(maps.device)
    share = (maps * words).sum(dim=-1, keepdim=True)
    rest = (maps * ~words).sum(dim=-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return torch.where(words, maps / share.clamp(min=1), maps * ((1 - share).clamp(min=0) / rest))


def between(tokenizer: Tokenizer, source: str, target: str, align: Align = "auto") -> Change:
    """How a target prompt's maps are made of a source prompt's.

    "auto" replaces where both have as many words, and refines where they haven't. Raises InputError
    if "replace" was asked for and they haven't.
    """
    old, new = ([word.positions for word in tokenizer.read(text)] for text in (source, target))
    if align == "replace" or (align == "auto" and len(old) == len(new)):
        mapper = replacement(old, new)
        return lambda source, own: replace(source, mapper)
    answers = refinement(*map(without_padding, tokenizer.ids([source, target])))
    return lambda source, own: refine(source, own, answers)


@dataclass(frozen=True)
class Injection:
    """Changes the maps of the target's rows, beside which it sees the source's; no other row."""

    kind: Literal["self", "cross"]
    sources: list[int]  # of the batch, one for each of the targets
    targets: list[int]
    change: Change | None  # None: nothing is wanted
    cells: float = math.inf  # height · width of the largest map that is changed

    def wants(self, place: Place) -> bool:
        small = place.height * place.width <= self.cells
        return self.change is not None and place.kind == self.kind and small

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        new = self.change(probabilities[self.sources], probabilities[self.targets])
        rows = torch.tensor(self.targets, device=probabilities.device)
        return probabilities.index_copy(0, rows, new)


def paired(branches: Branches, rows: Rows) -> tuple[list[int], list[int]]:
    """The source's rows and the target's: all targets look at one source, or each at its own."""
    sources, targets = (rows_of(branch, rows) for branch in branches)
    if len(sources) == 1:
        sources = sources * len(targets)
    if not targets or len(sources) != len(targets):
        raise ValueError(f"{branches} are not one source, or one each, among the rows {rows}")
    return sources, targets


def cross_attention(
    change: Change, gates: Tensor, words: Tensor, steps: int, branches: Branches = BRANCHES
) -> ControlAt:
    """The target's cross-attention from the source's, by `change`, for the tokens open in `gates`.

    gates: (77, 2), of `gates.token_gates`. words: (77,), the target's, of `alignment.word_tokens`.
    steps: of the walk, T'. The rows that it leaves sum to 1.
    """

    def at(k: int, rows: Rows) -> Injection:
        now = opened(gates, k, steps)

        def gated(source: Tensor, own: Tensor) -> Tensor:
            return rebalance(torch.where(now.to(own.device), change(source, own), own), words)

        return Injection("cross", *paired(branches, rows), gated if now.any() else None)

    return at


def self_attention(
    gate: Gate, steps: int, cells: float = 16 * 16, branches: Branches = BRANCHES
) -> ControlAt:
    """The source's self-attention for the target's, in maps of at most so many cells."""
    gates = interval(gate)

    def at(k: int, rows: Rows) -> Injection:
        change = (lambda source, own: source) if opened(gates, k, steps) else None
        return Injection("self", *paired(branches, rows), change, cells)

    return at


def prompt_to_prompt(
    change: Change,
    gates: Tensor,
    words: Tensor,
    steps: int,
    self_gate: Gate = 0.4,
    cells: float = 16 * 16,
    branches: Branches = BRANCHES,
) -> ControlAt:
    """Both for one target.

    Several targets, each with a branch of its own name, are several of these, chained.
    """
    controls = [
        cross_attention(change, gates, words, steps, branches),
        self_attention(self_gate, steps, cells, branches),
    ]
    return chained(controls)
