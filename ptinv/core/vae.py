"""ENC and DEC: the autoencoder that takes pictures to latents and back (Latent Diffusion, §3.1).

Attributes are named as the UNet's are. Pictures are in [-1, 1]; latents are as the network makes
them, unscaled (the scale that the UNet was trained with is applied once, in `model.py`).

sd-v1-4 takes 3 × 512² numbers to 4 × 64², 48 times fewer: all the edit happens there, and what the
way back loses is the ceiling of every reconstruction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention
from .unet import ResnetBlock, chain, upsample

Resample = Callable[[int], nn.Module]  # channels -> what halves or doubles a map
EPS = 1e-6  # of every normalisation here; most of the UNet's have 1e-5


@dataclass(frozen=True)
class VAEConfig:
    """The channel table; the defaults are Stable Diffusion v1's."""

    channels: tuple[int, ...] = (128, 256, 512, 512)  # one a level; the picture is halved between
    layers: int = 2  # residual blocks a level in the encoder; the decoder has one more
    groups: int = 32
    latent_channels: int = 4


class PixelAttention(Attention):
    """Single-head self-attention among the pixels of a feature map."""

    def __init__(self, channels: int, groups: int):
        super().__init__(channels, channels, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        pixels = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        out = super().forward(pixels, pixels)
        return x + rearrange(out, "b (h w) c -> b c h w", h=x.shape[2])


def downsample(channels: int) -> nn.Module:
    """Halves a map. The padding is on the right and bottom only, as this VAE was trained: its 3×3
    windows begin at pixels 0, 2, …, n-2, the UNet's, padded all around, at -1, 1, …, n-3."""
    return chain(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(channels, channels, 3, stride=2))


class MidBlock(nn.Module):
    """The coarsest level: residual, attention, residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups, EPS) for _ in range(2))
        self.attentions = nn.ModuleList([PixelAttention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


def levels(
    channels: tuple[int, ...], layers: int, groups: int, name: str, resample: Resample
) -> nn.Module:
    """Residual blocks at one size after another; the map is resampled in between, under a name."""
    built = nn.Sequential()
    for i, (cin, cout) in enumerate(pairwise((channels[0], *channels)), start=1):
        blocks = (ResnetBlock(a, b, groups, EPS) for a, b in pairwise([cin] + [cout] * layers))
        built.append(chain(resnets=nn.Sequential(*blocks)))
        if i < len(channels):
            built[-1].add_module(name, nn.Sequential(resample(cout)))
    return built


def encoder(config: VAEConfig) -> nn.Module:
    """Picture (b, 3, H, W) -> moments of the latent before `quant_conv`, (b, 2c, H/f, W/f).
    sd-v1-4, channels × side: 3×512 -> 128×512, 256×256, 512×128, 512×64 -> 8×64."""
    c, g = config.channels, config.groups
    return chain(
        conv_in=nn.Conv2d(3, c[0], 3, padding=1),
        down_blocks=levels(c, config.layers, g, "downsamplers", downsample),
        mid_block=MidBlock(c[-1], g),
        conv_norm_out=nn.GroupNorm(g, c[-1], eps=EPS),
        silu=nn.SiLU(),
        conv_out=nn.Conv2d(c[-1], 2 * config.latent_channels, 3, padding=1),
    )


def decoder(config: VAEConfig) -> nn.Module:
    """Latent after `post_quant_conv`, (b, c, h, w) -> picture (b, 3, f·h, f·w).
    sd-v1-4, channels × side: 4×64 -> 512×64, 512×128, 256×256, 128×512 -> 3×512."""
    c, g = config.channels[::-1], config.groups
    return chain(
        conv_in=nn.Conv2d(config.latent_channels, c[0], 3, padding=1),
        mid_block=MidBlock(c[0], g),
        up_blocks=levels(c, config.layers + 1, g, "upsamplers", upsample),
        conv_norm_out=nn.GroupNorm(g, c[-1], eps=EPS),
        silu=nn.SiLU(),
        conv_out=nn.Conv2d(c[-1], 3, 3, padding=1),
    )


class VAE(nn.Module):
    """The autoencoder of Stable Diffusion v1."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        c = config.latent_channels
        self.encoder, self.decoder = encoder(config), decoder(config)
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1)
        self.post_quant_conv = nn.Conv2d(c, c, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Picture (b, 3, H, W) in [-1, 1] -> mean and log-variance of its latent, (b, c, h, w)."""
        moments = self.quant_conv(self.encoder(self._laid_out(x)))
        mean, logvar = moments.to(x.dtype).contiguous().chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latent (b, c, h, w) -> picture (b, 3, H, W), about within [-1, 1]."""
        return self.decoder(self.post_quant_conv(self._laid_out(z))).to(z.dtype)

    def _laid_out(self, x: Tensor) -> Tensor:
        """In the weights' precision, channels last in memory: its large maps convolve faster so."""
        return x.to(self.quant_conv.weight.dtype, memory_format=torch.channels_last)
