"""A record of how a result was made, kept with it: enough to make it again, readable by anybody.

An inversion's file has part of it in its metadata, a PNG a whole `Recipe` in its text chunks, which
`exiftool` or Pillow's `Image.text` show.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import __version__
from ..core.model import StableDiffusion
from ..errors import InputError
from ..settings import NAMES, OF_GENERATING, Settings, check_prompt
from . import files
from .pictures import checked, read_text

log = logging.getLogger(__name__)

# where all of these are the same, so are the bytes; by name: its type in a record, and its value
MADE_WITH: dict[str, tuple[type, Callable[[StableDiffusion], Any]]] = {
    "model": (str, lambda model: model.name),
    "model_hash": (str, lambda model: model_hash(model)),
    "device": (str, lambda model: model.device.type),
    "dtype": (str, lambda model: str(model.dtype).removeprefix("torch.")),
    "threads": (int, lambda model: torch.get_num_threads()),
    "torch": (str, lambda model: torch.__version__),
    "version": (str, lambda model: __version__),  # of ptinv
}
MASK = "sha256:"  # before a given mask's fingerprint, among the settings
COMMANDS = ("edit", "reconstruct", "generate")
TENSORS = "tensors:"  # before a model's hash by its tensors; without it, one of the whole files
PIECES, PIECE = 4, 1024  # how much of each tensor is hashed: so many pieces of so many bytes


def model_hash(model: StableDiffusion) -> str:
    """The sha256 of the checkpoint's tensors, by name, type, shape and 4 kB of the bytes of each.

    Returns "tensors:" and 64 hexadecimal digits, of the files and so of the same weights whatever
    the device and precision; a folder's fp16 files are other weights. The tokenizer's files count
    whole. Takes 0.2 s at most for Stable Diffusion v1. Training moves nearly every number of a
    tensor, so a sample tells two fine-tunes apart; of CLIP's table of tokens only the rows in use
    learn, and the last piece holds the start and end tokens of every prompt.
    Raises InputError for a model that was opened without a record of its files.
    """
    if not model.files:
        raise InputError("the model has no record of its files; open it with ptinv.load")
    digest = hashlib.sha256()
    for path in model.files:
        weights = path.suffix == ".safetensors"
        pieces = _sample(path) if weights else [files.sha256(path).encode()]
        digest.update(b"\n" + b"".join(pieces))
    return TENSORS + digest.hexdigest()


def _sample(path: Path) -> Iterator[bytes]:
    """Yields each tensor of a safetensors file: its entry in the header, and a few pieces of it."""
    with open(path, "rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, about in sorted(header.items()):
            yield json.dumps([name, about["dtype"], about["shape"]]).encode()
            start, end = about["data_offsets"]
            last = end - start - PIECE  # where the last piece begins, in the tensor
            whole = last <= (PIECES - 1) * PIECE
            for place in [0] if whole else [last * i // (PIECES - 1) for i in range(PIECES)]:
                file.seek(8 + length + start + place)
                yield file.read(end - start if whole else PIECE)


@lru_cache(maxsize=4)
def _whole_hash(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    """The sha256 of whole files; kept for as long as the size and time beside each are the same."""
    return files.sha256(*(path for path, _, _ in stamped), with_sizes=True)


def made_with(model: StableDiffusion) -> dict[str, Any]:
    """The model, and what else the last bits of a result depend on."""
    return {name: value(model) for name, (_, value) in MADE_WITH.items()}


def check_recorded(recorded: dict[str, Any]) -> None:
    """Raises InputError unless it is what `made_with` returns, in keys and types."""
    if not isinstance(recorded, dict) or recorded.keys() != MADE_WITH.keys():
        raise InputError("what it was made with is missing")
    for name, (kind, _) in MADE_WITH.items():
        if type(recorded[name]) is not kind:
            raise InputError(f"{name} is {recorded[name]!r}")


def check_same(what: str, recorded: dict[str, Any], model: StableDiffusion) -> None:
    """Refuses another model, by its hash, with InputError; logs whatever else is not the same.

    A record may carry the sha256 of the checkpoint's whole files instead; then these are read.
    """
    now = made_with(model)
    if not recorded["model_hash"].startswith(TENSORS):
        stats = [(path, path.stat()) for path in model.files]
        now["model_hash"] = _whole_hash(tuple((p, s.st_size, s.st_mtime_ns) for p, s in stats))
    if recorded["model_hash"] != now["model_hash"]:
        was, given = (
            f"{about['model']} (sha256 {about['model_hash'].removeprefix(TENSORS)[:12]}…)"
            for about in (recorded, now)
        )
        raise InputError(f"{what} was made with another model, {was}, not {given}; give that one")
    names = [name for name in MADE_WITH if name != "model" and recorded[name] != now[name]]
    if names:
        differ = ", ".join(f"{name} {recorded[name]}, now {now[name]}" for name in names)
        log.warning("%s was made with %s: the bytes may differ", what, differ)


def fingerprint(image: Image.Image) -> str:
    """The sha256 of what a picture shows, whatever file it came from."""
    rgb = checked(image)
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """The command and inputs that a picture was made by and from."""

    command: str  # one of COMMANDS
    prompt: str
    method: str
    settings: Settings  # those read from a file have no mask in the place of a given one
    made_with: dict[str, Any]
    picture_hash: str = ""  # of what was edited
    mask_hash: str = ""  # of a given mask

    def chunks(self) -> dict[str, str]:
        """The record as texts by name; the settings are one of them, in JSON, without the seed."""
        generating = self.command == "generate" and not self.settings.source
        names = OF_GENERATING if generating else NAMES
        settings = {name: getattr(self.settings, name) for name in names if name != "seed"}
        if self.mask_hash:
            settings["mask"] = MASK + self.mask_hash
        return {
            "Software": f"ptinv {__version__}",
            "command": self.command,
            "prompt": self.prompt,
            "method": self.method,
            "settings": json.dumps(settings, ensure_ascii=False),
            "seed": str(self.settings.seed),
            "picture_hash": self.picture_hash,
            **{name: str(value) for name, value in self.made_with.items()},
        }

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        """Reads a PNG's record. Raises InputError if it has none, or a damaged one."""
        text = read_text(path)
        if not text.get("Software", "").startswith("ptinv "):
            raise InputError(
                f"{path} doesn't say how it was made; only PNGs written by ptinv do "
                "(JPEG and WebP cannot, and some programs drop a PNG's text chunks)"
            )
        try:
            recorded = {name: kind(text[name]) for name, (kind, _) in MADE_WITH.items()}
            settings = json.loads(text["settings"])
            mask_hash = ""
            if str(settings.get("mask")).startswith(MASK):
                mask_hash = settings.pop("mask").removeprefix(MASK)
            settings = Settings(**settings, seed=int(text["seed"]))
            if text["command"] not in COMMANDS:
                raise InputError(f"the command is {text['command']!r}")
            check_prompt(text["prompt"])
            kept = {name: text[name] for name in ("command", "prompt", "method", "picture_hash")}
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            wrong = f"its record of how it was made is damaged ({error}); make the edit anew"
            raise InputError(f"{path}: {wrong}") from error
        return cls(**kept, settings=settings, made_with=recorded, mask_hash=mask_hash)
