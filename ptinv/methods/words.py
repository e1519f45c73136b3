"""Words of a prompt, found by their tokens: those an edit is about, truncated and unknown ones."""

import logging
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.model import StableDiffusion
from ..core.sampling import Branches
from ..core.text import LENGTH, Tokenizer
from ..errors import InputError
from ..settings import Settings
from .controls import SIDE_BY_SIDE, token_gates

log = logging.getLogger(__name__)

STOP_WORDS = frozenset(
    "a an the this that these those some and or but with without in on at by of to from for as is "
    "are into onto over under behind before beside near next through across there it its above "
    "below between among against along around down up off inside outside within past toward "
    "towards my your his her our their".split()
)
PICTURES = frozenset(
    "photo photograph picture image painting drawing sketch portrait photos photographs pictures "
    "images paintings drawings sketches portraits".split()
)


class Word(NamedTuple):
    """One word of a prompt, and where its tokens are among the 77."""

    text: str  # the prompt's own characters, in lower case
    positions: tuple[int, ...]


def words_of(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """All words of a prompt, punctuation apart: each as far as a token that ends in `</w>`.

    Its text is cut out of the prompt. Tokens are bytes, which a tokenizer that was copied or
    pickled decodes to other words ("two</w>").
    """
    prompt = unicodedata.normalize("NFC", prompt)  # as the tokenizer does before it counts offsets
    how = dict(add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = tokenizer.clip(prompt, **how)
    offsets, words, first = tokens["offset_mapping"], [], 0
    for last, token in enumerate(tokens.tokens()):
        if token.endswith("</w>"):
            text = prompt[offsets[first][0] : offsets[last][1]].lower()
            words.append(Word(text, tuple(range(first + 1, last + 2))))  # the start token is 0
            first = last + 1
    return words


def read(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """The words of a prompt that the model sees: those within the 77 tokens."""
    return [word for word in words_of(tokenizer, prompt) if word.positions[-1] <= LENGTH - 2]


def truncated(tokenizer: Tokenizer, prompt: str) -> list[str]:
    """The words of a prompt that the model never sees: those past the 77 tokens."""
    return [word.text for word in words_of(tokenizer, prompt)[len(read(tokenizer, prompt)) :]]


def find(tokenizer: Tokenizer, phrase: str, prompt: str) -> list[int]:
    """The positions, among the prompt's 77 tokens, of every word of a phrase. Raises InputError
    naming the word that is not in the prompt, and those that are."""
    words, all_positions = read(tokenizer, prompt), set()
    for wanted in words_of(tokenizer, phrase):
        positions = positions_of([word for word in words if word.text == wanted.text])
        if not positions and wanted.text in truncated(tokenizer, prompt):
            raise InputError(f'"{wanted.text}" is past the {LENGTH} tokens that the model reads')
        if not positions:
            there = ", ".join(dict.fromkeys(word.text for word in words))
            raise InputError(f'"{wanted.text}" is not in the prompt; its words are: {there}')
        all_positions |= set(positions)
    return sorted(all_positions)


@dataclass(frozen=True)
class Words:
    """The tokens that masks and attention controls follow; positions are among the prompt's 77."""

    focus: list[int]  # of the prompt, whose attention makes the mask
    source_focus: list[int]  # of the source text, where it has a branch of its own
    subtracted: dict[str, list[int]]  # by branch: tokens whose places the mask leaves out
    gates: Tensor | None  # (77, 2), when each token takes the source's attention; None: one branch
    factors: Tensor | None  # (77,), factors of each token's attention; None: all are 1

    @property
    def make_a_mask(self) -> bool:
        """True if the attention of any word makes a mask."""
        return bool(self.focus or self.source_focus)


def choose_words(
    tokenizer: Tokenizer, prompt: str, settings: Settings, branches: Branches
) -> Words:
    """The words that an edit is about, as its settings name them or as they can be guessed. Logs
    what was guessed. Raises InputError for a word that is not in its text."""
    masked, paired = "attention" in settings.mask_names, branches == SIDE_BY_SIDE
    focus, source_focus, subtracted, gates, factors = [], [], {}, None, None

    def at(phrase: str, text: str = prompt) -> list[int]:
        return find(tokenizer, phrase, text)

    if masked and paired and settings.source_focus:
        source_focus = at(settings.source_focus, settings.source)
    elif masked and paired:
        source_words = read(tokenizer, settings.source)
        source_focus = positions_of(new_words(source_words, words_of(tokenizer, prompt)))
    if masked:
        focus = _focus(tokenizer, prompt, settings, bool(source_focus))
    if paired:
        gates = token_gates(settings.cross_replace, at)
    if settings.reweight:
        factors = torch.ones(LENGTH)
        for word, factor in settings.reweight.items():
            factors[at(word)] = factor
    if masked and settings.subtract:
        for branch in branches:
            with suppress(InputError):  # if the words are in no branch's text, the prompt is named
                text = settings.source if branch == "source" else prompt
                subtracted[branch] = at(settings.subtract, text)
        subtracted = subtracted or {branches[-1]: at(settings.subtract)}
    return Words(focus, source_focus, subtracted, gates, factors)


def _focus(
    tokenizer: Tokenizer, prompt: str, settings: Settings, source_has_its_own: bool
) -> list[int]:
    """The named words; else those that the source text lacks; else the first noun phrase."""
    if settings.focus:
        found = find(tokenizer, settings.focus, prompt)
        log.info("the edit is about: %s", settings.focus)
        return found
    words = read(tokenizer, prompt)
    chosen = new_words(words, words_of(tokenizer, settings.source)) if settings.source else []
    if not chosen and source_has_its_own:
        log.info("the edit is about what the source text says and the prompt doesn't")
        return []
    chosen = chosen or noun_phrase(words)
    if chosen:
        log.info("the edit is about: %s", " ".join(word.text for word in chosen))
    else:
        log.warning("no word of the prompt says what the edit is about: editing everywhere")
    return positions_of(chosen)


def positions_of(words: list[Word]) -> list[int]:
    """The positions of all tokens of some words."""
    return [position for word in words for position in word.positions]


def noun_phrase(words: list[Word]) -> list[Word]:
    """The first noun phrase of a prompt, as far as a list of stop words can tell.

    "a yellow car on the grass" -> yellow, car. Articles and prepositions end it once it has begun;
    the picture itself ("a photo of a yellow car") is not part of it.
    """
    phrase: list[Word] = []
    for word in words:
        if is_stop_word(word):
            if phrase and not (word.text == "of" and phrase[-1].text in PICTURES):
                break
            phrase = []
        else:
            phrase.append(word)
    return phrase


def new_words(words: list[Word], source: list[Word]) -> list[Word]:
    """Those of a prompt that a source text lacks where it otherwise says the same. Of "a red boat
    and a red car", against "a red boat and a blue car": red, the second."""
    there, here = ([word.text for word in text] for text in (source, words))
    matcher = SequenceMatcher(None, there, here, autojunk=False)
    changes = matcher.get_opcodes()  # what is deleted has no words here: start is end
    new = [words[start:end] for kind, _, _, start, end in changes if kind != "equal"]
    return [word for some in new for word in some if not is_stop_word(word)]


def is_stop_word(word: Word) -> bool:
    """True for articles, prepositions and punctuation, which name nothing in a picture."""
    return word.text in STOP_WORDS or not word.text[:1].isalnum()


def unknown_words(model: StableDiffusion, prompt: str) -> list[str]:
    """Words that the model never learned: the embedding of a token of theirs is 0."""
    table = model.text_encoder.text_model.embeddings.token_embedding.weight
    ids = model.tokenizer.clip(prompt, verbose=False)["input_ids"]
    learned = table[torch.tensor(ids, device=model.device)].ne(0).any(dim=-1).tolist()
    return [
        word.text
        for word in words_of(model.tokenizer, prompt)
        if word.text[:1].isalnum() and not all(learned[i] for i in word.positions)
    ]


def warn_of_words(model: StableDiffusion, prompt: str) -> None:
    """Logs the words of a prompt that are truncated, and those that the model does not know."""
    if lost := truncated(model.tokenizer, prompt):
        log.warning("the model reads %d tokens; cut off: %s", LENGTH, " ".join(lost))
    if unknown := dict.fromkeys(unknown_words(model, prompt)):
        log.warning("the model does not know: %s", ", ".join(unknown))
