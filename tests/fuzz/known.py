"""What is known to end badly: the sign by which such a case is told, and an example.

Each example must fail as long as it stands here; one that is mended is taken out, with its sign.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fuzz.cases import CHEAP, Case, generate
from fuzz.stored import copied_model
from fuzz.values import rewrite
from records import retold
from small import PROMPT


class Known(NamedTuple):
    """One thing that is wrong."""

    sign: str  # a pattern in what `fault` says
    example: Callable[[Path], Case]  # writes its files into a folder


def edit(*more: str, picture: str = "picture.png") -> Case:
    words = ["edit", picture, PROMPT, *CHEAP, "--method", "sdedit", *more, "-o", "out.png"]
    return Case(words, ["out.png"], picture)


def to(output: str, *words: str) -> Case:
    """An output that must be refused."""
    return Case([*(words or ("generate", PROMPT)), *CHEAP, f"--output={output}"], [])


def again(here: Path, **told: str) -> Case:
    retold(here / "edited.png", **told)
    return Case(["again", "edited.png", "picture.png", "-o", "out.png"], ["out.png"], "picture.png")


def with_config(here: Path, file: str, **said) -> Case:
    path = copied_model(here) / file
    rewrite(path, json.dumps(json.loads(path.read_bytes()) | said).encode())
    return generate("--model", "model")


def with_bytes(here: Path, file: str, data: bytes) -> Case:
    rewrite(copied_model(here) / file, data)
    return generate("--model", "model")


def over_weights(here: Path) -> Case:
    weights = copied_model(here) / "unet" / "diffusion_pytorch_model.safetensors"
    return to(str(weights), "invert", "picture.png", "--model", "model")


KNOWN = {
    "what is quoted is not cut": Known(r"^too long", lambda here: edit("--focus", "a" * 9000)),
    "control characters are printed": Known(
        r"^unprintable", lambda here: edit(picture="a\x1b[2Jb")
    ),
    "an option's value is --": Known(
        r"not list$|^ValueError.*dictionary update", lambda here: edit("--cross-replace=--")
    ),
    "a NUL in a path": Known(r"^ValueError.*null byte$", lambda here: to("a\0b.png")),
    "half a character in a path": Known(
        r"^UnicodeEncodeError.*check_output", lambda here: to("\ud800.png")
    ),
    "a path that is too long": Known(
        r"^ends with 1.*Errno 36", lambda here: to("x/" * 3000 + "a.png")
    ),
    "a path that ends in /": Known(r"^writes to .*out\.png'\]$", lambda here: to("out.png/")),
    "the model's weights as output": Known(r"^writes to .*/model/unet", over_weights),
    "an endless mask": Known(
        r"^RecursionError", lambda here: edit(f"--mask-from={'~' * 3000}attention")
    ),
    "Python's words about a record": Known(
        r"^Python's words.* (record of how|whole inversion)", lambda here: again(here, seed="ß")
    ),
    "Python's words about a checkpoint": Known(
        r"^Python's words.*(is not JSON|CLIP tokenizer)",
        lambda here: with_bytes(here, "unet/config.json", b'{"a": "\xff"}'),
    ),
    "sizes that no model has": Known(
        r"^hangs|^RuntimeError.*overflow|memory is full",
        lambda here: with_config(here, "unet/config.json", sample_size=10**12),
    ),
}
