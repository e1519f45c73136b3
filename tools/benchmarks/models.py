"""Models of random weights in sd-v1-4's size: neither speed nor memory depends on the values."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import ptinv
from ptinv.core import model as core
from ptinv.core.text import Tokenizer
from ptinv.storage.checkpoint import EMBEDDED, precision
from ptinv.storage.layouts import SD_V1

from .measure import check_device


class Which(NamedTuple):
    """Which model is opened; a process of its own can be told it."""

    model: str | None  # a folder or file; None: the embedded one
    random: bool  # of sd-v1-4's size instead, without a file
    device: str
    dtype: str
    size: int | None = None  # of the latents' side; None: the model's own
    tokenizer: Path | None = None

    def open(self) -> core.StableDiffusion:
        """The model. Raises as `ptinv.load`."""
        check_device(self.device)
        if self.random:
            dtype = precision(self.dtype, torch.device(self.device))
            model = random_model(self.device, dtype, self.tokenizer or EMBEDDED / "tokenizer")
        else:
            model = ptinv.load(self.model, self.device, self.dtype, self.tokenizer)
        if self.size:  # no layer depends on it: it is the size that pictures are brought to
            model.unet.config = replace(model.unet.config, trained_size=self.size)
        return model


def random_model(device: str, dtype: torch.dtype, tokenizer: Path) -> core.StableDiffusion:
    """A whole model of sd-v1-4's size, made on the device and in a moment where that is a GPU.

    tokenizer: a folder; its words are all that the model has learned.
    """
    torch.manual_seed(0)
    parts = core.networks(SD_V1)
    for network in parts.values():
        weights = random_weights(network, device, dtype)
        core.fill(network, weights.items(), torch.device(device), dtype)
    return core.StableDiffusion(
        **parts,
        tokenizer=Tokenizer(tokenizer),
        latent_scale=SD_V1.latent_scale,
        device=torch.device(device),
        dtype=dtype,
        name="random",
    )


def random_weights(network: nn.Module, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights for a network, by name, that keep its activations about 1."""
    state = network.state_dict().items()
    weights = {name: torch.empty_like(w, device=device, dtype=dtype) for name, w in state}
    for name, weight in weights.items():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.fill_(name.endswith("weight"))  # of a norm; else it is a bias
    return weights
