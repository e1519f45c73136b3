"""An inversion: a trajectory, the tuned embeddings, and a record of how they were made.

The file is one safetensors: the tensors, without the batch axis that they have in memory, and the
rest as JSON in its metadata. Nothing in it is code, and all of it is checked before it is used.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core import ddim
from ..core.model import StableDiffusion
from ..core.text import LENGTH
from ..errors import InputError, because
from ..settings import LATER, OF_AN_INVERSION, Settings, check_prompt, check_text
from . import files
from .pictures import check_size
from .provenance import KINDS, check_same

SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class Inversion:
    """A picture's way into noise, and what leads back; b, the batch, is 1 for one picture. The
    unconditional trajectory doesn't depend on a prompt; tuned embeddings do."""

    pixels: Tensor  # (3, H, W) bytes: the picture as it was given, in its own size
    trajectory: Tensor  # (T'+1, b, c, h, w): z*_0 … z*_T', scaled latents
    settings: dict[str, Any]  # the method, the prompt, and every setting that shaped the tensors
    extras: dict[str, Tensor] = field(default_factory=dict)  # whatever else the method made
    made_with: dict[str, Any] = field(default_factory=dict)  # see `provenance.made_with`

    @property
    def embeddings(self) -> Tensor | None:
        """(T', b, 77, d): c_1 … c_T', where a method tunes them."""
        return self.extras.get("embeddings")

    @property
    def losses(self) -> Tensor | None:
        """(T', b): how far from the trajectory each tuned step lands, mean squared."""
        return self.extras.get("losses")

    def __repr__(self) -> str:
        made = {name: list(tensor.shape) for name, tensor in self.extras.items()}
        width, height = self.picture.size
        return f"Inversion({width}x{height}, {self.settings}, extras={made})"

    @property
    def picture(self) -> Image.Image:
        """The picture that was inverted."""
        return Image.fromarray(rearrange(self.pixels, "c h w -> h w c").numpy())

    @property
    def schedule(self) -> list[ddim.Timestep]:
        """The steps between the trajectory's latents, clean end first."""
        return ddim.schedule(self.settings["steps"], self.settings["encode_ratio"])

    @property
    def made_by(self) -> Settings:
        """The settings that its tensors were made by."""
        return Settings(**{n: v for n, v in self.settings.items() if n in OF_AN_INVERSION})

    @property
    def stored(self) -> dict[str, Tensor]:
        """The tensors as in its file, on the CPU and unbatched. Raises InputError for several."""
        tensors = {"pixels": self.pixels}
        for name, tensor in [("trajectory", self.trajectory), *sorted(self.extras.items())]:
            if (batch := tensor.shape[1]) != 1:
                raise InputError(f"an inversion's file holds one picture, not a batch of {batch}")
            tensors[name] = tensor[:, 0]
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    @property
    def digest(self) -> str:
        """The sha256 of everything in it. Raises InputError as `stored`."""
        about = json.dumps([self.settings, self.made_with], default=_plain)
        digest = hashlib.sha256(about.encode())
        for name, tensor in self.stored.items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def check_fits(self, model: StableDiffusion) -> None:
        """Raises InputError if it was made with another model, or its shapes are not the model's.
        Doubts what else its last bits depend on and is not the same any more."""
        check_same("the inversion", self.made_with, model)
        config = model.unet.config
        size = model.sized(self.made_by.size).latent_size(self.picture.size)
        latent = (config.latent_channels, *size)
        embedding = (LENGTH, config.context_channels)
        wanted = {"embeddings": embedding, "residuals": latent, "trajectory": latent}
        tensors = self.extras | {"trajectory": self.trajectory}
        if any(tensors[name].shape[2:] != wanted[name] for name in wanted.keys() & tensors.keys()):
            raise InputError("the inversion's shapes are not the model's; invert the picture anew")

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file; an existing one is only replaced by a complete one. Raises
        InputError where it cannot be written, and if it holds a batch of several."""
        about = {"settings": self.settings, "made_with": self.made_with, "sha256": self.digest}
        with files.replacing(path) as part:
            save_file(self.stored, part, {"ptinv": json.dumps(about, default=_plain)})

    @classmethod
    def load(cls, path: str | Path) -> "Inversion":
        """Reads what `save` wrote. Raises InputError for any other file, and for an altered one."""
        files.check_file(path)
        try:
            with safe_open(path, framework="pt") as file:
                about = files.parse((file.metadata() or {})["ptinv"])
                _check(file, about["settings"])
                if {n: type(v) for n, v in about["made_with"].items()} != KINDS:
                    raise InputError("what it was made with is missing or damaged")
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            pixels = tensors.pop("pixels")
            extras = {name: tensor[:, None] for name, tensor in tensors.items()}
            trajectory = extras.pop("trajectory")
            inversion = cls(pixels, trajectory, about["settings"], extras, about["made_with"])
            check_size(*inversion.picture.size)
            if not all(tensor.isfinite().all() for tensor in tensors.values()):
                raise InputError("it holds NaN or infinity")
            if inversion.digest != about["sha256"]:
                raise InputError("something in it was altered")
            return inversion
        except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            wrong = f"is not a whole inversion saved by ptinv{because(error)}; invert anew"
            raise InputError(f"{path} {wrong}") from error


def pixels_of(image: Image.Image) -> Tensor:
    """An RGB picture's bytes, (3, H, W)."""
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").contiguous()


def _check(file: safe_open, settings: dict[str, Any]) -> None:
    """Raises InputError, TypeError or KeyError unless settings and header fit; reads no tensor."""
    Settings(**{n: settings[n] for n in OF_AN_INVERSION if n not in LATER or n in settings})
    method, unnamed = settings["method"], isinstance(settings["method"], list)
    if unnamed:  # the stages of one without a name; it may have no second
        trajectory, extra = method
        method = trajectory + (extra or "")
    check_text("the method", method)
    if settings["prompt"] is not None:
        check_prompt(settings["prompt"])
    if unknown := settings.keys() - {"method", "prompt", *OF_AN_INVERSION}:
        raise InputError(f"it has unknown settings: {', '.join(sorted(unknown))}")
    steps = len(ddim.schedule(settings["steps"], settings["encode_ratio"]))
    # the type of each, the number of its axes, and the length of the first
    layout = dict(pixels=("U8", 3, 3), trajectory=("F32", 4, steps + 1), losses=("F32", 1, steps))
    layout |= dict(embeddings=("F32", 3, steps), residuals=("F32", 4, steps))
    names = set(file.keys())
    if not {"pixels", "trajectory"} <= names or not (unnamed or names <= layout.keys()):
        raise InputError(f"its tensors are {', '.join(sorted(names))}")
    for name in names:
        stored = file.get_slice(name)
        kind, shape = stored.get_dtype(), stored.get_shape()
        own = "F32", len(shape), steps  # of a stage of somebody's own
        if (kind, len(shape), *shape[:1]) != layout.get(name, own):
            raise InputError(f"{name} is {kind} {shape}, which {steps} steps don't make")


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, and a method without a name as its stages, for JSON."""
    return value.stages if hasattr(value, "stages") else value.item()
