"""Tokens are paired as Prompt-to-Prompt's authors pair them; later words stay with their own."""

import json
import random
from itertools import accumulate

import pytest
import torch
from networks import DATA

from ptinv.errors import InputError
from ptinv.methods.prompt_to_prompt import (
    alignment,
    by_place,
    needleman_wunsch,
    refinement,
    replacement,
)
from ptinv.methods.words import Word, positions_of, read

PAIRS = json.loads((DATA / "alignment.json").read_text())
NAMES = [f"{pair['source']} -> {pair['target']}" for pair in PAIRS]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=NAMES)


def words(counts):
    """Words of so many tokens each, after the start token."""
    starts = accumulate(counts, initial=1)
    return [Word("word", tuple(range(i, i + n))) for i, n in zip(starts, counts, strict=False)]


def words_of(pieces):
    return words([len(word) for word in pieces])


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
        prompt = words(counts)
        assert torch.equal(replacement(prompt, prompt), torch.eye(77))


@pytest.mark.parametrize("seed", range(20))
def test_replacement_hands_out_all_attention_and_keeps_words_together(seed):
    rng = random.Random(seed)
    count = rng.randint(0, 12)
    source, target = (words(random_counts(rng, count)) for _ in range(2))
    mapper = replacement(source, target)
    ends = [len(positions_of(prompt)) + 1 for prompt in (source, target)]
    there = 77 - max(0, ends[1] - ends[0])  # later padding is pushed out by a longer target
    torch.testing.assert_close(mapper.sum(dim=1), (torch.arange(77) < there).float())
    for old, new in zip(source, target, strict=True):
        share = mapper[list(old.positions)][:, list(new.positions)].sum().item()
        assert share == pytest.approx(len(old.positions))  # all of a word goes to its counterpart
    assert mapper[0, 0] == mapper[ends[0], ends[1]] == 1


def test_replacement_leaves_the_original_s_shift_out():
    """There, a longer new word takes the later words off their own."""
    pair = next(pair for pair in PAIRS if pair["target"] == "a elephant on the mat")
    assert pair["replace"] != pair["replace_original"]
    mapper = replacement(words_of(pair["source_pieces"]), words_of(pair["target_pieces"]))
    assert mapper[3, 4] == mapper[4, 5] == mapper[5, 6] == 1


# Refinement


def answers_of(mapper):
    """(77,): for each target position the source position that answers to it, -1 where none."""
    assert mapper.unique().tolist() in ([0, 1], [1]) and mapper.sum(dim=0).le(1).all()
    return torch.where(mapper.any(dim=0), mapper.argmax(dim=0), -1)


@every_pair
def test_refinement_is_the_recorded_one(pair):
    answers = answers_of(refinement(pair["source_tokens"], pair["target_tokens"]))
    assert answers.tolist() == pair["refine"]
    assert (answers >= 0).int().tolist() == pair["refine_alphas"]


@pytest.mark.parametrize("seed", range(20))
def test_refinement_of_equal_prompts_is_the_identity(seed):
    ids = random_prompt(random.Random(seed))
    assert torch.equal(refinement(ids, ids), torch.eye(77))


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
    assert answers_of(refinement(source, target))[:7].tolist() == [0, 1, -1, -1, 2, 3, 4]


def test_padding_answers_to_itself():
    assert answers_of(refinement([0, 5, 1], [0, 1]))[2:].tolist() == list(range(2, 77))
    full = answers_of(refinement([0, *[2] * 75, 1], [0, *[3] * 75, 1]))
    assert full.tolist() == [0, *[-1] * 75, 76]


# Prompts


def test_a_real_tokenizer_s_words_and_ids_fit(small_model):
    tokenizer = small_model.tokenizer
    source, target = "a yellow car on the grass", "a zebra car on the grass"  # in pieces
    old, new = (read(tokenizer, text) for text in (source, target))
    assert len(new[1].positions) > 1
    replaced, refined = (
        alignment(tokenizer, source, target, align) for align in ("replace", "refine")
    )
    for one, other in zip(old[2:], new[2:], strict=True):
        assert replaced[one.positions[0], other.positions[0]] == 1
        assert refined[one.positions[0], other.positions[0]] == 1
    zebra = list(new[1].positions)
    assert replaced[2, zebra].tolist() == [1 / len(zebra)] * len(zebra)
    assert not refined[:, zebra].any()


# Punctuation


def test_punctuation_has_the_place_of_the_word_before_it(small_model):
    prompt = read(small_model.tokenizer, ". a cat , ... a dog!")
    assert list(by_place(prompt)) == [
        (0, 1),
        (1, 0),
        (2, 0),
        (2, 1),
        (2, 2),
        (3, 0),
        (4, 0),
        (4, 1),
    ]
    assert list(by_place(prompt).values()) == prompt


@pytest.mark.parametrize(
    "source, target, alone",
    [
        ("a red car on the grass", "a blue car on the grass.", [7]),
        ("a red car on the grass.", "a blue car on the grass", []),
        ("a red car, on the grass", "a blue car on the grass.", [7]),
        ("a red car on the grass", "a blue car, on the grass", [4]),
        ("a red car, on the grass.", "a blue car; on the grass!", []),
    ],
)
def test_punctuation_is_no_word_that_differs(small_model, source, target, alone):
    """Words stay paired one by one, and padding; punctuation of the target alone has no answer."""
    tokenizer = small_model.tokenizer
    mapper = alignment(tokenizer, source, target)
    assert torch.equal(mapper, alignment(tokenizer, source, target, "replace"))
    old, new = (read(tokenizer, text) for text in (source, target))
    answers, there = answers_of(mapper), by_place(old)
    for place, word in by_place(new).items():
        (here,) = word.positions
        assert (place in there) == (here not in alone)
        assert answers[here] == (there[place].positions[0] if place in there else -1)
    ends = [len(positions_of(text)) + 1 for text in (old, new)]
    assert answers[ends[1]] == ends[0]


def test_one_prompt_with_a_full_stop_is_not_one_of_more_words(small_model):
    with pytest.raises(InputError, match="not 2 and 3;"):
        alignment(small_model.tokenizer, "a car ..., !", "a red car", "replace")
