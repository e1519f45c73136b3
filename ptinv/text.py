"""τ_θ: the prompt's words as tokens, and the CLIP text model that turns them into a context.

Both come from transformers, opened from local files only. What is added here: words are found by
their tokens (never by splitting at blanks), and whatever a prompt loses on the way is known.
"""

from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .errors import InputError

LENGTH = 77  # tokens in a context, with the start and at least one end token
LITTLE_WORDS = frozenset(
    "a an the this that these those some and or but with without in on at by of to from for as is "
    "are into onto over under behind before beside near next through across there it its above "
    "below between among against along around down up off inside outside within past toward "
    "towards my your his her our their".split()
)
PICTURES = frozenset(
    "photo photograph picture image painting drawing sketch portrait photos photographs pictures "
    "images paintings drawings sketches portraits".split()
)
SD_V1_TEXT = dict(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=LENGTH,
    hidden_act="quick_gelu",
)


class TextEncoder(nn.Module):
    """CLIP's text model, to its last layer norm. Tensor names are those of the checkpoint."""

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        clip = CLIPTextModel(CLIPTextConfig(**config))
        # transformers 4 keeps the layers one module deeper than 5; the files have the prefix
        self.text_model = getattr(clip, "text_model", clip)

    def reset_buffers(self, device: torch.device | str = "cpu") -> None:
        """Fills the one buffer that no file holds, which is left empty on the meta device."""
        embeddings = self.text_model.embeddings
        positions = torch.arange(self.config["max_position_embeddings"], device=device)[None]
        embeddings.register_buffer("position_ids", positions, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (b, 77) -> the context (b, 77, d)."""
        return self.text_model(input_ids=ids).last_hidden_state


class Word(NamedTuple):
    """One word of a prompt, and where its tokens are among the 77."""

    text: str
    positions: tuple[int, ...]


class Tokenizer:
    """A prompt as the ids, tokens and words that the model sees.

    folder: holds CLIP's `vocab.json` and `merges.txt`.
    """

    def __init__(self, folder: Path):
        try:
            self.clip = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
            start, _, end = self.clip("a")["input_ids"]
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise InputError(f"{folder} does not hold a CLIP tokenizer ({error})") from error
        if end != start + 1:  # CLIP's vocabulary ends with both
            raise InputError(
                f"the tokenizer in {folder} has its tokens in another order than CLIP's; "
                "use the one that belongs to the model"
            )

    def ids(self, prompts: list[str]) -> Tensor:
        """(b, 77): start, the prompt, and end tokens to the full length, as SD v1 was trained."""
        out = self.clip(prompts, padding="max_length", truncation=True, max_length=LENGTH)
        return torch.tensor(out["input_ids"])

    def words(self, prompt: str) -> list[Word]:
        """All words of a prompt, lower case, punctuation apart."""
        ids = self.clip(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        words, start = [], 0
        for end, token in enumerate(self.clip.convert_ids_to_tokens(ids), start=1):
            if token.endswith("</w>"):
                text = self.clip.decode(ids[start:end]).strip()
                words.append(Word(text, tuple(range(start + 1, end + 1))))  # the start token is 0
                start = end
        return words

    def read(self, prompt: str) -> list[Word]:
        """The words of a prompt that the model sees: those within the 77 tokens."""
        return [word for word in self.words(prompt) if word.positions[-1] <= LENGTH - 2]

    def lost(self, prompt: str) -> list[str]:
        """The words of a prompt that the model never sees: those past the 77 tokens."""
        return [word.text for word in self.words(prompt)[len(self.read(prompt)) :]]

    def find(self, phrase: str, prompt: str) -> list[int]:
        """The positions, among the prompt's 77 tokens, of every word of a phrase.

        Raises InputError naming the word that is not in the prompt, and those that are.
        """
        words = self.read(prompt)
        found = []
        for wanted in self.words(phrase):
            positions = [i for word in words if word.text == wanted.text for i in word.positions]
            if not positions and wanted.text in self.lost(prompt):
                raise InputError(
                    f'"{wanted.text}" is past the {LENGTH} tokens that the model reads'
                )
            if not positions:
                there = ", ".join(dict.fromkeys(word.text for word in words))
                raise InputError(f'"{wanted.text}" is not in the prompt; its words are: {there}')
            found += positions
        return sorted(set(found))


def noun_phrase(words: list[Word]) -> list[Word]:
    """The first noun phrase of a prompt, as far as a list of little words can tell.

    "a yellow car on the grass" -> yellow, car. Articles and prepositions end it once it has begun;
    the picture itself ("a photo of a yellow car") is not what it is about.
    """
    phrase: list[Word] = []
    for word in words:
        if is_little(word):
            if phrase and not (word.text == "of" and phrase[-1].text in PICTURES):
                break
            phrase = []
        else:
            phrase.append(word)
    return phrase


def new_words(words: list[Word], source: list[Word]) -> list[Word]:
    """Those of a prompt that a source text lacks where it otherwise says the same.

    Of "a red boat and a red car", against "a red boat and a blue car": red, the second.
    """
    there, here = ([word.text for word in text] for text in (source, words))
    matcher = SequenceMatcher(None, there, here, autojunk=False)
    new = [
        word
        for change, _, _, start, end in matcher.get_opcodes()
        if change in ("replace", "insert")
        for word in words[start:end]
    ]
    return [word for word in new if not is_little(word)]


def is_little(word: Word) -> bool:
    """Whether a word (or a comma) says nothing of what there is to see."""
    return word.text in LITTLE_WORDS or not word.text[:1].isalnum()
