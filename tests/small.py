"""A whole Stable Diffusion that was never trained, small enough to answer in milliseconds.

It is written in diffusers' layout and opened like any other. Its weights are drawn from a fixed
seed; the prompt's share of them is turned up, so that guidance and tuning have something to move.
"""

from pathlib import Path

import scenes
import torch
import train_tiny
from PIL import Image

from ptinv.images import to_tensor
from ptinv.text import TextEncoder
from ptinv.unet import UNet, UNetConfig
from ptinv.vae import VAE, VAEConfig

PROMPT = "a yellow car on the grass"
OTHER_PROMPT = "a red boat on the sea"
VAE_TABLE = VAEConfig(channels=(8, 16), layers=1, groups=4)
UNET_TABLE = UNetConfig(
    channels=(16, 32),
    attends=(False, True),
    layers=1,
    heads=2,
    context_channels=train_tiny.UNET_TABLE.context_channels,
    groups=8,
    trained_size=16,
)
LOUDNESS = 3


def draw_picture() -> Image.Image:
    """A scene of 48 × 32 pixels: neither the size nor the shape that the model works in."""
    scene = scenes.random_scene(scenes.split_rng("test", 0, 0))
    return scenes.draw(scene).resize((48, 32))


@torch.no_grad()
def write_model(folder: Path) -> None:
    torch.manual_seed(0)
    tokens = train_tiny.write_tokenizer(folder / "tokenizer")
    vae, unet = VAE(VAE_TABLE), UNet(UNET_TABLE)
    text_encoder = TextEncoder(train_tiny.text_table(len(tokens)))
    for name, weight in unet.named_parameters():
        if "attn2.to_" in name:
            weight *= LOUDNESS
    train_tiny.silence_pieces(text_encoder, tokens)
    mean, _ = vae.encode(to_tensor(draw_picture()))
    train_tiny.write_folder(folder, vae, unet, text_encoder, 1 / mean.std().item())
