"""Words: found by their tokens; those that an edit is about; those that are logged because nothing
comes of them."""

import copy
import pickle
import unicodedata

import pytest

from ptinv.errors import InputError
from ptinv.methods.words import (
    STOP_WORDS,
    find,
    is_stop_word,
    new_words,
    noun_phrase,
    truncated,
    warn_of_words,
    words_of,
)


@pytest.fixture
def tokenizer(small_model):
    return small_model.tokenizer


def texts(words):
    return [word.text for word in words]


def test_words_are_lower_case_and_punctuation_stands_apart(tokenizer):
    words = words_of(tokenizer, "A Yellow CAR, on the grass.")
    assert texts(words) == ["a", "yellow", "car", ",", "on", "the", "grass", "."]


def test_positions_count_from_the_start_token(tokenizer):
    words = words_of(tokenizer, "a yellow car")
    assert [word.positions for word in words] == [(1,), (2,), (3,)]


def test_a_word_of_many_tokens_has_all_their_positions(tokenizer):
    a, zebra, car = words_of(tokenizer, "a zebra car")
    assert len(zebra.positions) > 1
    assert (*a.positions, *zebra.positions, *car.positions) == tuple(range(1, car.positions[0] + 1))
    ids = tokenizer.ids(["a zebra car"])[0]
    assert tokenizer.clip.decode(ids[list(zebra.positions)]) == "zebra"


def test_no_prompt_has_no_words(tokenizer):
    assert words_of(tokenizer, "") == []
    assert words_of(tokenizer, " \n") == []


def test_a_phrase_is_found_wherever_its_words_are(tokenizer):
    assert find(tokenizer, "Yellow car", "a yellow car, a red car") == [2, 3, 7]


@pytest.mark.parametrize("wanted", ["cars", "ca", "boat"])
def test_only_whole_words_are_found_and_a_refusal_lists_those_there_are(tokenizer, wanted):
    with pytest.raises(InputError) as error:
        find(tokenizer, wanted, "a yellow car, a red car")
    said = f'"{wanted}" is not in the prompt; its words are: a, yellow, car, ,, red'
    assert str(error.value) == said


ANY = [
    "it's 10 o'clock",
    "naïve café",
    "日本の car",
    "a 🚗!",
    "  a\tcar\n",
    "e-mail: a_b@c.de",
    "½ car",
]


@pytest.mark.parametrize("prompt", ANY)
def test_every_word_of_any_prompt_is_found_in_it(tokenizer, prompt):
    words = words_of(tokenizer, prompt)
    assert words
    for word in words:
        assert set(word.positions) <= set(find(tokenizer, word.text, prompt))


@pytest.mark.parametrize("prompt", ANY)
def test_the_words_are_the_prompt_s_own_characters(tokenizer, prompt):
    assert "".join(texts(words_of(tokenizer, prompt))) == "".join(prompt.split()).lower()


def test_letters_and_their_accents_apart_are_the_same_word(tokenizer):
    apart = unicodedata.normalize("NFD", "a naïve CAFÉ")
    assert words_of(tokenizer, apart) == words_of(tokenizer, "a naïve CAFÉ")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("prompt", [*ANY, "Two red cars, on the grass."])
def test_a_copied_or_pickled_model_reads_the_same_words(small_model, copied, prompt):
    model = copied(small_model)
    assert words_of(model.tokenizer, prompt) == words_of(small_model.tokenizer, prompt)
    assert find(model.tokenizer, "Cars", "two cars") == [2]


def test_punctuation_is_words_of_nothing_else(tokenizer):
    words = words_of(tokenizer, "It's a (red-hot) 🚗 ... 1 + 1, my dog's!?")
    assert [w.text for w in words if w.is_punctuation] == ["(", "-", ")", "...", ",", "!?"]


def test_the_model_reads_75_tokens_of_a_prompt_and_the_rest_is_truncated(tokenizer):
    prompt = "a " * 74 + "red car in the snow"
    assert truncated(tokenizer, prompt) == ["car", "in", "the", "snow"]
    assert tokenizer.ids([prompt])[0, -1] == tokenizer.clip.eos_token_id
    assert find(tokenizer, "red", prompt) == [75]
    with pytest.raises(InputError, match='"car" is past the 77 tokens'):
        find(tokenizer, "car", prompt)


def test_a_word_that_is_cut_in_two_is_truncated(tokenizer):
    assert truncated(tokenizer, "a " * 73 + "zebra") == ["zebra"]


def test_truncated_and_unknown_words_are_logged(small_model, remarks):
    warn_of_words(small_model, "a red car on the grass.")
    assert remarks.messages == []
    warn_of_words(small_model, "a grey zebra, a zebra on the grass")
    assert remarks.messages == ["the model does not know: grey, zebra"]
    remarks.clear()
    warn_of_words(small_model, "a " * 74 + "red car")
    assert remarks.messages == ["the model reads 77 tokens; cut off: car"]


@pytest.mark.parametrize(
    "prompt, phrase",
    [
        ("a yellow car on the grass", "yellow car"),
        ("two red cars in the snow", "two red cars"),
        ("A Red Car", "red car"),
        ("a red car, shiny and new", "red car"),
        ("a dog and a cat", "dog"),
        ("in the snow", "snow"),
        ("a photo of a yellow car", "yellow car"),
        ("A photograph, of the sea", "photograph"),
        ("a small painting of two dogs on the grass", "two dogs"),
        ("a picture on a wall", "picture"),
        ("a cup of tea", "cup"),
        ("a dog inside a house", "dog"),
        ("a tower between two trees", "tower"),
        ("a bird above the sea", "bird"),
        ("my dog", "dog"),
        ("photos of a yellow car", "yellow car"),
        ("a photo of", ""),
        ("the", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_a_prompt_is_about_its_first_noun_phrase(tokenizer, prompt, phrase):
    assert " ".join(texts(noun_phrase(words_of(tokenizer, prompt)))) == phrase


def test_a_noun_phrase_knows_where_in_the_prompt_it_is(tokenizer):
    words = words_of(tokenizer, "a photo of a car beside a car")
    assert noun_phrase(words) == words[4:5]


@pytest.mark.parametrize(
    "prompt, source, new",
    [
        ("a yellow car on the grass", "a red car on the grass", "yellow"),
        ("a Yellow car, on the grass.", "a yellow car on the grass", ""),
        ("a red car in the snow", "a red car on the grass", "snow"),
        ("a red boat", "a blue car", "red boat"),
        ("a shiny red car", "a red car", "shiny"),
        ("a car", "a red car", ""),
        ("a red car", "", "red car"),
    ],
)
def test_new_words_are_those_that_the_source_lacks(tokenizer, prompt, source, new):
    assert " ".join(texts(new_words(tokenizer, prompt, source))) == new


@pytest.mark.parametrize(
    "prompt, source, which",
    [
        ("a red boat and a red car", "a red boat and a blue car", 5),
        ("a red boat and a red car", "a blue boat and a red car", 1),
    ],
)
def test_of_a_word_that_stands_twice_only_the_new_one_is_new(tokenizer, prompt, source, which):
    assert new_words(tokenizer, prompt, source) == [words_of(tokenizer, prompt)[which]]


def test_stop_words_and_punctuation_name_nothing_in_a_picture(tokenizer):
    words = words_of(tokenizer, "the Car, and 2 dogs on the grass.")
    assert texts(word for word in words if not is_stop_word(word)) == ["car", "2", "dogs", "grass"]
    assert {"the", "and", "on"} <= STOP_WORDS
