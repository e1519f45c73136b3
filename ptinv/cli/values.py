"""What options take that is no plain number or text: read, or refused in a few words."""

import argparse
import re

from ..settings import DEFAULT, Gate

NUMBER = "[0-9]{1,9}"


def weight(text: str) -> tuple[str, float]:
    """yellow=2"""
    word, _, factor = text.rpartition("=")
    try:
        if word.strip():
            return word, float(factor)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not WORD=FACTOR, such as yellow=2")


def gate(text: str) -> Gate:
    """0.8, or 0.2:0.6"""
    try:
        ends = tuple(float(end) for end in text.split(":"))
        if len(ends) <= 2:
            return ends if len(ends) == 2 else ends[0]
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a share of the steps, or FROM:TO")


def word_gate(text: str) -> tuple[str, Gate]:
    """A gate for all words, or tiger=0.2:0.6 for one."""
    word, _, rest = text.rpartition("=")
    return word.strip() or DEFAULT, gate(rest)


def levels(text: str) -> list[int]:
    """1,2"""
    if not re.fullmatch(rf"{NUMBER}(,{NUMBER})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not levels, such as 1 or 1,2")
    return [int(level) for level in text.split(",")]


def spans(text: str) -> list[range]:
    """40,20,1-10"""
    span = rf"{NUMBER}(-{NUMBER})?"
    if not re.fullmatch(rf"{span}(,{span})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not steps, such as 40,20 or 1-10")
    ends = [sorted(int(k) for k in part.split("-")) for part in text.split(",")]
    return [range(low_high[0], low_high[-1] + 1) for low_high in ends]
