"""Prompts, numbers, pairs of options, and places for the output."""

import os
from pathlib import Path
from random import Random

from fuzz.cases import Case, generate, kind, over
from fuzz.values import NUMBERS, TEXTS

from ptinv.cli.options import COMMANDS
from ptinv.methods.table import METHODS

IN_TEXT = ["yellow", "car", "a yellow car", "grass,car", "on the", "CAR", "yellow=2", "car=0.2:0.5"]
MASKS = ["attention", "difference", "file", "~attention", "~~attention", "attention*~difference"]
MASKS += [
    "attention + difference",
    "attention++difference",
    "",
    "attention*",
    "(attention)",
    "~" * 3000,
]
TAKES_WORDS = ["focus", "source_focus", "subtract", "source_words", "negative", "source"]
COSTLY = ("size", "steps", "inner_steps", "mask_draws")  # in range they are kept small
SMALL = {"size": ["64", "96x64", "64x128"], "steps": ["1", "2", "3"]}
SMALL |= {"inner_steps": ["1", "2"], "mask_draws": ["1", "2"]}
LEFT_OUT = ("compile", "device", "dtype", "output", "help")  # slow, or not the same everywhere


def options_of(command: str) -> dict[str, dict]:
    """A command's options by their names in Python: what `add_argument` takes of each."""
    options = {}
    for option in COMMANDS[command][2]:
        for names, how in option if isinstance(option, list) else [option]:
            options[names.split()[-1].lstrip("-").replace("-", "_")] = how
    return {name: how for name, how in options.items() if name not in LEFT_OUT}


def value_of(rng: Random, name: str, how: dict) -> list[str]:
    """A word for an option, mostly one that fits."""
    if how.get("action") in ("store_true", "store_const"):
        return []
    odd = rng.random() < 0.3
    if how.get("choices") and not odd:
        return [rng.choice(list(how["choices"]))]
    if name == "method":
        return [rng.choice([*METHODS, "ddim", "vae", *TEXTS] if odd else list(METHODS))]
    if name == "mask_from":
        return [rng.choice(TEXTS if odd else MASKS)]
    if name == "mask":
        return [rng.choice(["mask.png", "black.png", "other.png", "notes.txt", "picture.png"])]
    if name in ("model", "tokenizer"):
        return [rng.choice(["nowhere", "notes.txt", "folder", *TEXTS])]
    if name in ("show_mask", "show_source"):
        return ["shown.png"]
    if name in COSTLY and not odd:
        return [rng.choice(SMALL[name])]
    if name in TAKES_WORDS or how.get("action") == "append":
        return [rng.choice(TEXTS + NUMBERS if odd else IN_TEXT)]
    if how.get("type", str) is str:
        return [rng.choice(TEXTS)]
    numbers = NUMBERS if odd else ["0", "1", "0.5", "0.2", "2", "0.2:0.6", "3"]
    return [rng.choice(numbers)]


def with_options(rng: Random, how_many: int) -> Case:
    """A command with some of its options, each once or more."""
    case = generate() if rng.random() < 0.2 else over(rng, "picture.png")
    known = {
        n: how for n, how in options_of(case.words[0]).items() if n not in ("picture", "prompt")
    }
    given = []
    for name in rng.choices(sorted(known), k=how_many):
        flag, words = "--" + name.replace("_", "-"), value_of(rng, name, known[name])
        given += [f"{flag}={words[0]}"] if words and rng.random() < 0.7 else [flag, *words]
    shown = ["shown.png"] if "shown.png" in " ".join(given) else []
    return case._replace(words=case.words + given, outputs=case.outputs + shown)


@kind
def prompts(rng: Random, here: Path) -> Case:
    """A text in the prompt's place, and in those of the others."""
    prompt = rng.choice(TEXTS) + rng.choice(["", "", " car", rng.choice(TEXTS)])
    if rng.random() < 0.5:
        more = [f"--{rng.choice(['negative', 'source'])}={rng.choice(TEXTS)}"]
        return generate(*more * rng.randrange(2), prompt=prompt)
    case = over(rng, "picture.png", prompt=prompt)
    if case.words[0] == "edit" and rng.random() < 0.5:
        name = rng.choice([*TAKES_WORDS, "reweight", "cross_replace"]).replace("_", "-")
        return case._replace(words=[*case.words, f"--{name}={rng.choice(TEXTS)}"])
    return case


@kind
def numbers(rng: Random, here: Path) -> Case:
    """A number for an option that takes one."""
    case = generate() if rng.random() < 0.3 else over(rng, "picture.png")
    known = options_of(case.words[0]).items()
    takers = [n for n, how in known if how.get("type", str) is not str and "choices" in how]
    name = rng.choice([n for n in takers if not dict(known)[n]["choices"]])
    number = rng.choice(NUMBERS)
    return case._replace(words=[*case.words, f"--{name.replace('_', '-')}={number}"])


@kind
def options(rng: Random, here: Path) -> Case:
    """Two to five options together."""
    return with_options(rng, rng.randrange(2, 6))


@kind
def places(rng: Random, here: Path) -> Case:
    """Somewhere for the output to go."""
    (here / "loop.png").symlink_to("loop.png")
    (here / "link.png").symlink_to("picture.png")
    (here / "to-folder.png").symlink_to("folder")
    (here / "nowhere.png").symlink_to("nowhere/out.png")
    os.link(here / "picture.png", here / "twin.png")
    os.link(here / "mask.png", here / "twin-of-mask.png")
    outputs = [
        *("out.png", "out.jpg", "out.JPEG", "out.webp", "out.PNG", "old.png", "folder/out.png"),
        *("out", "out.gif", "out.png.gz", ".png", "folder", "folder/", "out.png/", "nowhere/a.png"),
        *("notes.txt", "notes.txt/a.png", "picture.png", "./picture.png", "folder/../picture.png"),
        *("link.png", "loop.png", "to-folder.png", "nowhere.png", "twin.png", "twin-of-mask.png"),
        *("mask.png", "/dev/null", "/proc/out.png", "x" * 300 + ".png", "x/" * 3000 + "out.png"),
        *("a\nb.png", "a\x1b[2J.png", "é.png", "a b.png", "-.png", "a\0b.png", "\ud800.png"),
        *("out.safetensors", "picture.safetensors", "out.png.safetensors", *TEXTS),
    ]  # fmt: skip
    case, output = (
        generate() if rng.random() < 0.3 else over(rng, "picture.png"),
        rng.choice(outputs),
    )
    more = [f"--output={output}"]
    if case.words[0] == "edit" and rng.random() < 0.4:
        more += ["--mask", "mask.png"]
    inputs = ("picture.png", "link.png", "twin.png")
    if case.words[0] == "edit" and "--mask" in more:
        inputs += ("mask.png", "twin-of-mask.png")
    refused = output.endswith("/") or (case.picture and os.path.normpath(output) in inputs)
    return case._replace(words=case.words[:-2] + more, outputs=[] if refused else [output])
