"""Prompt-to-Prompt: the target's attention is made of the source's, and so its layout stays.

Hertz et al., arXiv 2208.01626, Sec. 3.2. Source and target are sampled side by side, as branches:
rows of one batch that have names. In every call of the UNet the target's rows see the attention of
the source's rows, M -> M*:

    cross-attention   where its tokens have an answer in the source prompt
    self-attention    in small maps, which hold layout, not detail

each while its gate is open; for cross-attention it may differ by word. Re-weighting and the store
from which local blending makes its mask, in `controls.py`, come after these in the chain. Which
token of the source answers to which of the target is a function of positions or ids alone:

    replacement   as many words in both; a word takes the place of a word
    refinement    any two prompts; the tokens that they share in order, by Needleman-Wunsch

A prompt is its 77 positions: the start token, the words, then the end token and its repetitions.
Maps are (b, h, p, n), as in `attention.py`: batch, heads, pixels, tokens attended to.
"""

from collections.abc import Sequence

import torch
from einops import einsum
from torch import Tensor

from ..core.sampling import Branches, ControlAt
from ..core.text import LENGTH, Tokenizer
from ..errors import InputError
from ..settings import Align, Gate
from .controls import SIDE_BY_SIDE, Change, RowControl, interval, opened, rows_of
from .edit import Edit
from .words import read

Positions = Sequence[Sequence[int]]  # of each word's tokens, as in `words.read`


def replacement(source: Positions, target: Positions, length: int = LENGTH) -> Tensor:
    """(source 77, target 77): the share of each source token's attention that a target token gets.

    Words are paired in order. Where both have as many tokens, so are the tokens; else every token
    of the old word is shared out evenly among those of the new one. Later words stay with their
    own, however many tokens they move by: the original code pairs them by position instead, so that
    there "a cat on the mat" -> "an elephant on the mat" gives "on" the attention of "the".
    Rows sum to 1, save where the source's last padding finds no room in a longer target.
    Raises InputError unless both have as many words.
    """
    if len(source) != len(target):
        raise InputError(
            f"replacement needs as many words in both prompts, not {len(source)} and "
            f"{len(target)}; refinement takes prompts of any length"
        )
    mapper = torch.zeros(length, length)
    mapper[0, 0] = 1
    for old, new in zip(source, target, strict=True):
        if len(old) == len(new):
            mapper[list(old), list(new)] = 1
        else:
            mapper[torch.tensor(old)[:, None], list(new)] = 1 / len(new)
    ends = [words[-1][-1] + 1 if words else 1 for words in (source, target)]  # the end tokens
    padding = torch.arange(length - max(ends))
    mapper[ends[0] + padding, ends[1] + padding] = 1
    return mapper


def refinement(source: Sequence[int], target: Sequence[int], length: int = LENGTH) -> Tensor:
    """(77,): for each target position the source position that answers to it, -1 where none does.

    source, target: token ids from the start to the (first) end token. The paper's α is 1 where a
    position is found. Padding answers to the padding of the same position; where the target is
    shorter some of those positions hold words of the source, as in the original.
    """
    return torch.tensor(needleman_wunsch(source, target) + list(range(len(target), length)))


def needleman_wunsch(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """For each target token the index of the source token that it matches, or -1.

    The best global alignment: 1 for a match, -1 for a mismatch, gaps are free, so that a mismatch
    never pays. Of equally good ones, that which (from the end) inserts before it deletes, and
    deletes before it matches.
    """
    best = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, old in enumerate(source, start=1):
        for j, new in enumerate(target, start=1):
            paired = best[i - 1][j - 1] + (1 if old == new else -1)
            best[i][j] = max(best[i][j - 1], best[i - 1][j], paired)

    answers = [-1] * len(target)
    i, j = len(source), len(target)
    while i and j:
        if best[i][j] == best[i][j - 1]:  # inserted in the target
            j -= 1
        elif best[i][j] == best[i - 1][j]:  # dropped from the source
            i -= 1
        else:
            i, j = i - 1, j - 1
            answers[j] = i
    return answers


def without_padding(ids: Tensor) -> list[int]:
    """The (77,) ids of a prompt as far as its first end token, with which it is padded."""
    prompt = ids.tolist()
    return prompt[: prompt.index(prompt[-1]) + 1]


def word_tokens(words: Positions, length: int = LENGTH) -> Tensor:
    """(77,) of bool: which positions hold words, not the start, the end or padding."""
    held = torch.zeros(length, dtype=torch.bool)
    held[[position for word in words for position in word]] = True
    return held


def replace(source: Tensor, mapper: Tensor) -> Tensor:
    """Word swap, M*_n = Σ_w M_w mapper_wn: the new words are where the old ones were."""
    return einsum(source, mapper.to(source), "b h p w, w n -> b h p n")


def refine(source: Tensor, own: Tensor, answers: Tensor) -> Tensor:
    """Adding a phrase: M*_n = M_A(n), or as it is where A(n) = -1, for the new words. answers: A,
    (n,), the source position of each target position."""
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
    """The change from a source prompt's maps to a target prompt's.

    "auto" replaces where both have as many words, else it refines. Raises as `replacement`.
    """
    old, new = ([word.positions for word in read(tokenizer, text)] for text in (source, target))
    if align == "replace" or (align == "auto" and len(old) == len(new)):
        mapper = replacement(old, new)
        return lambda source, own: replace(source, mapper)
    answers = refinement(*map(without_padding, tokenizer.ids([source, target])))
    return lambda source, own: refine(source, own, answers)


def paired(branches: Branches, rows: Branches) -> tuple[list[int], list[int]]:
    """The source's rows and the target's: all targets look at one source, or each at its own."""
    sources, targets = (rows_of(branch, rows) for branch in branches)
    if len(sources) == 1:
        sources = sources * len(targets)
    if not targets or len(sources) != len(targets):
        raise ValueError(f"{branches} are not one source, or one each, among the rows {rows}")
    return sources, targets


def cross_attention(
    change: Change, gates: Tensor, words: Tensor, steps: int, branches: Branches = SIDE_BY_SIDE
) -> ControlAt:
    """The target's cross-attention from the source's, by `change`, for the tokens open in `gates`.

    gates: (77, 2), of `controls.token_gates`. words: (77,), the target's, of `word_tokens`. steps:
    T'. The rows that it leaves sum to 1.
    """

    def at(k: int, rows: Branches) -> RowControl:
        now = opened(gates, k, steps)

        def gated(source: Tensor, own: Tensor) -> Tensor:
            return rebalance(torch.where(now.to(own.device), change(source, own), own), words)

        return RowControl("cross", *paired(branches, rows), gated if now.any() else None)

    return at


def self_attention(
    gate: Gate, steps: int, area: float = 16 * 16, branches: Branches = SIDE_BY_SIDE
) -> ControlAt:
    """The source's self-attention for the target's, in maps of at most that area."""
    gates = interval(gate)

    def at(k: int, rows: Branches) -> RowControl:
        change = (lambda source, own: source) if opened(gates, k, steps) else None
        return RowControl("self", *paired(branches, rows), change, area)

    return at


def shared_attention(edit: Edit) -> list[ControlAt]:
    """Both controls for an edit; none where one branch is sampled alone. Raises InputError as
    `between`."""
    if edit.branches != SIDE_BY_SIDE:
        return []
    settings, tokenizer, steps = edit.settings, edit.model.tokenizer, len(edit.schedule)
    change = between(tokenizer, settings.source, edit.prompt, settings.align)
    words = word_tokens([word.positions for word in read(tokenizer, edit.prompt)])
    largest = edit.map_area(settings.self_cells)
    return [
        cross_attention(change, edit.words.gates, words, steps),
        self_attention(settings.self_replace, steps, largest),
    ]
