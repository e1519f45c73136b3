"""Stable Diffusion as the maths sees it: ENC, DEC, τ_θ and ε_θ behind four verbs.

`load` opens a checkpoint; `StableDiffusion` turns pictures into latents and back, prompts into
contexts, and a noisy latent into a prediction of its noise. Latents, contexts and predictions are
float32 whatever the precision of the networks.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import files, images
from .attention import Control
from .checkpoint import open_checkpoint
from .errors import InputError
from .tensors import CheckpointError, fill
from .text import LENGTH, TextEncoder, Tokenizer
from .unet import UNet
from .vae import VAE

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, repr=False)  # the networks' would fill pages
class StableDiffusion:
    """The three networks, frozen, and what it takes to use them."""

    unet: UNet
    vae: VAE
    text_encoder: TextEncoder
    tokenizer: Tokenizer
    latent_scale: float  # makes the latents' variance about 1, as the UNet was trained
    device: torch.device
    dtype: torch.dtype  # of the stored weights, and of autocast
    name: str
    files: tuple[Path, ...]  # the weights and the tokenizer

    @cached_property
    def hash(self) -> str:
        """The sha256 of the checkpoint's files, so of the same weights in whatever precision.

        Asked for the first time it reads them all: about 4 s for the 4 GB of SD v1, or what the
        disk needs. A folder's fp16 files are other weights.
        """
        return files.content_hash(self.files)

    @property
    def pixels_per_cell(self) -> int:
        """Pixels of the picture along one side of one cell of the latent: 8 for SD v1."""
        return 2 ** (len(self.vae.config.channels) - 1)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) at which a picture of the given size is edited.

        About the area that the model was trained on, in multiples of what the UNet can halve.
        """
        trained = self.unet.config.trained_size * self.pixels_per_cell
        multiple = self.pixels_per_cell * 2 ** (len(self.unet.config.channels) - 1)
        return images.fit(size, trained**2, multiple)

    def autocast(self) -> torch.autocast:
        """Runs the networks in their own precision; which sums stay in float32 is PyTorch's."""
        reduced = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype if reduced else None, enabled=reduced)

    @torch.no_grad()
    def embed(self, prompts: str | list[str]) -> Tensor:
        """τ_θ: prompts -> contexts (b, 77, d)."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        with self.autocast():
            return self.text_encoder(self.tokenizer.ids(prompts).to(self.device)).float()

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of which the model has learned nothing: the embedding of a token of theirs is 0."""
        table = self.text_encoder.text_model.embeddings.token_embedding.weight
        ids = self.tokenizer.clip(prompt, verbose=False)["input_ids"]
        learned = table[torch.tensor(ids, device=self.device)].ne(0).any(dim=-1).tolist()
        return [
            word.text
            for word in self.tokenizer.words(prompt)
            if word.text[:1].isalnum() and not all(learned[i] for i in word.positions)
        ]

    def warn_of_words(self, prompt: str) -> None:
        """Logs the words of a prompt that are cut off, and those that the model doesn't know."""
        if lost := self.tokenizer.lost(prompt):
            log.warning("the model reads %d tokens; cut off: %s", LENGTH, " ".join(lost))
        if unknown := dict.fromkeys(self.unknown_words(prompt)):
            log.warning("the model does not know: %s", ", ".join(unknown))

    @torch.no_grad()
    def encode(self, image: Image.Image) -> Tensor:
        """ENC: a picture of any size -> z_0 (1, c, h, w), the scaled mean of the posterior."""
        image = images.to_rgb(image)
        image = images.resize(image, self.picture_size(image.size))
        with self.autocast():
            mean, _ = self.vae.encode(images.to_tensor(image).to(self.device))
        return mean.float() * self.latent_scale

    @torch.no_grad()
    def decode(self, z0: Tensor) -> Image.Image:
        """DEC: z_0 (1, c, h, w) -> a picture. Raises FloatingPointError if z_0 is not finite."""
        with self.autocast():
            x = self.vae.decode(z0.to(self.device) / self.latent_scale)
        return images.to_picture(x.float().cpu())

    def predict_noise(
        self, z: Tensor, t: int, context: Tensor, control: Control | None = None
    ) -> Tensor:
        """ε_θ(z_t, t, c) in float32. Gradients flow to z and context where they are wanted."""
        with self.autocast():
            return self.unet(z, t, context, control).float()


def load(
    path: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | Path | None = None,
) -> StableDiffusion:
    """Opens a diffusers-layout folder or an original-layout `.safetensors` file.

    device: CUDA where there is one, else the CPU. dtype: how the weights are stored and run:
    float16 on CUDA, float32 on the CPU. tokenizer: its folder, if not beside the file.
    Raises CheckpointError for anything but a whole Stable Diffusion v1 checkpoint, InputError for a
    device or dtype that there isn't.
    """
    device = _device(device)
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    dtype = DTYPES.get(dtype, dtype)
    if dtype not in DTYPES.values():
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype}")
    checkpoint = open_checkpoint(path, tokenizer, half=dtype == torch.float16)
    try:
        with torch.device("meta"):
            networks = {
                "unet": UNet(checkpoint.unet),
                "vae": VAE(checkpoint.vae),
                "text_encoder": TextEncoder(checkpoint.text),
            }
    except Exception as error:  # a configuration of nonsense: every layer has its own complaint
        raise CheckpointError(f"{path}: its configuration makes no network ({error})") from error
    for name, network in networks.items():
        fill(network, checkpoint.tensors[name], device, dtype)
    networks["text_encoder"].reset_buffers(device)
    reader = Tokenizer(checkpoint.tokenizer)
    if len(reader.clip) > checkpoint.text["vocab_size"]:
        raise InputError(
            f"the tokenizer in {checkpoint.tokenizer} has {len(reader.clip)} tokens, but the text "
            f"encoder was trained on {checkpoint.text['vocab_size']}"
        )
    return StableDiffusion(
        **networks,
        tokenizer=reader,
        latent_scale=checkpoint.latent_scale,
        device=device,
        dtype=dtype,
        name=Path(path).resolve().name,
        files=tuple(checkpoint.files),
    )


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device of that name. Raises InputError if there is none here."""
    name = str(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"there is no device called {name!r}; use cuda or cpu") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"the device must be cuda or cpu, not {device}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use the cpu device")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    # torch keeps the lowest bits of a number that is too large
    if str(device) != name or (device.index or 0) >= count:
        last = f"{device.type}:{count - 1}"
        raise InputError(f"there is no device {name}; the last of its kind is {last}")
    return device
