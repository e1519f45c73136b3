"""Cases that once ended badly, with a traceback, after minutes, or in words of Python's."""

import json
from collections.abc import Callable
from pathlib import Path

from fuzz.cases import CHEAP, Case, generate
from fuzz.stored import copied_model
from fuzz.values import DEEP, rewrite
from records import retold
from small import PROMPT


def edit(
    *more: str, picture: str = "picture.png", prompt: str = PROMPT, method: str = "sdedit"
) -> Case:
    words = ["edit", picture, prompt, *CHEAP, "--method", method, *more, "-o", "out.png"]
    return Case(words, ["out.png"], picture)


def to(output: str, *words: str) -> Case:
    """An output that must be refused."""
    return Case([*(words or ("generate", PROMPT)), *CHEAP, f"--output={output}"], [])


def again(here: Path, **told: str) -> Case:
    retold(here / "edited.png", **told)
    return Case(["again", "edited.png", "picture.png", "-o", "out.png"], ["out.png"], "picture.png")


def with_config(here: Path, network: str, **said) -> Case:
    path = copied_model(here) / network / "config.json"
    rewrite(path, json.dumps(json.loads(path.read_bytes()) | said).encode())
    return generate("--model", "model")


def with_bytes(here: Path, file: str, data: bytes) -> Case:
    rewrite(copied_model(here) / file, data)
    return generate("--model", "model")


def over_weights(here: Path) -> Case:
    weights = copied_model(here) / "unet" / "diffusion_pytorch_model.safetensors"
    return to(str(weights), "invert", "picture.png", "--model", "model")


FOUND: dict[str, Callable[[Path], Case]] = {
    "words to quote": lambda here: edit("--focus", "a" * 9000),
    "a long mask": lambda here: edit(f"--mask-from={'~' * 3000}attention"),
    "-- as a value": lambda here: edit("--cross-replace=--"),
    "-- as an output": lambda here: to("--"),
    "control characters": lambda here: edit(picture="a\x1b[2Jb"),
    "a long prompt": lambda here: edit(prompt="a b " * 20_000, method="p2p"),
    "NUL in a path": lambda here: to("a\0b.png"),
    "half a character in a path": lambda here: to("\ud800.png"),
    "a long path": lambda here: to("x/" * 3000 + "a.png"),
    "a path that ends in /": lambda here: to("out.png/"),
    "the model's weights as output": over_weights,
    "a record's seed": lambda here: again(here, seed="ß"),
    "a deep record": lambda here: again(here, settings=DEEP),
    "a record's long number": lambda here: again(here, settings="9" * 10_000),
    "a config in no UTF-8": lambda here: with_bytes(here, "unet/config.json", b'{"a": "\xff"}'),
    "a deep config": lambda here: with_bytes(here, "vae/config.json", DEEP.encode()),
    "a million layers": lambda here: with_config(here, "vae", layers_per_block=10**6),
    "a million pixels": lambda here: with_config(here, "unet", sample_size=500),
    "pixels beyond memory": lambda here: with_config(here, "unet", sample_size=10**12),
}
