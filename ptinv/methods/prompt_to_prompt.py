"""Prompt-to-Prompt: the target's attention is made of the source's, and so its layout stays.

Hertz et al., arXiv 2208.01626, Sec. 3.2. Source and target are sampled side by side, as branches:
rows of one batch with names. In every call of the UNet the target's see the source's maps, M -> M*:

    cross-attention   where its tokens have an answer in the source prompt
    self-attention    in small maps, which hold layout, not detail

each while its gate is open; for cross-attention it may differ by word. Which token of the source
answers to which of the target is a matrix, made of positions or ids alone:

    replacement   as many words in both (punctuation is none); a word takes the place of a word
    refinement    any two prompts; the tokens that they share in order, by Needleman-Wunsch

A prompt is its 77 positions: the start token, the words, then the end token and its repetitions.
Maps are (b, h, p, n), as in `attention.py`: batch, heads, pixels, tokens attended to.
"""

from collections.abc import Sequence

import torch
from einops import einsum
from torch import Tensor

from ..core.sampling import ControlAt
from ..core.text import LENGTH, Tokenizer
from ..errors import InputError
from ..settings import Align, Gate
from .controls import SIDE_BY_SIDE, gated, interval
from .edit import Edit
from .words import Word, positions_of, read


def by_place(words: list[Word]) -> dict[tuple[int, int], Word]:
    """Words by their number, and punctuation by that of the word before it and its own: in "a cat,
    a dog" the comma is (2, 1) and the dog (4, 0)."""
    places, number, mark = {}, 0, 0
    for word in words:
        number, mark = (number, mark + 1) if word.is_punctuation else (number + 1, 0)
        places[number, mark] = word
    return places


def word_count(words: list[Word]) -> int:
    """Number of words; punctuation is none."""
    return sum(not word.is_punctuation for word in words)


def replacement(source: list[Word], target: list[Word]) -> Tensor:
    """(source 77, target 77): the share of each source token's attention that a target token gets.

    Words are paired in order, and punctuation where both have it after the same word. Where both of
    a pair have as many tokens, so are the tokens; else every token of the old word is shared out
    evenly among those of the new one. Later words stay with their own, however many tokens they
    move by: the original code pairs them by position, so that there "a cat on the mat" -> "an
    elephant on the mat" gives "on" the attention of "the". Raises InputError for other numbers.
    """
    if (old := word_count(source)) != (new := word_count(target)):
        wrong = f"replacement needs as many words in both prompts, not {old} and {new}"
        raise InputError(f"{wrong}; refinement takes prompts of any length")
    mapper = torch.zeros(LENGTH, LENGTH, device="cpu")
    mapper[0, 0] = 1
    there, here = by_place(source), by_place(target)
    for place in there.keys() & here.keys():
        old, new = list(there[place].positions), list(here[place].positions)
        if len(old) == len(new):
            mapper[old, new] = 1
        else:
            mapper[[[token] for token in old], new] = 1 / len(new)
    ends = [1 + max(positions_of(words), default=0) for words in (source, target)]  # end tokens
    padding = torch.arange(LENGTH - max(ends), device="cpu")
    mapper[ends[0] + padding, ends[1] + padding] = 1
    return mapper


def refinement(source: Sequence[int], target: Sequence[int]) -> Tensor:
    """(source 77, target 77): 1 where a source token answers to a target token (the paper's α).
    source, target: token ids, start to end. Padding answers to that of the same position; where the
    target is shorter some of those positions hold words of the source, as in the original."""
    answers = [*needleman_wunsch(source, target), *range(len(target), LENGTH)]
    return torch.eye(LENGTH + 1, LENGTH, device="cpu")[answers].T  # -1 is the last row, of zeros


def needleman_wunsch(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """For each target token the index of the source token that it matches, or -1, in the best
    global alignment: 1 for a match, -1 for a mismatch, gaps are free. Of equally good ones, that
    which (from the end) inserts before it deletes, and deletes before it matches."""
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


def alignment(tokenizer: Tokenizer, source: str, target: str, align: Align = "auto") -> Tensor:
    """(source 77, target 77), the matrix for two prompts. "auto" replaces where both have as many
    words, else it refines; the original has its user choose. Raises as `replacement`."""
    old, new = (read(tokenizer, text) for text in (source, target))
    if align == "replace" or (align == "auto" and word_count(old) == word_count(new)):
        return replacement(old, new)
    ids = tokenizer.ids([source, target]).tolist()
    return refinement(*(row[: row.index(row[-1]) + 1] for row in ids))  # without the padding


def cross_attention(mapper: Tensor, gates: Tensor, steps: int) -> ControlAt:
    """M*_n = Σ_w M_w mapper_wn for the tokens whose gates (77, 2) are open: the new words are where
    the old ones were. A token without an answer, whose column of `mapper` is 0, keeps its own map.
    Rows of two prompts' maps need not sum to 1; as in the paper, they are left so. steps: T'."""

    def change(now: Tensor, source: Tensor, own: Tensor) -> Tensor:
        given = einsum(source, mapper.to(source), "b h p w, w n -> b h p n")
        return torch.where(now.to(own.device), given, own)

    answered = mapper.any(dim=0)[:, None]
    return gated(gates * answered, steps, "cross", change)  # [0, 0) is never open


def self_attention(gate: Gate, steps: int, area: float) -> ControlAt:
    """The source's self-attention for the target's, in maps of at most that area. steps: T'."""
    return gated(interval(gate), steps, "self", lambda now, source, own: source, area)


def shared_attention(edit: Edit) -> list[ControlAt]:
    """Both controls for an edit of two branches; raises InputError as `replacement`."""
    if edit.branches != SIDE_BY_SIDE:
        return []
    settings, tokenizer, steps = edit.settings, edit.model.tokenizer, len(edit.schedule)
    mapper = alignment(tokenizer, settings.source, edit.prompt, settings.align)
    height, width = edit.latent_size
    trained = edit.model.unet.config.trained_size
    largest = settings.self_cells**2 * height * width / trained**2  # at this picture's size
    cross = cross_attention(mapper, edit.words.gates, steps)
    return [cross, self_attention(settings.self_replace, steps, largest)]
