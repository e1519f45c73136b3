"""What a picture shows, read off it: the search, its texts, and the edits that are made from it."""

import pytest
import torch
from commands import ptinv_
from small import PROMPT

import ptinv
from ptinv.errors import InputError
from ptinv.methods import source as reading
from ptinv.methods.words import change_of, is_place, new_words, read
from ptinv.metrics import psnr

SHOWN, WANTED = "two pink birds in the snow", "two pink dogs in the snow"


@pytest.fixture(scope="module")
def tiny():
    return ptinv.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def table(tiny):
    return reading.vocabulary(tiny)


@pytest.fixture
def words(tiny):
    return lambda text: read(tiny.tokenizer, text)


# The search


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [WANTED, "two green birds in the snow", SHOWN])
def test_new_words_are_replaced_by_what_is_there(tiny, birds, prompt):
    assert ptinv.infer_source(tiny, birds, prompt) == SHOWN


@pytest.mark.slow
def test_a_new_place_is_noticed(tiny, birds):
    found = ptinv.infer_source(tiny, birds, "two pink birds on the road")
    assert found.startswith("two pink birds ") and "road" not in found


@pytest.mark.slow
def test_only_the_words_among_those_given_are_tried(tiny, birds):
    assert ptinv.infer_source(tiny, birds, WANTED, among=["fish", "bird", "car"]) == SHOWN
    assert ptinv.infer_source(tiny, birds, WANTED, among=["dog"]) == WANTED


def test_a_seed_s_text_is_always_the_same_and_costs_what_is_said(small_model, picture, unet_calls):
    z0 = small_model.encode(picture)
    texts = {reading.infer(small_model, z0, PROMPT, seed=1) for _ in range(2)}
    assert len(texts) == 1 and unet_calls


def test_a_loss_is_the_mean_over_timesteps_and_nothing_is_predicted_twice(
    small_model, picture, unet_calls
):
    losses = reading.losses_of(small_model, small_model.encode(picture), seed=0)
    texts, timesteps = ["a car", "a boat", "a car"], (400, 700)
    both = losses(texts, timesteps)
    calls = len(unet_calls)
    assert both[0] == both[2] != both[1] and both.min() > 0
    assert losses(["a boat"], timesteps) == both[1]
    assert len(unet_calls) == calls == 2


# Its texts


@pytest.mark.parametrize(
    "text, put, wanted",
    [
        ("a red car, on the road", {1: "orange"}, "an orange car, on the road"),
        ("an orange car", {1: "red"}, "a red car"),
        ("a red car in the snow", {3: "", 4: "", 5: ""}, "a red car"),
        ("a  red car", {}, "a red car"),
    ],
)
def test_words_are_exchanged_where_they_stand(words, text, put, wanted):
    assert reading.rewritten(text, words(text), put) == wanted


def test_one_and_many_of_a_kind_are_named_together(words, table):
    text = "a photo of a red mug and two white mugs on the grass"
    named = reading.named_in(words(text), table)
    assert list(named) == ["red", "mug", "white", "grass"]
    (text,) = reading.swaps(text, words(text), named["mug"], ["tree"], table)
    assert text == "a photo of a red tree and two white trees on the grass"


def test_a_place_is_tried_with_other_prepositions_and_left_out_with_its_own(words, table):
    text = "a red car on the road"
    at = reading.named_in(words(text), table)["road"]
    assert reading.without(text, words(text), at) == "a red car"
    found = reading.swaps(text, words(text), at, ["sea"], table)
    assert {"a red car on the sea", "a red car by the sea"} <= set(found) and text not in found


def test_the_vocabulary_is_the_words_that_the_model_has_learned(tiny, table):
    assert {"dog", "dogs", "snow", "purple"} <= table.keys()
    assert not {"the", "photo", "two", "zebra", "w"} & table.keys()
    tried = reading.nearest(tiny, table, "dog")
    assert tried[0] == "dog" and "dogs" not in tried and len(tried) == len(set(tried)) < 64
    assert reading.singular("dogs", table) == "dog" and reading.singular("grass", table) == "grass"


# What is new


@pytest.mark.parametrize(
    "source, prompt, kind",
    [
        ("a red car on the road", "a blue car on the road", "modifier"),
        ("a red car on the road", "a red boat on the road", "thing"),
        ("a red car on the road", "a red car by the sea", "place"),
        ("a red car on the road", "a blue boat by the sea", "place"),
        ("a red car on the wet road", "a red car on the dry road", "modifier"),
        ("a man with a hat", "a man with a dog", "thing"),
        ("a car on the road and a cat", "a car on the road and a dog", "thing"),
    ],
)
def test_the_most_that_is_new_decides(tiny, words, source, prompt, kind):
    assert change_of(words(prompt), new_words(tiny.tokenizer, prompt, source)) == kind


def test_a_place_stands_behind_a_preposition_and_its_own_words(words):
    text = words("in a room, a car of steel on the wet road")
    places = [word.text for i, word in enumerate(text) if is_place(text, i)]
    places = [word for word in places if word not in ("a", "the", "on", ",")]
    assert places == ["room", "wet", "road"]


# The edits

GIVEN = {  # a source text, and what "auto" then takes for PROMPT, "a yellow car on the grass"
    "a red car on the grass": dict(encode_ratio=0.8, guidance=5.5, mask="auto"),
    "a yellow boat on the grass": dict(encode_ratio=1.0, guidance=5.5, mask="auto"),
    "a yellow car on the sand": dict(encode_ratio=1.0, guidance=7.5, mask=None),
}


@pytest.mark.parametrize("source", GIVEN)
def test_auto_is_as_strong_as_what_is_new_wants_it_and_options_win(
    small_model, picture, remarks, source
):
    made = ptinv.result(small_model, picture, PROMPT, source=source, steps=5)
    settings = made.request.settings
    assert made.request.name == "auto" and settings.steps == 5
    assert {name: getattr(settings, name) for name in GIVEN[source]} == GIVEN[source]
    assert f"the picture shows: {source}; new: " in "".join(remarks.messages)
    own = dict(encode_ratio=0.6, guidance=3.0, mask="auto")
    made = ptinv.result(small_model, picture, PROMPT, "auto", source=source, steps=5, **own)
    assert {name: getattr(made.request.settings, name) for name in own} == own


def test_an_inversion_keeps_its_steps_and_its_text(small_model, picture):
    how = dict(source="a red car on the grass", steps=4)
    stored = ptinv.invert(small_model, picture, PROMPT, "auto", **how)
    assert stored.settings["encode_ratio"] == 0.8 and not stored.extras
    made = ptinv.result(small_model, stored, PROMPT)
    assert made.request.name == "auto"
    assert made.inversion.settings["source"] == how["source"]
    assert torch.equal(made.latent, ptinv.result(small_model, picture, PROMPT, **how).latent)


@pytest.mark.parametrize("method", ["p2p", "direct", "npi", "pti-p2p"])
def test_methods_that_need_a_text_of_the_picture_read_it(small_model, picture, method):
    how = dict(steps=3, among="boat")
    made = ptinv.result(small_model, picture, PROMPT, method, **how)
    source = made.request.settings.source
    assert source == ptinv.infer_source(small_model, picture, PROMPT, among=["boat"])
    told = ptinv.result(small_model, picture, PROMPT, method, steps=3, source=source)
    assert torch.equal(made.latent, told.latent)


def test_where_there_is_nothing_to_read_it_is_said(small_model, picture):
    with pytest.raises(InputError, match="source is missing"):
        ptinv.invert(small_model, picture, method="direct", steps=3)
    with pytest.raises(InputError, match="source is missing"):
        ptinv.generate(small_model, PROMPT, source="auto", steps=3)
    stored = ptinv.invert(small_model, picture, method="auto", steps=3)
    assert stored.settings["source"] is None


def test_at_eta_0_auto_leads_back_to_the_picture(small_model, picture):
    back, ceiling = (
        ptinv.reconstruct(small_model, picture, method=method, steps=10, encode_ratio=0.5)
        for method in ("auto", "vae")
    )
    free = ptinv.reconstruct(
        small_model, picture, method="ddim", steps=10, encode_ratio=0.5, guidance=0.0
    )
    assert psnr(back, free) > 60 and back.size == ceiling.size


def test_an_edit_whose_text_was_read_is_repeated_from_its_record(here, capsys):
    edit = ["edit", "picture.png", PROMPT, "--steps", "4", "--among", "boat sand"]
    assert ptinv_(*edit, "-o", "a.png") == 0
    assert "the picture shows: " in capsys.readouterr().err
    assert ptinv_("again", "a.png", "picture.png", "-o", "b.png") == 0
    assert "b.png has the same pixels" in capsys.readouterr().err
