"""How a result came about, kept with it: enough to make it again, and readable by anybody.

An inversion's file has what it was made with in its metadata. A PNG has that and the rest of a
`Recipe` in its text chunks, which `exiftool` or Pillow's `Image.text` show.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from . import __version__, images
from .errors import InputError
from .model import StableDiffusion
from .settings import NAMES, OF_GENERATING, Settings, check_prompt

log = logging.getLogger(__name__)

# the same bytes are promised where all of these are the same, on the same machine
MADE_WITH = {
    "model": str,
    "model_hash": str,
    "device": str,
    "dtype": str,
    "threads": int,
    "torch": str,
    "version": str,  # of ptinv
}
MASK = "sha256:"  # before a given mask's fingerprint, among the settings
COMMANDS = ("edit", "reconstruct", "generate")


def made_with(model: StableDiffusion) -> dict[str, Any]:
    """The model, and what else the last bits of a result depend on."""
    return {
        "model": model.name,
        "model_hash": model.hash,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "version": __version__,
    }


def check_recorded(recorded: dict[str, Any]) -> None:
    """Raises InputError unless it is what `made_with` returns, in keys and types."""
    if not isinstance(recorded, dict) or recorded.keys() != MADE_WITH.keys():
        raise InputError("what it was made with is missing")
    for name, kind in MADE_WITH.items():
        if type(recorded[name]) is not kind:
            raise InputError(f"{name} is {recorded[name]!r}")


def check_same(what: str, recorded: dict[str, Any], model: StableDiffusion) -> None:
    """Refuses another model, by its hash, with InputError; logs whatever else is not the same."""
    now = made_with(model)
    if recorded["model_hash"] != now["model_hash"]:
        was, given = (f"{m['model']} (sha256 {m['model_hash'][:12]}…)" for m in (recorded, now))
        raise InputError(f"{what} was made with another model, {was}, not {given}; give that one")
    names = [name for name in MADE_WITH if name != "model" and recorded[name] != now[name]]
    if names:
        differ = ", ".join(f"{name} {recorded[name]}, now {now[name]}" for name in names)
        log.warning("%s was made with %s: the bytes may differ", what, differ)


def fingerprint(image: Image.Image) -> str:
    """The sha256 of what a picture shows, whatever file it came from."""
    rgb = images.to_rgb(image)
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What a picture was made by and from."""

    command: str  # one of COMMANDS
    prompt: str
    method: str
    settings: Settings  # those read from a file have no mask in the place of a given one
    made_with: dict[str, Any]
    picture_hash: str = ""  # of what was edited
    mask_hash: str = ""  # of a given mask

    def chunks(self) -> dict[str, str]:
        """As text: one chunk for each thing, the settings together as JSON, the seed apart."""
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
        """What a PNG says of itself. Raises InputError if it says nothing, or something damaged."""
        text = images.read_text(path)
        if not text.get("Software", "").startswith("ptinv "):
            raise InputError(
                f"{path} doesn't say how it was made; only PNGs written by ptinv do "
                "(JPEG and WebP cannot, and some programs drop a PNG's text chunks)"
            )
        try:
            recorded = {name: kind(text[name]) for name, kind in MADE_WITH.items()}
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
            raise InputError(
                f"{path}: its record of how it was made is damaged ({error}); make the edit anew"
            ) from error
        return cls(**kept, settings=settings, made_with=recorded, mask_hash=mask_hash)
