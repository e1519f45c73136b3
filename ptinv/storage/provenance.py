"""A record of how a result was made, kept with it: enough to make it again, readable by anybody.

An inversion's metadata is part of it, a PNG's text chunks (see `exiftool`) are a whole `Recipe`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from .. import __version__
from ..core.model import StableDiffusion
from ..errors import Doubt, InputError, because, remark
from ..settings import NAMES, Settings
from . import files
from .pictures import checked, open_picture

MASK = "sha256:"  # before a given mask's fingerprint, among the settings
# what a result was made with, by name: its type
KINDS = dict(model=str, model_hash=str, device=str, dtype=str, threads=int, torch=str, version=str)
TENSORS = "tensors:"  # before a model's hash, which is of its tensors
PIECES, PIECE = 4, 1024  # how much of each tensor is hashed: so many pieces of so many bytes


def model_hash(model: StableDiffusion) -> str:
    """The sha256 of a sample of a model's tensors, "tensors:" and 64 digits, in 25 ms: of the files
    as loaded, so the same in any precision; or of the tensors in use, if they were changed."""
    of_files, as_loaded = model.digests
    in_use = hash_of_tensors((model.unet, model.vae, model.text_encoder))
    return of_files if in_use == as_loaded else in_use


def hash_of_files(paths: Iterable[Path]) -> str:
    """Hashes a sample of each tensor in a checkpoint's files, and the tokenizer's files whole."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(b"\n")
        if path.suffix != ".safetensors":
            digest.update(files.sha256(path).encode())
            continue
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                kind = file.get_slice(name).get_dtype()
                digest.update(_sample(name, kind, file.get_tensor(name)))
    return TENSORS + digest.hexdigest()


def hash_of_tensors(networks: Iterable[nn.Module]) -> str:
    """Hashes a sample of each tensor of the networks, as it is in memory, compiled or not."""
    tensors = (item for network in networks for item in network.state_dict().items())
    # torch.compile adds to the names where it has wrapped a module
    samples = (_sample(k.replace("_orig_mod.", ""), str(t.dtype), t) for k, t in tensors)
    return TENSORS + hashlib.sha256(b"".join(samples)).hexdigest()


def _sample(name: str, kind: str, tensor: Tensor) -> bytes:
    """A tensor's name, type and shape, and at most 4 kB of its bytes. Training moves nearly every
    number of a tensor, so a sample tells two fine-tunes apart. Of CLIP's table of tokens only the
    rows in use learn; the last piece holds every prompt's two ends."""
    data = tensor.reshape(-1).view(torch.uint8)
    last = len(data) - PIECE  # where the last piece begins
    if last > (PIECES - 1) * PIECE:
        starts = (last * i // (PIECES - 1) for i in range(PIECES))
        data = torch.cat([data[start : start + PIECE] for start in starts])
    return json.dumps([name, kind, list(tensor.shape)]).encode() + data.cpu().numpy().tobytes()


def made_with(model: StableDiffusion) -> dict[str, Any]:
    """The model and all else that a result's bytes depend on; `KINDS` has the types."""
    networks = model.name, model_hash(model), model.device.type, str(model.dtype).split(".")[-1]
    code = torch.get_num_threads(), torch.__version__, __version__
    return dict(zip(KINDS, networks + code, strict=True))


def check_same(what: str, recorded: dict[str, Any], model: StableDiffusion) -> None:
    """Refuses another model, by its hash, with InputError; doubts whatever else is not the same."""
    now = made_with(model)
    if recorded["model_hash"] != now["model_hash"]:
        both = [(by["model"], by["model_hash"].removeprefix(TENSORS)) for by in (recorded, now)]
        was, given = (f"{name} (sha256 {digits[:12]}…)" for name, digits in both)
        raise InputError(f"{what} was made with another model, {was}, not {given}; give that one")
    if names := [name for name in now if name != "model" and recorded[name] != now[name]]:
        differ = ", ".join(f"{name} {recorded[name]}, now {now[name]}" for name in names)
        remark(f"{what} was made with {differ}: the bytes may differ", Doubt)


def fingerprint(image: Image.Image) -> str:
    """The sha256 of what a picture shows, whatever file it came from."""
    rgb = checked(image)
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """The command and inputs that a picture was made by and from."""

    command: str  # edit, reconstruct or generate
    prompt: str
    method: str
    settings: Settings  # as read, with an empty mask in the place of a given one
    made_with: dict[str, Any]
    picture_hash: str = ""  # of what was edited
    mask_hash: str = ""  # as read: of the mask that was given

    def chunks(self) -> dict[str, str]:
        """The record as texts by name; the settings are one of them, in JSON, without the seed."""
        settings = {name: getattr(self.settings, name) for name in NAMES if name != "seed"}
        if isinstance(self.settings.mask, Image.Image):
            settings["mask"] = MASK + fingerprint(self.settings.mask)
        told, seed = json.dumps(settings, ensure_ascii=False), str(self.settings.seed)
        made = dict(Software=f"ptinv {__version__}", command=self.command, prompt=self.prompt)
        made |= dict(method=self.method, settings=told, seed=seed, picture_hash=self.picture_hash)
        return made | {name: str(value) for name, value in self.made_with.items()}

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        """Reads a PNG's record. Raises InputError if it has none, or a damaged one."""
        text = open_picture(path, lambda image: dict(getattr(image, "text", {})))  # a PNG's chunks
        if not text.get("Software", "").startswith("ptinv "):
            why = "only PNGs written by ptinv do (JPEG and WebP cannot, and some programs drop "
            raise InputError(f"{path} doesn't say how it was made; {why}a PNG's text chunks)")
        try:
            recorded = {name: kind(text[name]) for name, kind in KINDS.items()}
            settings = files.parse(text["settings"])
            by_hash = str(settings.get("mask")).startswith(MASK)
            mask_hash = settings["mask"].removeprefix(MASK) if by_hash else ""
            settings |= {"mask": Image.new("L", (1, 1))} if by_hash else {}
            settings = Settings(**settings, seed=int(text["seed"]))
            if text["command"] not in ("edit", "reconstruct", "generate"):
                raise InputError(f"the command is {text['command']!r}")
            kept = {name: text[name] for name in ("command", "prompt", "method", "picture_hash")}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            wrong = f"its record of how it was made is damaged{because(error)}; make the edit anew"
            raise InputError(f"{path}: {wrong}") from error
        return cls(**kept, settings=settings, made_with=recorded, mask_hash=mask_hash)
