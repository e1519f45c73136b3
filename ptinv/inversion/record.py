"""What an inversion leaves behind: a trajectory, the tuned embeddings, and how they came about.

The file is one safetensors: the tensors, and the rest as JSON in its metadata. Nothing in it is
code, so opening a stranger's is safe; whatever is in it is checked before it is used.
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

from .. import ddim, files, images
from ..errors import InputError
from ..model import StableDiffusion
from ..provenance import check_recorded, check_same
from ..settings import OF_AN_INVERSION, Settings, check_prompt, check_text
from ..text import LENGTH

SUFFIX = ".safetensors"
KINDS = {torch.uint8: "U8", torch.float32: "F32"}  # as safetensors calls them
LAYOUT = {  # each tensor's type, axes, and the first one's length for T' steps
    "pixels": (torch.uint8, 3, lambda steps: 3),
    "trajectory": (torch.float32, 4, lambda steps: steps + 1),
    "embeddings": (torch.float32, 3, lambda steps: steps),
    "losses": (torch.float32, 1, lambda steps: steps),
    "residuals": (torch.float32, 4, lambda steps: steps),
}
EXTRAS = ("embeddings", "losses", "residuals")  # which depend on a prompt, and on the method


@dataclass(frozen=True)
class Inversion:
    """A picture's way into noise, and what leads back.

    The unconditional trajectory doesn't depend on a prompt; tuned embeddings do.
    """

    pixels: Tensor  # (3, H, W) bytes: the picture as it was given, in its own size
    trajectory: Tensor  # (T'+1, c, h, w): z*_0 … z*_T', scaled latents
    settings: dict[str, Any]  # the method, the prompt, and every setting that shaped the tensors
    embeddings: Tensor | None = None  # (T', 77, d): c_1 … c_T', where a method tunes them
    losses: Tensor | None = None  # (T',): how far from the trajectory each tuned step lands
    residuals: Tensor | None = None  # (T', c, h, w): what each step misses the trajectory by
    made_with: dict[str, Any] = field(default_factory=dict)  # see `provenance.made_with`

    @property
    def picture(self) -> Image.Image:
        """The picture that was inverted."""
        return Image.fromarray(rearrange(self.pixels, "c h w -> h w c").numpy())

    @property
    def rungs(self) -> list[ddim.Rung]:
        """The steps between the trajectory's latents, clean end first."""
        return ddim.ladder(self.settings["steps"], self.settings["encode_ratio"])

    @property
    def made_by(self) -> Settings:
        """The settings that its tensors were made by."""
        return _settings(self.settings)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by name."""
        named = {name: getattr(self, name) for name in LAYOUT}
        return {name: t.cpu().contiguous() for name, t in named.items() if t is not None}

    @property
    def extras(self) -> set[str]:
        """The names of those tensors that it has besides a trajectory."""
        return set(EXTRAS) & self.tensors.keys()

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """What a walk takes, with an axis for the batch: (T' or T'+1, 1, …)."""
        names = self.tensors.keys() - {"pixels", "losses"}
        return {name: getattr(self, name).to(device)[:, None] for name in names}

    @property
    def digest(self) -> str:
        """The sha256 of everything in it."""
        digest = hashlib.sha256(
            json.dumps([self.settings, self.made_with], default=_plain).encode()
        )
        for name, tensor in self.tensors.items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def check_fits(self, model: StableDiffusion) -> None:
        """Raises InputError if it was made with another model, or its shapes are not the model's.

        Logs what else its last bits depend on and is not the same any more.
        """
        check_same("the inversion", self.made_with, model)
        width, height = model.picture_size(self.picture.size)
        side, config = model.pixels_per_cell, model.unet.config
        latent = (config.latent_channels, height // side, width // side)
        context = (LENGTH, config.context_channels)
        wanted = {"trajectory": latent, "embeddings": context, "residuals": latent}
        if any(tensor[0, 0].shape != wanted[name] for name, tensor in self.on("cpu").items()):
            raise InputError("the inversion's shapes are not the model's; invert the picture anew")

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file; an existing one is only replaced by a complete one.

        Raises OSError where it cannot be written, InputError if its method has no name to write.
        """
        about = {"settings": self.settings, "made_with": self.made_with, "sha256": self.digest}
        try:
            with files.replacing(path) as part:
                metadata = {"ptinv": json.dumps(about, default=_plain)}
                save_file(self.tensors, part, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {path} ({error})") from error

    @classmethod
    def load(cls, path: str | Path) -> "Inversion":
        """Reads what `save` wrote. Raises InputError for any other file, and for an altered one."""
        try:
            files.check_file(path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["ptinv"])
                _check_settings(about["settings"])
                check_recorded(about["made_with"])
                _check_shapes(file, about["settings"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            inversion = cls(**tensors, settings=about["settings"], made_with=about["made_with"])
            images.check_size(*inversion.picture.size)
            if not all(t.isfinite().all() for t in inversion.tensors.values()):
                raise InputError("it holds NaN or infinity")
            if inversion.digest != about["sha256"]:
                raise InputError("something in it was altered")
            return inversion
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is not a whole inversion saved by ptinv ({error}); invert the picture anew"
            ) from error


def is_inversion(path: str | Path) -> bool:
    """Whether a file is a safetensors, and so no picture, by its name or by how it begins."""
    if Path(path).suffix.lower() == SUFFIX:
        return True
    try:
        with open(path, "rb") as file:
            length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
            return brace == b"{" and length < Path(path).stat().st_size
    except OSError:
        return False


def pixels_of(image: Image.Image) -> Tensor:
    """An RGB picture's bytes, (3, H, W)."""
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").contiguous()


def _settings(stored: dict[str, Any]) -> Settings:
    return Settings(**{name: stored[name] for name in OF_AN_INVERSION})


def _check_settings(settings: dict[str, Any]) -> None:
    """Raises InputError, TypeError or KeyError unless the settings are whole and in range."""
    _settings(settings)
    check_text("the method", settings["method"])
    if settings["prompt"] is not None:
        check_prompt(settings["prompt"])
    if unknown := settings.keys() - {"method", "prompt", *OF_AN_INVERSION}:
        raise InputError(f"it has unknown settings: {', '.join(sorted(unknown))}")


def _check_shapes(file: safe_open, settings: dict[str, Any]) -> None:
    """Raises InputError unless the tensors are those of `LAYOUT`; reads none of them."""
    names = set(file.keys())
    if not {"pixels", "trajectory"} <= names <= LAYOUT.keys():
        raise InputError(f"its tensors are {', '.join(sorted(names))}")
    steps = len(ddim.ladder(settings["steps"], settings["encode_ratio"]))
    for name in names:
        dtype, axes, length = LAYOUT[name]
        shape, kind = file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()
        if len(shape) != axes or shape[0] != length(steps) or kind != KINDS[dtype]:
            raise InputError(f"{name} is {kind} {shape}, which {steps} steps don't make")


def _plain(number: Any) -> Any:
    """NumPy's numbers as Python's, which JSON can hold. InputError for a method that's a row."""
    if not hasattr(number, "item"):
        raise InputError("the method has no name to save; give it one in methods.METHODS")
    return number.item()
