"""Tokens are paired as Prompt-to-Prompt's authors pair them; later words stay with their own."""

import json
import random
from itertools import accumulate

import pytest
import torch
from networks import DATA

from ptinv.errors import InputError
from ptinv.methods.prompt_to_prompt import (
    needleman_wunsch,
    refinement,
    replacement,
    without_padding,
    word_tokens,
)
from ptinv.methods.words import read

PAIRS = json.loads((DATA / "alignment.json").read_text())
NAMES = [f"{pair['source']} -> {pair['target']}" for pair in PAIRS]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=NAMES)


def positions(counts):
    """The positions of words of so many tokens each, after the start token."""
    starts = accumulate(counts, initial=1)
    return [tuple(range(i, i + n)) for i, n in zip(starts, counts, strict=False)]


def words_of(pieces):
    return positions([len(word) for word in pieces])


def random_counts(rng, words):
    return [rng.randint(1, 4) for _ in range(words)]


def random_prompt(rng):
    """Few different tokens, so that some match by chance."""
    return [0, *(rng.randint(2, 6) for _ in range(rng.randint(0, 12))), 1]


# Replacement


@every_pair
def test_replacement_is_the_recorded_one_or_refused(pair):
    source, target = words_of(pair["source_pieces"]), words_of(pair["target_pieces"])
    if isinstance(pair["replace"], str):
        with pytest.raises(InputError, match="as many words.*refinement"):
            replacement(source, target)
        return
    expected = torch.zeros(77, 77)
    for i, j, weight in pair["replace"]:
        expected[i, j] = weight
    assert torch.equal(replacement(source, target), expected)


def test_replacement_of_equal_prompts_is_the_identity():
    for counts in ([], [1], [2, 1, 3], [1] * 75):
        words = positions(counts)
        assert torch.equal(replacement(words, words), torch.eye(77))


@pytest.mark.parametrize("seed", range(20))
def test_replacement_hands_out_all_attention_and_keeps_words_together(seed):
    rng = random.Random(seed)
    words = rng.randint(0, 12)
    source, target = (positions(random_counts(rng, words)) for _ in range(2))
    mapper = replacement(source, target)
    ends = [sum(map(len, prompt)) + 1 for prompt in (source, target)]
    there = 77 - max(0, ends[1] - ends[0])  # later padding is pushed out by a longer target
    torch.testing.assert_close(mapper.sum(dim=1), (torch.arange(77) < there).float())
    for old, new in zip(source, target, strict=True):
        share = mapper[list(old)][:, list(new)].sum().item()
        assert share == pytest.approx(len(old))  # all of a word goes to its counterpart
    assert mapper[0, 0] == mapper[ends[0], ends[1]] == 1


def test_replacement_leaves_the_original_s_shift_out():
    """There, a longer new word takes the later words off their own."""
    pair = next(pair for pair in PAIRS if pair["target"] == "a elephant on the mat")
    assert pair["replace"] != pair["replace_original"]
    mapper = replacement(words_of(pair["source_pieces"]), words_of(pair["target_pieces"]))
    assert mapper[3, 4] == mapper[4, 5] == mapper[5, 6] == 1


# Refinement


@every_pair
def test_refinement_is_the_recorded_one(pair):
    answers = refinement(pair["source_tokens"], pair["target_tokens"])
    assert answers.tolist() == pair["refine"]
    assert (answers >= 0).int().tolist() == pair["refine_alphas"]


@pytest.mark.parametrize("seed", range(20))
def test_refinement_of_equal_prompts_is_the_identity(seed):
    ids = random_prompt(random.Random(seed))
    assert refinement(ids, ids).tolist() == list(range(77))


@pytest.mark.parametrize("seed", range(50))
def test_refinement_is_a_longest_common_subsequence_in_order(seed):
    rng = random.Random(seed)
    source, target = random_prompt(rng), random_prompt(rng)
    found = [(i, j) for j, i in enumerate(needleman_wunsch(source, target)) if i >= 0]
    assert all(source[i] == target[j] for i, j in found)
    assert all(a[0] < b[0] for a, b in zip(found, found[1:], strict=False))
    assert len(found) == longest_common_subsequence(tuple(source), tuple(target))


def longest_common_subsequence(a, b):
    """Its length, row by row."""
    row = [0] * (len(b) + 1)
    for x in a:
        above, row = row, [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
    return row[-1]


def test_an_inserted_phrase_has_no_answer_and_the_rest_keeps_its_own():
    source, target = [0, 5, 6, 7, 1], [0, 5, 8, 9, 6, 7, 1]
    assert refinement(source, target)[:7].tolist() == [0, 1, -1, -1, 2, 3, 4]


def test_padding_answers_to_itself():
    assert refinement([0, 5, 1], [0, 1])[2:].tolist() == list(range(2, 77))
    assert len(refinement([0, *[2] * 75, 1], [0, *[3] * 75, 1])) == 77


# Prompts


def test_padding_is_cut_after_the_first_end_token():
    assert without_padding(torch.tensor([0, 5, 6, 1, 1, 1])) == [0, 5, 6, 1]
    assert without_padding(torch.tensor([0, 5, 6, 1])) == [0, 5, 6, 1]


def test_word_tokens_are_those_between_the_start_and_the_end():
    assert word_tokens(positions([1, 2])).nonzero().flatten().tolist() == [1, 2, 3]
    assert not word_tokens([]).any()
    assert word_tokens(positions([1] * 75)).nonzero().flatten().tolist() == list(range(1, 76))


def test_a_real_tokenizer_s_words_and_ids_fit(small_model):
    tokenizer = small_model.tokenizer
    source, target = "a yellow car on the grass", "a zebra car on the grass"  # in pieces
    old, new = ([word.positions for word in read(tokenizer, text)] for text in (source, target))
    assert len(new[1]) > 1
    mapper = replacement(old, new)
    for one, other in zip(old[2:], new[2:], strict=True):
        assert mapper[one[0], other[0]] == 1
    answers = refinement(*map(without_padding, tokenizer.ids([source, target])))
    assert answers[list(new[1])].tolist() == [-1] * len(new[1])
    assert answers[new[2][0]] == old[2][0]
