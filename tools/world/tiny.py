"""The embedded model: its three networks' tables, and how each learns the world of the scenes.

It is trained through ptinv's own networks, as Stable Diffusion was: ε-prediction on the latents of
captioned pictures, a tenth of the captions empty so that guidance has something to push away from,
and an average of the weights kept for sampling. One thing differs for the sake of inversion, which
evaluates ε a step off: the noise that the network sees is not quite the noise to predict.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from world import scenes
from world.tokenizer import silence_pieces
from world.trainer import fit, to_float

from ptinv.core import ddim
from ptinv.core.model import StableDiffusion
from ptinv.core.text import TextEncoder, Tokenizer
from ptinv.core.unet import UNet, UNetConfig
from ptinv.core.vae import VAE, VAEConfig

VAE_TABLE = VAEConfig(channels=(32, 64, 128), layers=1, groups=8)
UNET_TABLE = UNetConfig(
    channels=(64, 128, 192),
    attends=(False, True, True),
    layers=1,
    heads=4,
    context_channels=128,
    groups=16,
    trained_size=32,
)
EMPTY = 0.1  # the share of captions that are left out


def text_table(vocab_size: int) -> dict:
    """The text encoder's configuration: CLIP's, two layers deep and 128 wide."""
    return dict(
        vocab_size=vocab_size,
        hidden_size=UNET_TABLE.context_channels,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )


def train_vae(start: StableDiffusion | None, args: argparse.Namespace) -> VAE:
    """L1 and L2 to the picture, and a slight pull of the latents towards a unit Gaussian."""
    vae = VAE(VAE_TABLE)
    if start:
        vae.load_state_dict(start.vae.state_dict())
    pixels = torch.from_numpy(scenes.many("train", args.seed, args.vae_pictures, scenes.caption)[0])

    def loss_at(step: int) -> Tensor:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        rows = torch.randint(len(pixels), (24,), generator=g)
        corners = torch.randint(65, (24, 2), generator=g).tolist()
        crops = [
            pixels[row, :, y : y + 64, x : x + 64]
            for row, (y, x) in zip(rows, corners, strict=True)
        ]
        x = to_float(torch.stack(crops)).to(args.device, memory_format=torch.channels_last)
        mean, logvar = vae.encode(x)
        noise = torch.randn(mean.shape, generator=g).to(args.device)
        y = vae.decode(mean + (0.5 * logvar).exp() * noise)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-4 * kl

    return fit("vae", vae, loss_at, args.vae_steps, args.vae_lr, 0.995, args)


@torch.no_grad()
def encoded(vae: VAE, args: argparse.Namespace) -> tuple[Tensor, list[str]]:
    """The latents (count, c, h, w) of the UNet's training pictures, unscaled, and captions."""
    pixels, captions = scenes.many(
        "train", args.seed, args.unet_pictures, scenes.caption, scenes.CROWDED
    )
    latents = []
    with torch.autocast(args.device, dtype=torch.bfloat16):
        for batch in tqdm(torch.from_numpy(pixels).split(50), desc="encoding"):
            latents.append(vae.encode(to_float(batch).to(args.device))[0].float().cpu())
    return torch.cat(latents), captions


def beginning(tokens: list[str], start: StableDiffusion | None) -> tuple[UNet, TextEncoder]:
    """Networks at random, or a trained model's, whose words keep their embeddings."""
    unet, text_encoder = UNet(UNET_TABLE), TextEncoder(text_table(len(tokens)))
    unet.conv_out.weight.data.zero_()
    known = silence_pieces(text_encoder, tokens)
    if start:
        unet.load_state_dict(start.unet.state_dict())
        learned = start.text_encoder.text_model.embeddings.token_embedding.weight
        vocabulary = start.tokenizer.clip.get_vocab()
        table = text_encoder.text_model.embeddings.token_embedding.weight.data.clone()
        for i, token in enumerate(tokens):
            if known[i] and learned[vocabulary.get(token, 0)].any():
                table[i] = learned[vocabulary[token]]
        name = "text_model.embeddings.token_embedding.weight"
        text_encoder.load_state_dict(start.text_encoder.state_dict() | {name: table})
    return unet, text_encoder


def train_unet(
    latents: Tensor,
    captions: list[str],
    tokens: list[str],
    start: StableDiffusion | None,
    args: argparse.Namespace,
) -> tuple[UNet, TextEncoder]:
    """L_simple of DDPM: the squared error of the predicted noise, all timesteps alike.

    The input's noise is perturbed a little (arXiv 2301.11706, γ = 0.1): the network then predicts
    alike for latents that lie close together, and errors grow less from step to step.
    """
    unet, text_encoder = beginning(tokens, start)
    ids = Tokenizer(args.out / "tokenizer").ids([*captions, ""])  # the last is ∅
    alphas_cumprod, batch = ddim.alphas_cumprod().to(args.device), args.batch

    def loss_at(step: int) -> Tensor:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        rows = torch.randint(len(captions), (batch,), generator=g)
        z0 = latents[rows].to(args.device)
        rows[torch.rand(batch, generator=g) < EMPTY] = len(captions)
        # one timestep from each of `batch` equal parts: less noise in the loss than from all of it
        spread = (torch.arange(batch) + torch.rand(batch, generator=g)) / batch
        t = (spread * ddim.TRAIN_STEPS).long().to(args.device)
        noise = torch.randn(z0.shape, generator=g).to(args.device)
        seen = noise + 0.1 * torch.randn(z0.shape, generator=g).to(args.device)
        z = ddim.add_noise(z0, seen, alphas_cumprod[t])
        return F.mse_loss(unet(z, t, text_encoder(ids[rows].to(args.device))).float(), noise)

    both = nn.ModuleList([unet, text_encoder])
    unet, text_encoder = fit("unet", both, loss_at, args.unet_steps, args.unet_lr, 0.999, args)
    return unet, text_encoder
