"""Stable Diffusion as the method sees it: ENC, DEC, τ_θ and ε_θ behind four verbs.

`StableDiffusion` turns pictures into latents and back, prompts into embeddings, and a noisy latent
into a prediction of its noise; all of these are float32 whatever the precision of the networks.
`load` fills the networks from a diffusers folder, as sd-v1-4 comes in. For single files, and a
sentence for everything that can be wrong with a checkpoint, see `storage/checkpoint.py`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .attention import Control
from .pictures import Picture, fit, resize, to_picture, to_rgb, to_tensor
from .text import TextEncoder, Tokenizer
from .unet import UNet, UNetConfig
from .vae import VAE, VAEConfig

FILE = "diffusion_pytorch_model.safetensors"
WEIGHTS = {"unet": FILE, "vae": FILE, "text_encoder": "model.safetensors"}  # also the subfolders
Named = Iterable[tuple[str, Tensor]]
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
TEXT_KEYS = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads".split()
TEXT_KEYS += "max_position_embeddings hidden_act bos_token_id eos_token_id pad_token_id".split()


@dataclass(frozen=True)
class StableDiffusion:
    """The three networks, frozen, and what it takes to use them."""

    unet: UNet = field(repr=False)
    vae: VAE = field(repr=False)
    text_encoder: TextEncoder = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    latent_scale: float  # makes the latents' variance about 1, the noise's, as the UNet was trained
    device: torch.device
    dtype: torch.dtype  # of the stored weights, and of autocast
    name: str = ""
    files: tuple[Path, ...] = field(default=(), repr=False)  # the weights and the tokenizer
    digests: tuple[str, str] = field(default=("", ""), repr=False)  # of the tensors, as loaded
    checkpointing: bool = field(default=False, repr=False)  # less memory for gradients, more time
    area: int = field(default=0, repr=False)  # of pictures, in pixels; 0: as the UNet was trained

    @property
    def pixels_per_cell(self) -> int:
        """Pixels of the picture along one side of one cell of the latent: 8 for SD v1."""
        return 2 ** (len(self.vae.config.channels) - 1)

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) to edit a size at: about the model's area, in what the UNet can halve."""
        trained = (self.unet.config.trained_size * self.pixels_per_cell) ** 2
        multiple = self.pixels_per_cell * 2 ** (len(self.unet.config.channels) - 1)
        return fit(size, self.area or trained, multiple)

    def sized(self, size: tuple[int, int] | None) -> "StableDiffusion":
        """The same, for pictures of the area of a (width, height); None: as it is."""
        return replace(self, area=size[0] * size[1]) if size else self

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the latent of a picture of the given (width, height)."""
        width, height = self.picture_size(size)
        return height // self.pixels_per_cell, width // self.pixels_per_cell

    def autocast(self) -> torch.autocast:
        """Runs the networks in their own precision; which sums stay in float32 is PyTorch's."""
        reduced = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype if reduced else None, enabled=reduced)

    @torch.no_grad()
    def embed(self, prompts: str | list[str]) -> Tensor:
        """τ_θ: prompts -> embeddings (b, 77, d)."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        with self.autocast():
            return self.text_encoder(self.tokenizer.ids(prompts).to(self.device)).float()

    @torch.no_grad()
    def encode(self, picture: Picture | Sequence[Picture]) -> Tensor:
        """ENC: a picture of any size, or several of one -> z_0 (b, c, h, w), the posterior mean."""
        several = picture if isinstance(picture, list | tuple) else [picture]
        fitted = [resize(rgb, self.picture_size(rgb.size)) for rgb in map(to_rgb, several)]
        with self.autocast():
            mean, _ = self.vae.encode(torch.cat(list(map(to_tensor, fitted))).to(self.device))
        return mean.float() * self.latent_scale

    @torch.no_grad()
    def decode(self, z0: Tensor | Sequence[Tensor]) -> Any:
        """DEC: z_0 (1, c, h, w) -> a picture; a list of them, or a batch of several, -> a list.
        Raises FloatingPointError if z_0 is not finite."""
        one = isinstance(z0, Tensor) and len(z0) == 1
        latents = z0 if isinstance(z0, Tensor) else torch.cat(list(z0))
        with self.autocast():
            x = self.vae.decode(latents.to(self.device) / self.latent_scale)
        pictures = [to_picture(row) for row in x.float().cpu().split(1)]
        return pictures[0] if one else pictures

    def predict_noise(
        self, z: Tensor, t: int | Tensor, context: Tensor, control: Control | None = None
    ) -> Tensor:
        """ε_θ(z_t, t, c) in float32; t may be one a row, (b,). Gradients flow to z and context."""
        t = torch.as_tensor(t, device=z.device).reshape(-1)  # a number would be compiled in
        with self.autocast():
            return self.unet(z, t, context, control, self.checkpointing).float()


@torch.inference_mode(False)  # weights of the other kind would take no part in gradients
def load(
    folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> StableDiffusion:
    """Opens a Stable Diffusion v1 in the layout of diffusers, strictly, tensor by tensor.

    Raises KeyError for a configuration that lacks a key, OSError for a missing file, and as `fill`.
    """
    folder, device = Path(folder), torch.device(device)
    tables = (json.loads((folder / part / "config.json").read_bytes()) for part in WEIGHTS)
    configs = configs_of(*tables)
    parts, files = networks(configs), [folder / part / WEIGHTS[part] for part in WEIGHTS]
    for network, path in zip(parts.values(), files, strict=True):
        with safe_open(path, framework="pt") as file:
            # sd-v1-4's text encoder also holds position_ids, the numbers 0 … 76: no weights
            names = (name for name in file.keys() if not name.endswith("position_ids"))
            tensors = ((respelt(name), file.get_tensor(name)) for name in names)
            fill(network, tensors, device, dtype)
    files += [folder / "tokenizer" / name for name in ("vocab.json", "merges.txt")]
    how: dict[str, Any] = dict(latent_scale=configs.latent_scale, device=device, dtype=dtype)
    how |= dict(name=folder.resolve().name, files=tuple(files))
    return StableDiffusion(**parts, tokenizer=Tokenizer(folder / "tokenizer"), **how)


def respelt(name: str) -> str:
    """A tensor's name as the networks spell it; sd-v1-4's VAE has an older one for attention."""
    return ".".join(OLD_ATTENTION.get(part, part) for part in name.split("."))


class Configs(NamedTuple):
    """The tables that the networks are built from."""

    unet: UNetConfig
    vae: VAEConfig
    text: dict
    latent_scale: float


def configs_of(unet: dict, vae: dict, text: dict) -> Configs:
    """Reads the three `config.json` of a folder; sd-v1-4's leave out what has a default here."""
    return Configs(
        UNetConfig(
            channels=tuple(unet["block_out_channels"]),
            attends=tuple(kind == "CrossAttnDownBlock2D" for kind in unet["down_block_types"]),
            layers=unet["layers_per_block"],
            heads=unet["attention_head_dim"],  # diffusers' name for their number, in v1 files
            context_channels=unet["cross_attention_dim"],
            groups=unet.get("norm_num_groups", 32),
            latent_channels=unet["in_channels"],
            trained_size=unet["sample_size"],
        ),
        VAEConfig(
            channels=tuple(vae["block_out_channels"]),
            layers=vae["layers_per_block"],
            groups=vae.get("norm_num_groups", 32),
            latent_channels=vae["latent_channels"],
        ),
        {key: text[key] for key in TEXT_KEYS if key in text},
        vae.get("scaling_factor", 0.18215),
    )


def networks(configs: Configs) -> dict[str, nn.Module]:
    """Builds the three networks on the meta device: names and shapes, without a number in them."""
    with torch.device("meta"):
        built = UNet(configs.unet), VAE(configs.vae), TextEncoder(configs.text)
    return dict(zip(WEIGHTS, built, strict=True))


def fill(network: nn.Module, tensors: Named, device: torch.device, dtype: torch.dtype) -> None:
    """Gives a network from `networks` its tensors, converted one by one as they come; freezes it.
    Raises RuntimeError naming the tensors that are missing, not the network's, or misshapen."""
    state = {name: tensor.to(device, dtype) for name, tensor in tensors}
    network.load_state_dict(state, strict=True, assign=True)
    network.to(device).eval().requires_grad_(False)
