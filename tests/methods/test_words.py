"""Words: found by their tokens; those that an edit is about; those that are logged because nothing
comes of them."""

import copy
import json
import pickle
import random
import shutil
import unicodedata

import pytest
import torch
from safetensors.torch import load_file, save_file

import ptinv
from ptinv.errors import InputError
from ptinv.methods.words import (
    STOP_WORDS,
    find,
    is_stop_word,
    new_words,
    noun_phrase,
    read,
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


@pytest.mark.parametrize(
    "phrase, prompt, positions",
    [
        ("Yellow car", "a yellow car, a red car", [2, 3]),
        ("green grass", "a green tree on the green grass", [6, 7]),
        ("red car", "a red car and a red car", [2, 3, 6, 7]),
        ("car yellow", "a yellow car, a red car", [2, 3, 7]),
        ("green car", "a green tree and a green car, a car", [6, 7]),
        ("pink (dogs)", "two pink (dogs) in the snow", [2, 4]),
        ("pink dogs", "two pink (dogs) in the snow", [2, 4]),
        ("snow-white", "snow white, a snow - white", [1, 2, 5, 7]),
        ("dog's house", "a dog's house", [2, 5]),
        (",", "a car, a dog,", [3, 6]),
        ("", "a car", []),
    ],
)
def test_a_phrase_is_found_as_it_stands_or_else_wherever_its_words_are(
    tokenizer, phrase, prompt, positions
):
    assert find(tokenizer, phrase, prompt) == positions


@pytest.mark.parametrize("wanted", ["cars", "ca", "boat"])
def test_only_whole_words_are_found_and_a_refusal_lists_those_there_are(tokenizer, wanted):
    with pytest.raises(InputError) as error:
        find(tokenizer, wanted, "a yellow car, a red car")
    said = f'"{wanted}" is not in the prompt; its words are: a, yellow, car, red'
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
    warn_of_words(small_model, "two 🐶 — (snow-red) dogs' ...")
    assert remarks.messages == ["the model does not know: 🐶"]
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
        ("two snow-white dogs in the snow", "two snow white dogs"),
        ("a red t-shirt", "red t shirt"),
        ("a close-up photo of a dog", "dog"),
        ("a black-and-white dog", "black and white dog"),
        ("a dog - in the snow", "dog"),
        ('a red "car," parked in the snow', "red car"),
        ("two 🐶, pink", "two 🐶"),
        ("a dog's bed; a cat", "dog bed"),
        ("two 🐶 in the snow", "two 🐶"),
        ("a (red) car", "red car"),
        ("a car: red", "car"),
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


ALPHABET = [
    *"abcdexyzABCİßé",
    "e\u0301",
    *"-'’,.!?()/\"",
    *"日本हि",
    *"🐶🚗👍🏽",
    "\u200d",
    *"+$½7",
]
KNOWN = ["dog", "Dogs", "red", "snow", "<my-dog>", "t-shirt", "a", "it's"]


def random_prompt(seed: int) -> str:
    """Letters, marks, scripts, emoji, words that repeat, and now and then more than 77 tokens."""
    chance = random.Random(seed)
    pieces = chance.choices([*ALPHABET, *KNOWN, " ", " ", "  "], k=chance.choice([3, 12, 30, 120]))
    return "".join(pieces)


@pytest.mark.parametrize("seed", range(200))
def test_words_share_out_the_characters_and_the_tokens_of_any_prompt(personal, seed):
    tokenizer, prompt = personal.tokenizer, random_prompt(seed)
    words = words_of(tokenizer, prompt)
    ends = [place for word in words for place in (word.start, word.end)]
    assert ends == sorted(ends)  # so no character is of two words
    positions = [position for word in words for position in word.positions]
    count = len(tokenizer.clip(prompt, verbose=False)["input_ids"]) - 2
    assert positions == list(range(1, count + 1))
    seen = read(tokenizer, prompt)
    for word in seen:
        alike = [other for other in seen if other.text == word.text]
        assert find(tokenizer, word.text, prompt) == [p for w in alike for p in w.positions]


# A textual inversion: a token of its own, whose embedding is a copy of "dog"'s


@pytest.fixture(scope="module")
def personal(small_folder, tmp_path_factory):
    """The small model with a token `<My-Dog>` that means "dog"."""
    folder = shutil.copytree(small_folder, tmp_path_factory.mktemp("personal") / "model")
    config = json.loads((folder / "text_encoder/config.json").read_text())
    own = config["vocab_size"]
    (folder / "text_encoder/config.json").write_text(json.dumps(config | {"vocab_size": own + 1}))
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    dog = json.loads((folder / "tokenizer" / "vocab.json").read_text())["dog</w>"]
    tensors[name] = torch.cat([tensors[name], tensors[name][dog : dog + 1]])
    save_file(tensors, path)
    (folder / "tokenizer" / "added_tokens.json").write_text(json.dumps({"<My-Dog>": own}))
    return ptinv.load(folder, device="cpu", dtype="float32")


@pytest.mark.parametrize("prompt", ["two red {} on the grass", "a red {}", "{}, a {}-house"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"focus": "red {}"},
        {"reweight": {"{}": 2.0}, "mask": None},
        {"method": "p2p", "source": "a blue {}", "align": "refine"},
        {"method": "p2p", "source": "a blue cat", "cross_replace": {"{}": 0.5}},
        {"method": "pti-p2p", "source": "two {} in the snow", "subtract": "{}"},
    ],
)
def test_a_token_that_means_dog_makes_what_dog_makes(personal, picture, prompt, options):
    if options.get("focus") and "red" not in prompt:
        pytest.skip("no such phrase")

    def made(word: str):
        def said(value):
            if isinstance(value, dict):
                return {said(key): item for key, item in value.items()}
            return value.replace("{}", word) if isinstance(value, str) else value

        given = {name: said(value) for name, value in options.items()}
        return ptinv.result(
            personal, picture, said(prompt), **{"method": "pti", "steps": 4, **given}
        )

    ours, theirs = made("<My-Dog>"), made("dog")
    assert (ours.latent - theirs.latent).abs().max() < 1e-5


def test_a_token_that_means_dog_is_drawn_as_dog_is(personal, picture):
    maps = [
        ptinv.attention_maps(personal, picture, f"a red {word}", steps=4)
        for word in ("<My-Dog>", "dog")
    ]
    assert [word.text for word in maps[0].words] == ["a", "red", "<my-dog>"]
    assert (maps[0].of("<My-Dog>") - maps[1].of("dog")).abs().max() < 1e-5
