"""Odd values of every kind, and ways to spoil what is right: texts, numbers, JSON and bytes.

All take a `random.Random`, so that a case is the same whenever its number is.
"""

import json
import os
from pathlib import Path
from random import Random
from typing import Any

TEXTS = [
    *("", " ", "\t\n", "-", "--", "-x", "--steps", "=", "=2", ":", "~", "+", "*", "a=b=2", "'"),
    *("%s %d %(x)s", "{0} {} {x!r}", "$HOME `id` ;", "\\", "../..", "NaN", "None", "\ufeffa car"),
    *("<|startoftext|>", "<|endoftext|>", "a<|endoftext|>car", "a</w>", "#version: 0.2", '"'),
    *("a\nred\ncar", "a\rcar", "a\x1b[2Jcar", "a\x07car", "a\x9b31mcar", "a\u202ecar"),
    *("e\u0301" * 40, "\u200b", "👩\u200d👩\u200d👧", "ﬁne", "İ", "ß" * 20, "a\u2028b"),
    *("car " * 300, "a" * 50_000, "a b " * 2_000, "," * 500, "a" * 77, "\U0010ffff", "\ud800"),
    *("سيارة صفراء", "汽车在草地上", "a\0b"),
]  # fmt: skip
NUMBERS = [
    *("0", "-1", "1", "2", "3", "0.5", "-0.0", "1e-320", "1e999", "-1e999", "nan", "inf", "-inf"),
    *("9" * 19, "9" * 400, "9" * 5000, "-" + "9" * 30, "0." + "0" * 400 + "1", "1e5", "0x10"),
    *("1,5", "½", "١", "²", "", " ", " 1", "1 ", "+1", "--1", "one", "1.5.2", "1e", ".", "1j"),
    *("0.2:0.6", "0.6:0.2", ":", "0.1:", ":0.1", "0:0:0", "nan:nan", "64x64", "64x", "x64"),
    *("64X64", "64x64x64", "64 x 64", "99999x64", "1.5x64", "-64x64", "True", "1_0"),
]  # fmt: skip
DEEP = "[" * 20_000 + "]" * 20_000  # as text: no library would write it
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 7, 10**3, 10**6, 10**12, 10**400, 0.5, 1e308, -1e308),
    *(float("nan"), float("inf"), "", "2", "x" * 5000, "\0", "\ud800", [], {}, [1], [0, 0]),
    *([[8, 16]], {"a": 1}, [None], [-8, 16], [8.0, 16.0], [1] * 300, {"__class__": "os.system"}),
]  # fmt: skip


def damaged(rng: Random, data: bytes) -> bytes:
    """The bytes with some cut, changed, put in or repeated; mostly near their head."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = min(rng.randrange(rng.choice([16, 400, len(data) + 1])), len(out))
        some = rng.randrange(1, 64)
        match rng.randrange(6):
            case 0:
                del out[at:]
            case 1:
                out[at : at + 1] = rng.randbytes(1)
            case 2:
                out[at : at + some] = rng.randbytes(some)
            case 3:
                del out[at : at + some]
            case 4:
                out[at:at] = rng.randbytes(some)
            case 5:
                out[at:at] = out[at : at + some] * 3
    return bytes(out)


def changed(rng: Random, value: Any, odd: list[Any] = VALUES) -> Any:
    """A JSON value with one thing in it, at any depth, left out, added or another."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(sorted(value))
        rest = {name: item for name, item in value.items() if name != key}
        match rng.randrange(8):
            case 0:
                return rest
            case 1:
                return rest | {key + rng.choice(["_", "s", "\n"]): value[key]}
            case 2:
                return value | {rng.choice(["", "mask", "__init__", "x" * 5000]): rng.choice(odd)}
            case _:
                return rest | {key: changed(rng, value[key], odd)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return [*value[:at], changed(rng, value[at], odd), *value[at + 1 :]]
    return rng.choice(odd)


def as_json(rng: Random, value: Any) -> str:
    """A JSON text, now and then one that is odd as a text."""
    text = json.dumps(value)
    odd = {
        1: DEEP,
        2: '{"a":' * 5000,
        3: "9" * 10_000,
        4: text[:-1],
        5: "\ufeff" + text,
        6: text * 2,
    }
    return odd.get(rng.randrange(60), text)


def rewrite(path: Path, data: bytes) -> None:
    """Puts bytes in a file's place; another name of the old file keeps what it had."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def no_file(rng: Random, path: Path) -> None:
    """Puts something that is no plain file in its place: nothing, a pipe, a device, a folder …"""
    path.unlink(missing_ok=True)
    match rng.randrange(7):
        case 0:
            pass
        case 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3:
            path.symlink_to(path.name)
        case 4:
            path.symlink_to("/dev/zero")
        case 5:
            path.symlink_to("/dev/null")
        case 6:
            path.write_bytes(b"")
