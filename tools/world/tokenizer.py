"""A tokenizer in CLIP's format in which every word of the scenes is one token."""

import json
from pathlib import Path

import torch
from world import scenes

from ptinv.core.text import TextEncoder

START, END = "<|startoftext|>", "<|endoftext|>"


def byte_pair_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merges that make each of `words` one token, in the order in which BPE applies them."""
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while pairs := [p for p in zip(pieces, pieces[1:], strict=False) if p in merges]:
            pieces = merge(pieces, min(pairs, key=merges.__getitem__))
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            merges[pair] = len(merges)
            pieces = merge(pieces, pair)
    return list(merges)


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """`pieces` with every occurrence of `pair` joined, from the left."""
    out = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def byte_letters() -> list[str]:
    """The 256 letters in which CLIP's BPE spells bytes: unprintable ones come after 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def write_tokenizer(folder: Path) -> list[str]:
    """A tokenizer in CLIP's format for the words of the scenes; returns its tokens in order."""
    merges = byte_pair_merges(scenes.WORDS)
    letters = byte_letters()
    pieces = letters + [letter + "</w>" for letter in letters] + [a + b for a, b in merges]
    tokens = [*dict.fromkeys(pieces), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=END)
    settings = dict(tokenizer_class="CLIPTokenizer", model_max_length=77, do_lower_case=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | special, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    return tokens


def silence_pieces(text_encoder: TextEncoder, tokens: list[str]) -> list[bool]:
    """Zeroes the embeddings of all tokens but the scenes' words; returns which are those.

    Pieces of words are never trained; at zero they have no meaning, and differ from known words.
    """
    words = {START, END, *(word + "</w>" for word in scenes.WORDS)}
    known = [token in words for token in tokens]
    table = text_encoder.text_model.embeddings.token_embedding.weight.data
    table[~torch.tensor(known)] = 0
    return known
