"""Reads what a picture shows: the prompt, with what is there in the place of its new words.

A network that predicts noise also judges texts: the one that describes a picture predicts the noise
in it best (Diffusion Classifier, Li et al., arXiv 2303.16203), and a word for something that isn't
there makes the prediction worse (Kong et al., arXiv 2310.07972). So, with the same noises for all,

    loss(text) = mean over some t of ‖ε - ε_θ(√ᾱ_t z_0 + √(1-ᾱ_t) ε, t, text)‖²

    1   the word without which the loss falls most, or rises least, is probably new
    2   every other word is tried in its place by few of the noises, the best of them by all
    3   a change that lowers the loss is kept, and the search goes on from there

One word changes at a time, since a new one spoils its neighbours: for the picture of a blue bird,
"a blue car" makes "blue" look wrong, too. Things and their colours are told halfway into the noise.
A place is told near pure noise alone: nearer to the picture the network sees it without a word.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import ddim
from ..core.model import StableDiffusion
from .edit import fresh_noise
from .words import ELSE, STOP_WORDS, Word, is_place, is_stop_word, read

NEAR, FAR = (400, 700, 300, 600, 500, 800), (980,) * 6  # timesteps that tell things, and places


class Search(NamedTuple):
    """Numbers of noises that a search spends: on each word, and on the texts in its place."""

    probes: dict[tuple[int, ...], int]  # by how many a word is judged to be new
    # by how many all texts are judged, and how many stay; by how many those are, and so on
    rounds: dict[tuple[int, ...], tuple[tuple[int, int], ...]]


THOROUGH = Search({NEAR: 6, FAR: 3}, {NEAR: ((2, 5), (6, 1)), FAR: ((1, 12), (3, 5), (6, 1))})
# for an edit whose strength depends on what is new: where that is a place, on no other word
QUICK = Search({NEAR: 2, FAR: 2}, {NEAR: ((1, 4), (3, 1))})
BEFORE = ("on the", "in the", "by the", "in a")  # tried before a place, besides the prompt's own
WORDS, MARGIN = 4, 0.02  # words to look into at most; the share of the loss that counts
NEAREST = 64  # words tried for one of a large vocabulary; of a smaller one, all
Table = dict[str, Tensor]  # the text encoder's row of each word


@torch.no_grad()
def infer(
    model: StableDiffusion,
    z0: Tensor,
    prompt: str,
    among: Sequence[str] = (),
    seed: int = 0,
    search: Search = THOROUGH,
) -> str:
    """The text of a picture z_0 (1, c, h, w) that is nearest to a prompt, the same for a seed.

    among: the words to try; by default the vocabulary's whole words, of a large one those nearest
    to the word that is replaced, in the text encoder's own table. Costs about 140 rows of the UNet;
    by `QUICK` about 50, but a new place is left out of the text, and the search ends there.
    """
    losses, table = losses_of(model, z0, seed), vocabulary(model)
    text, settled = prompt, set()
    for _ in range(WORDS):
        words, costs = read(model.tokenizer, text), {}
        named = named_in(words, table)
        asked = {name: FAR if is_place(words, at[-1]) else NEAR for name, at in named.items()}
        for name, at in ((name, at) for name, at in named.items() if name not in settled):
            far, timesteps = asked[name] is FAR, asked[name]
            probes = timesteps[: search.probes[timesteps]]
            rest, now = losses([without(text, words, at), text], probes)
            # a place that is there may be missed by none, and a new one shows by its own loss
            costs[name] = float(rest / now - 1) + (far and rest > (1 - 2 * MARGIN) * now)
        new = min(costs, key=costs.__getitem__, default=None)
        # the first round looks for something, whatever it costs
        if new is None or (text != prompt and costs[new] > -MARGIN):
            break
        at, timesteps = named[new], asked[new]
        if timesteps not in search.rounds:
            return without(text, words, at)
        settled.add(new)
        if not (texts := swaps(text, words, at, among or nearest(model, table, new), table)):
            continue
        for count, kept in search.rounds[timesteps]:
            loss = losses([*texts, text], timesteps[:count])
            texts = [texts[i] for i in loss[:-1].argsort()[:kept]]
        if loss[:-1].min() < (1 - MARGIN) * loss[-1]:
            text = texts[0]
            settled.add(singular(read(model.tokenizer, text)[at[0]].text, table))
    return text


def losses_of(model: StableDiffusion, z0: Tensor, seed: int) -> Callable[..., Tensor]:
    """The mean loss of texts over timesteps, each with a noise of its own; none is run twice."""
    noise, alphas = fresh_noise(seed, 3, tuple(z0.shape)), ddim.alphas_cumprod()
    embed = cache(model.embed)
    known: dict[tuple[str, int, int], Tensor] = {}

    def losses(texts: Sequence[str], timesteps: Sequence[int]) -> Tensor:
        for i, t in enumerate(timesteps):
            eps = noise(1000 * i + t).to(z0)
            z = ddim.add_noise(z0, eps, float(alphas[t]))
            new = [text for text in dict.fromkeys(texts) if (text, i, t) not in known]
            for some in (new[j : j + 8] for j in range(0, len(new), 8)):
                z_wide = z.expand(len(some), -1, -1, -1)
                missed = model.predict_noise(z_wide, t, torch.cat([*map(embed, some)])) - eps
                for text, off in zip(some, missed, strict=True):
                    known[text, i, t] = off.square().mean().cpu()
        each = [known[text, i, t] for text in texts for i, t in enumerate(timesteps)]
        return torch.stack(each).view(len(texts), -1).mean(dim=1)

    return losses


def named_in(words: list[Word], table: Table) -> dict[str, list[int]]:
    """Things, colours and places that a text names, by their singular: their words' indices."""
    named: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        if not is_stop_word(word) and word.text not in ELSE:
            named.setdefault(singular(word.text, table), []).append(i)
    return named


def without(text: str, words: list[Word], at: list[int]) -> str:
    """A text without some words; a place takes its "in the" with it."""
    gone = set(at)
    while min(gone) and is_place(words, at[-1]) and words[min(gone) - 1].text in STOP_WORDS:
        gone.add(min(gone) - 1)
    return rewritten(text, words, dict.fromkeys(gone, ""))


def swaps(
    text: str, words: list[Word], at: list[int], tried: Iterable[str], table: Table
) -> list[str]:
    """The texts that name something else there, each word one or many as the one it replaces."""
    texts, i = [], at[-1]
    placed = i >= 2 and is_place(words, i) and {w.text for w in words[i - 2 : i]} <= STOP_WORDS
    for new in tried:
        plural = new + "s" if new + "s" in table else new
        one = {i: singular(words[i].text, table) == words[i].text for i in at}
        put = {i: new if one[i] else plural for i in at}
        texts.append(rewritten(text, words, put))
        for before in BEFORE if placed else ():
            here = dict(zip((i - 2, i - 1), before.split(), strict=True))
            texts.append(rewritten(text, words, put | here))
    return [other for other in dict.fromkeys(texts) if other != text]


def rewritten(text: str, words: list[Word], put: dict[int, str]) -> str:
    """A text with words exchanged by index, or left out, and "a" and "an" as what follows wants."""
    for i in sorted(put, reverse=True):
        text = text[: words[i].start] + put[i] + text[words[i].end :]
    an = re.compile(r"\ban? (?=(\w))")
    return an.sub(lambda m: "an " if m[1] in "aeiouAEIOU" else "a ", " ".join(text.split()))


def singular(word: str, table: Table) -> str:
    """ "dog" of "dogs", where both are words."""
    return word[:-1] if word.endswith("s") and word[:-1] in table else word


def vocabulary(model: StableDiffusion) -> Table:
    """The plain whole words that the model has learned."""
    rows = model.text_encoder.text_model.embeddings.token_embedding.weight.float()
    learned = rows.ne(0).any(dim=1).tolist()
    words = {t.removesuffix("</w>"): i for t, i in model.tokenizer.clip.get_vocab().items()
             if t.endswith("</w>") and learned[i]}  # fmt: skip
    plain = (w for w in words if len(w) > 2 and w.isascii() and w.isalpha())
    return {word: rows[words[word]] for word in plain if word not in STOP_WORDS | ELSE}


def nearest(model: StableDiffusion, table: Table, word: str) -> list[str]:
    """The words to try in a word's place, nearest first: `NEAREST` at most."""
    names = sorted({singular(known, table) for known in table})
    ids = model.tokenizer.clip(word, add_special_tokens=False)["input_ids"]
    rows = model.text_encoder.text_model.embeddings.token_embedding.weight[ids].float()
    near = F.cosine_similarity(torch.stack([table[n] for n in names]), rows.mean(0, keepdim=True))
    return [names[i] for i in near.argsort(descending=True)[:NEAREST].tolist()]
