"""Which token of a source prompt answers to which token of a target prompt.

Prompt-to-Prompt (Hertz et al., arXiv 2208.01626, Sec. 3.2) gives the target the source's attention
maps, token by token. Two ways to pair the tokens, both pure functions of positions or ids:

    replacement   as many words in both; a word takes the place of a word
    refinement    any two prompts; the tokens that they share in order, by Needleman-Wunsch

A prompt is its 77 positions: the start token, the words, then the end token and its repetitions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..text import LENGTH

Positions = Sequence[Sequence[int]]  # of each word's tokens, as in `Tokenizer.read(prompt)`


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
    ends = _end(source), _end(target)
    padding = torch.arange(length - max(ends))
    mapper[ends[0] + padding, ends[1] + padding] = 1
    return mapper


def refinement(source: Sequence[int], target: Sequence[int], length: int = LENGTH) -> Tensor:
    """(77,): for each target position the source position that answers to it, -1 where none does.

    source, target: token ids from the start to the (first) end token. The paper's α is 1 where a
    position is found: `refinement(…) >= 0`. Padding answers to the padding of the same position;
    where the target is shorter some of those positions hold words of the source, as in the
    original.
    """
    prompt = torch.tensor(needleman_wunsch(source, target))
    return torch.cat([prompt, torch.arange(len(target), length)])


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
    return torch.arange(length).clamp(max=_end(words)).ne(_end(words)) & torch.arange(length).ne(0)


def _end(words: Positions) -> int:
    """Where a prompt's end token is."""
    return words[-1][-1] + 1 if words else 1
