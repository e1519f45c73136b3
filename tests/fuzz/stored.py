"""Files of ptinv's own kinds, changed by hand: checkpoints, inversions, and pictures' records."""

import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from fuzz.cases import Case, generate, kind, over
from fuzz.values import NUMBERS, TEXTS, VALUES, as_json, changed, damaged, no_file, rewrite
from PIL import Image
from records import retold
from small import PROMPT

from ptinv.storage.inversion import Inversion

RECORDED = ("Software", "command", "prompt", "method", "settings", "seed", "picture_hash", "cost")
RECORDED += ("model", "model_hash", "device", "dtype", "threads", "torch", "version")
AFFORDED = [v for v in VALUES if not (isinstance(v, int) and 3 < v < 10**4)]  # steps, or their like


def retold_header(rng: Random, data: bytes) -> bytes:
    """A safetensors file whose header says something else of the same numbers."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    spans = [0, 1, -1, 2**31, 2**63, len(data)]
    said = as_json(rng, changed(rng, header, [*VALUES, "F16", "I64", "BOOL", "F8_E4M3", *spans]))
    said = said.encode(errors="replace")
    told = rng.choice([len(said)] * 5 + [0, len(said) + 1, 2**32, 2**63, 2**64 - 1])
    return struct.pack("<Q", told) + said + data[8 + length :]


def copied_model(here: Path) -> Path:
    """The small model in a folder; its files are links, for `rewrite` to replace."""
    shutil.copytree(os.environ["PTINV_MODEL"], here / "model", copy_function=os.link)
    return here / "model"


@kind
def checkpoints(rng: Random, here: Path) -> Case:
    """A checkpoint of which one file is not as it should be."""
    path = rng.choice(sorted(path for path in copied_model(here).rglob("*") if path.is_file()))
    data, how = path.read_bytes(), rng.random()
    if how < 0.2:
        no_file(rng, path)
    elif how < 0.4:
        rewrite(path, damaged(rng, data))
    elif path.suffix == ".safetensors":
        rewrite(path, retold_header(rng, data))
    elif path.suffix == ".json":
        said = as_json(rng, changed(rng, json.loads(data)))
        rewrite(path, said.encode(errors="surrogatepass"))
    else:
        lines = data.splitlines(keepends=True)
        rng.shuffle(lines)
        rewrite(path, b"".join(lines[: rng.choice([0, 1, len(lines) // 2, len(lines)])]))
    given = rng.choice([["--model", "model"], ["--tokenizer", "model/tokenizer"]])
    given = given if path.parent.name == "tokenizer" else ["--model", "model"]
    return generate(*given) if rng.random() < 0.7 else over(rng, "picture.png", *given)


@kind
def inversions(rng: Random, here: Path) -> Case:
    """A stored inversion: its bytes damaged, its header another, or its contents, with a hash
    that is right."""
    path = here / "given.safetensors"
    data, how = (here / "kept.safetensors").read_bytes(), rng.random()
    if how < 0.2:
        rewrite(path, damaged(rng, data))
    elif how < 0.3:
        no_file(rng, path)
    elif how < 0.5:
        rewrite(path, retold_header(rng, data))
    else:
        kept = Inversion.load(here / "kept.safetensors")
        wrong = {
            "settings": lambda: changed(rng, kept.settings, AFFORDED),
            "made_with": lambda: changed(rng, kept.made_with),
            "extras": lambda: {k: t for k, t in kept.extras.items() if rng.random() < 0.5},
            "trajectory": lambda: misshapen(rng, kept.trajectory),
            "pixels": lambda: misshapen(rng, kept.pixels),
        }
        field = rng.choice(sorted(wrong))
        spoilt = replace(kept, **{field: wrong[field]()})
        try:
            spoilt.save(path)
        except (TypeError, ValueError, AttributeError):  # nobody could have written that
            rewrite(path, damaged(rng, data))
    case = over(rng, path.name, prompt=rng.choice([PROMPT, "a red boat"]))
    if case.words[0] == "invert":
        return case
    steps = case.words.index("--steps")
    words = case.words[:steps] + case.words[steps + 2 :]  # the inversion's own
    own = rng.choice([[], ["--reuse-tuning"], ["--eta", "0.5"], ["--method", "pti"]])
    return case._replace(words=words + own)


def misshapen(rng: Random, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with another shape or type, or with other numbers."""
    match rng.randrange(6):
        case 0:
            return tensor[:-1]
        case 1:
            return tensor[..., :-1].contiguous()
        case 2:
            return tensor.to(torch.int16)
        case 3:
            return torch.full_like(tensor, rng.choice([0, 255]))
        case 4:
            odd = rng.choice([torch.nan, torch.inf, 1e30])
            return torch.full_like(tensor, odd) if tensor.is_floating_point() else tensor[:0]
        case _:
            return tensor[..., None]


@kind
def records(rng: Random, here: Path) -> Case:
    """An edit's PNG whose record says something else, made again."""
    shutil.copyfile(here / "edited.png", here / "given.png")
    path, how = here / "given.png", rng.random()
    if how < 0.15:
        rewrite(path, damaged(rng, path.read_bytes()))
    else:
        name = rng.choice([*RECORDED, "settings", "settings", "settings"])
        odd = rng.choice([None, *TEXTS, *NUMBERS])
        if name == "settings" and rng.random() < 0.9:
            with Image.open(path) as image:
                said = json.loads(image.text["settings"])
            odd = as_json(rng, changed(rng, said, [*AFFORDED, *TEXTS]))
        retold(path, **{name: odd and odd.encode(errors="replace").decode()})
    given = rng.choice([[], [], [], ["--mask", "mask.png"], ["--no-record"]])
    return Case(
        ["again", "given.png", "picture.png", "--quiet", *given, "-o", "out.png"],
        ["out.png"],
        "picture.png",
    )
