"""What an inversion leaves behind: a trajectory, the tuned embeddings, and how they came about.

The file is one safetensors: the tensors, and the rest as JSON in its metadata. Nothing in it is
code, so opening a stranger's is safe.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .. import ddim
from ..errors import InputError


@dataclass(frozen=True)
class Inversion:
    """A picture's way into noise, and the embeddings that lead back.

    The unconditional trajectory doesn't depend on a prompt; the tuned embeddings do.
    """

    pixels: Tensor  # (3, H, W) bytes: the picture as it was given, in its own size
    trajectory: Tensor  # (T'+1, c, h, w): z*_0 … z*_T', scaled latents
    settings: dict  # the model's name, the prompt, and every setting that shaped the tensors
    embeddings: Tensor | None = None  # (T', 77, d): c_1 … c_T', where a method tunes them
    losses: Tensor | None = None  # (T',): how far from the trajectory each tuned step lands

    @property
    def picture(self) -> Image.Image:
        """The picture that was inverted."""
        return Image.fromarray(rearrange(self.pixels, "c h w -> h w c").numpy())

    @property
    def rungs(self) -> list[ddim.Rung]:
        """The steps between the trajectory's latents, clean end first."""
        return ddim.ladder(self.settings["steps"], self.settings["encode_ratio"])

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file; an existing one is only replaced by a complete one.

        Raises OSError where it cannot be written.
        """
        tensors = {
            name: value.cpu().contiguous()
            for name in ("pixels", "trajectory", "embeddings", "losses")
            if (value := getattr(self, name)) is not None
        }
        partial = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.partial")
        try:
            save_file(tensors, partial, metadata={"ptinv": json.dumps(self.settings)})
            os.replace(partial, path)
        except SafetensorError as error:
            raise OSError(f"cannot write {path} ({error})") from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> "Inversion":
        """Reads what `save` wrote. Raises InputError for any other file."""
        try:
            with safe_open(path, framework="pt") as file:
                settings = json.loads((file.metadata() or {})["ptinv"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
                settings["steps"], settings["encode_ratio"]  # what the trajectory is walked with
                return cls(settings=settings, **tensors)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a whole inversion saved by ptinv") from error


def pixels_of(image: Image.Image) -> Tensor:
    """An RGB picture's bytes, (3, H, W)."""
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").contiguous()
