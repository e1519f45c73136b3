"""Prompts as token ids; a tokenizer that is not CLIP's is refused."""

import pytest


@pytest.fixture
def tokenizer(small_model):
    return small_model.tokenizer


def test_ids_are_the_start_the_words_and_end_tokens_to_the_full_length(tokenizer):
    ids = tokenizer.ids(["a car", ""])
    start, end = tokenizer.clip.bos_token_id, tokenizer.clip.eos_token_id
    assert ids.shape == (2, 77)
    assert ids[:, 0].tolist() == [start, start]
    assert ids[0, 3:].tolist() == [end] * 74
    assert ids[1, 1:].tolist() == [end] * 76
    assert start not in ids[:, 1:] and end not in ids[0, :3]
