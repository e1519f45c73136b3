"""Words of a prompt, found by their tokens: those an edit is about, truncated and unknown ones."""

import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.model import StableDiffusion
from ..core.sampling import Branches
from ..core.text import LENGTH, Tokenizer
from ..errors import Doubt, InputError, remark
from ..settings import Settings
from .controls import SIDE_BY_SIDE, token_gates

ARTICLES = frozenset("a an the this that these those some my your his her our their its".split())
PLACING = frozenset(  # prepositions before a place, where others join things
    "in on at by onto into over under behind before beside near through across above below between "
    "among against along around outside inside within past toward towards".split()
)
JOINING = set("and or but with without of to from for as is are next there it down up off".split())
STOP_WORDS = ARTICLES | PLACING | JOINING
SENTENCE = frozenset(",.;:!?…")  # marks that a phrase does not go on beyond
PICTURES = frozenset(
    "photo photograph picture image painting drawing sketch portrait photos photographs pictures "
    "images paintings drawings sketches portraits".split()
)
ELSE = PICTURES | set("one two three four five six seven eight nine ten".split())  # name no thing


class Word(NamedTuple):
    """One word of a prompt, or one run of its punctuation."""

    text: str  # the prompt's own characters, in lower case
    positions: tuple[int, ...]  # of its tokens among the 77; beyond, for a word that is cut off
    start: int = 0  # where it stands among the prompt's characters
    end: int = 0

    @property
    def is_punctuation(self) -> bool:
        """True if it is made of nothing but commas, full stops and the like; symbols are words."""
        return all(unicodedata.category(character)[0] == "P" for character in self.text)

    @property
    def is_mark(self) -> bool:
        """True if it names nothing of its own: punctuation, and what an apostrophe adds ('s)."""
        return self.is_punctuation or self.text.startswith("'")


def words_of(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """All words of a prompt, punctuation apart, with their own characters: each as far as a token
    that ends in `</w>`, or one added to the vocabulary, as a textual inversion's is.

    Tokens are bytes, which a copied or pickled tokenizer decodes to other words ("two</w>").
    """
    prompt = unicodedata.normalize("NFC", prompt)  # as the tokenizer does before it counts offsets
    how = dict(add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens, added = tokenizer.clip(prompt, **how), {*tokenizer.clip.get_added_vocab().values()}
    offsets, words, first = [*tokens["offset_mapping"], (len(prompt), len(prompt))], [], 0
    for last, (token, number) in enumerate(zip(tokens.tokens(), tokens.input_ids, strict=True)):
        start, end = offsets[first][0], offsets[last][1]
        kinds = {unicodedata.category(c)[0] for c in prompt[end - 1 : end + 1]}
        ends = token.endswith("</w>") or number in added or {"P", "S"} <= kinds  # "$5," is three
        if ends and offsets[last + 1][0] >= end:
            positions = tuple(range(first + 1, last + 2))  # the start token is 0
            # İ alone has a lower case of two characters, which are two words where they stand apart
            text = "".join(c if c == "İ" else c.lower() for c in prompt[start:end])
            words.append(Word(text, positions, start, end))
            first = last + 1
    return words


def read(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """The words of a prompt that the model sees: those within the 77 tokens."""
    return [word for word in words_of(tokenizer, prompt) if word.positions[-1] <= LENGTH - 2]


def truncated(tokenizer: Tokenizer, prompt: str) -> list[str]:
    """The words of a prompt that the model never sees: those past the 77 tokens."""
    return [word.text for word in words_of(tokenizer, prompt)[len(read(tokenizer, prompt)) :]]


def find(tokenizer: Tokenizer, phrase: str, prompt: str) -> list[int]:
    """The positions, among the prompt's 77 tokens, of a phrase wherever it stands, or if nowhere of
    its words wherever they do. Marks count only alone. Raises InputError."""
    words, wanted = read(tokenizer, prompt), words_of(tokenizer, phrase)
    if any(not word.is_mark for word in wanted):
        words, wanted = ([w for w in text if not w.is_mark] for text in (words, wanted))
    sought = [word.text for word in wanted]
    if positions := _where(sought, words):
        return positions
    for text in (text for text in sought if not _where([text], words)):
        if text in truncated(tokenizer, prompt):
            raise InputError(f'"{text}" is past the {LENGTH} tokens that the model reads')
        there = ", ".join(dict.fromkeys(word.text for word in words))
        raise InputError(f'"{text}" is not in the prompt; its words are: {there}')
    return sorted({position for text in sought for position in _where([text], words)})


def _where(phrase: list[str], words: list[Word]) -> list[int]:
    """The positions of words that read as a phrase, one after the other, wherever they do."""
    runs = (words[i : i + len(phrase)] for i in range(len(words)))
    return [p for run in runs if [w.text for w in run] == phrase for p in positions_of(run)]


@dataclass(frozen=True)
class Words:
    """The tokens that masks and attention controls follow; positions are among a text's 77."""

    focus: dict[str, list[int]]  # by branch: whose attention makes the mask; {}: it is everywhere
    subtracted: dict[str, list[int]]  # by branch: whose places the mask leaves out
    gates: Tensor  # (77, 2), when the target's tokens take the source's attention, or a factor
    factors: Tensor  # (77,), of the attention that the target's tokens get
    about: str = ""  # what there is to say of the mask's words


def choose_words(
    tokenizer: Tokenizer, prompt: str, settings: Settings, branches: Branches
) -> Words:
    """The words an edit is about: by branch those that are named, else those that the other text
    lacks, else the prompt's first noun phrase. Raises InputError as `find`."""
    source, side_by_side = settings.source or "", branches == SIDE_BY_SIDE
    at = partial(find, tokenizer, prompt=prompt)
    gates = token_gates(settings.cross_replace if side_by_side else 1.0, at)
    factors = torch.ones(LENGTH, dtype=torch.float32, device="cpu")
    for word, factor in settings.reweight.items():
        factors[at(word)] = factor
    phrase, of_source, subtracted = settings.focus, [], {}
    of_target = at(phrase) if phrase else []  # a word must be in its text
    if "attention" not in settings.mask_names:
        return Words({}, {}, gates, factors)
    if side_by_side and settings.source_focus:
        of_source = at(settings.source_focus, prompt=source)
    elif side_by_side:
        of_source = positions_of(new_words(tokenizer, source, prompt))
    if not phrase:
        chosen = new_words(tokenizer, prompt, source) if source else []
        phrase = " ".join(word.text for word in chosen)
        if not chosen and not of_source and (chosen := noun_phrase(read(tokenizer, prompt))):
            phrase = unicodedata.normalize("NFC", prompt)[chosen[0].start : chosen[-1].end]
        of_target = positions_of(chosen)
    about = "no word of the prompt says what the edit is about: editing everywhere"
    if of_source:
        about = "the edit is about what the source text says and the prompt doesn't"
    if phrase:
        about = f"the edit is about: {phrase}"
    if settings.subtract:
        for branch in branches:
            with suppress(InputError):  # if the words are in no branch's text, the prompt is named
                text = source if branch == "source" else prompt
                subtracted[branch] = at(settings.subtract, prompt=text)
        subtracted = subtracted or {"target": at(settings.subtract)}
    focus = {"source": of_source, "target": of_target}
    focus = {branch: positions for branch, positions in focus.items() if positions}
    return Words(focus, subtracted, gates, factors, about)


def positions_of(words: list[Word]) -> list[int]:
    """The positions of all tokens of some words."""
    return [position for word in words for position in word.positions]


def noun_phrase(words: list[Word]) -> list[Word]:
    """The first noun phrase of a prompt, by a list of stop words: yellow, car of "a photo of a
    yellow car on the grass". Such words, commas and full stops end it once it has begun."""
    phrase: list[Word] = []
    hyphens = {w.start: w.end for w in words if w.text == "-"}
    for word in words:
        joined = word.end in hyphens or word.start in hyphens.values()  # up, of "a close-up photo"
        if joined or not is_stop_word(word):
            phrase.append(word)
        ends = word.is_punctuation and SENTENCE & {*word.text}
        if ends or (word.text in STOP_WORDS and not joined):
            if phrase and not (word.text == "of" and phrase[-1].text in PICTURES):
                break
            phrase = []
    return phrase


def new_words(tokenizer: Tokenizer, prompt: str, source: str) -> list[Word]:
    """Those of a prompt that a source text lacks where it otherwise says the same: red, the second,
    of "a red boat and a red car" against "a red boat and a blue car"."""
    words = read(tokenizer, prompt)
    there, here = ([w.text for w in text] for text in (words_of(tokenizer, source), words))
    same = SequenceMatcher(None, there, here, autojunk=False).get_matching_blocks()
    old = {i for _, start, size in same for i in range(start, start + size)}
    return [word for i, word in enumerate(words) if i not in old and not is_stop_word(word)]


def is_place(words: list[Word], i: int) -> bool:
    """True if the i-th word of a text is where something is: road, of "a car on the wet road"."""
    while i and (words[i - 1].text in ARTICLES or not is_stop_word(words[i - 1])):
        i -= 1
    return i > 0 and words[i - 1].text in PLACING


def change_of(words: list[Word], new: list[Word]) -> str:
    """The most that is new: a place, a thing (the last word of its phrase), or its modifier."""
    kinds = set()
    for i in (i for i, word in enumerate(words) if word in new):
        is_head = i + 1 == len(words) or is_stop_word(words[i + 1])
        kinds.add("modifier" if not is_head else "place" if is_place(words, i) else "thing")
    return next((kind for kind in ("place", "thing", "modifier") if kind in kinds), "thing")


def is_stop_word(word: Word) -> bool:
    """True for articles, prepositions and marks, which name nothing in a picture."""
    return word.text in STOP_WORDS or word.is_mark


def unknown_words(model: StableDiffusion, prompt: str) -> list[str]:
    """Words that the model never learned: the embedding of a token of theirs is 0."""
    table = model.text_encoder.text_model.embeddings.token_embedding.weight
    ids = model.tokenizer.clip(prompt, verbose=False)["input_ids"]
    learned = table[torch.tensor(ids, device=model.device)].ne(0).any(dim=-1).tolist()
    words = (word for word in words_of(model.tokenizer, prompt) if not word.is_mark)
    return [word.text for word in words if not all(learned[i] for i in word.positions)]


def warn_of_words(model: StableDiffusion, prompt: str) -> None:
    """Doubts the words of a prompt that are truncated, and those that the model does not know."""
    if lost := truncated(model.tokenizer, prompt):
        remark(f"the model reads {LENGTH} tokens; cut off: {' '.join(lost)}", Doubt)
    if unknown := dict.fromkeys(unknown_words(model, prompt)):
        remark(f"the model does not know: {', '.join(unknown)}", Doubt)
