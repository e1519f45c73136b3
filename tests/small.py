"""A whole Stable Diffusion that was never trained, small enough to answer in milliseconds.

It is written in diffusers' layout and opened like any other. Its weights are drawn from a fixed
seed; the prompt's share of them is turned up, so that guidance and tuning have something to move.
"""

from pathlib import Path

import torch
from PIL import Image
from world import folder, scenes, tiny, tokenizer

from ptinv.core.pictures import to_tensor
from ptinv.core.text import TextEncoder
from ptinv.core.unet import UNet, UNetConfig
from ptinv.core.vae import VAE, VAEConfig

PROMPT = "a yellow car on the grass"
OTHER_PROMPT = "a red boat on the sea"
VAE_TABLE = VAEConfig(channels=(8, 16), layers=1, groups=4)
UNET_TABLE = UNetConfig(
    channels=(16, 32),
    attends=(False, True),
    layers=1,
    heads=2,
    context_channels=tiny.UNET_TABLE.context_channels,
    groups=8,
    trained_size=16,
)
LOUDNESS = 3


def draw_picture() -> Image.Image:
    """A scene of 48 × 32 pixels: neither the size nor the shape that the model works in."""
    scene = scenes.random_scene(scenes.split_rng("test", 0, 0))
    return scenes.draw(scene).resize((48, 32))


@torch.no_grad()
def write_model(out: Path) -> None:
    """Writes the model's folder."""
    torch.manual_seed(0)
    tokens = tokenizer.write_tokenizer(out / "tokenizer")
    vae, unet = VAE(VAE_TABLE), UNet(UNET_TABLE)
    text_encoder = TextEncoder(tiny.text_table(len(tokens)))
    for name, weight in unet.named_parameters():
        if "attn2.to_" in name:
            weight *= LOUDNESS
    tokenizer.silence_pieces(text_encoder, tokens)
    mean, _ = vae.encode(to_tensor(draw_picture()))
    folder.write_folder(out, vae, unet, text_encoder, 1 / mean.std().item())
