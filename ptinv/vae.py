"""ENC and DEC: the autoencoder that takes pictures to latents and back (Latent Diffusion, §3.1).

The attribute names are the tensor names of the checkpoint in diffusers' layout, so that it loads
without a map. Pictures are in [-1, 1]; latents are as the network makes them, unscaled (the scale
that the UNet wants is applied once, in `model.py`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention


@dataclass(frozen=True)
class VAEConfig:
    """The channel table; the defaults are Stable Diffusion v1's."""

    channels: tuple[int, ...] = (128, 256, 512, 512)  # one a level; the picture is halved between
    layers: int = 2  # residual blocks a level in the encoder; the decoder has one more
    groups: int = 32
    latent_channels: int = 4


class ResnetBlock(nn.Module):
    """Two 3×3 convolutions around a skip connection."""

    def __init__(self, cin: int, cout: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=1e-6)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, cout, eps=1e-6)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.conv_shortcut = nn.Conv2d(cin, cout, 1)
        else:
            self.conv_shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class PixelAttention(Attention):
    """Single-head self-attention among the pixels of a feature map."""

    def __init__(self, channels: int, groups: int):
        super().__init__(channels, channels, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        pixels = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        out = super().forward(pixels, pixels)
        return x + rearrange(out, "b (h w) c -> b c h w", h=x.shape[2])


class Downsample(nn.Module):
    """Halves a map. The padding is on the right and bottom only, as this VAE was trained."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles a map by repeating pixels, then smooths it."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class MidBlock(nn.Module):
    """The coarsest level: residual, attention, residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([PixelAttention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class DownBlock(nn.Module):
    """One level of the encoder."""

    def __init__(self, cin: int, cout: int, layers: int, groups: int, last: bool):
        super().__init__()
        widths = [cin] + [cout] * layers
        self.resnets = nn.ModuleList(
            ResnetBlock(a, b, groups) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.downsamplers = nn.ModuleList([] if last else [Downsample(cout)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpBlock(nn.Module):
    """One level of the decoder."""

    def __init__(self, cin: int, cout: int, layers: int, groups: int, last: bool):
        super().__init__()
        widths = [cin] + [cout] * layers
        self.resnets = nn.ModuleList(
            ResnetBlock(a, b, groups) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.upsamplers = nn.ModuleList([] if last else [Upsample(cout)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Picture (b, 3, H, W) -> moments of the latent before `quant_conv`, (b, 2c, H/f, W/f)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        c, g = config.channels, config.groups
        self.conv_in = nn.Conv2d(3, c[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(cin, cout, config.layers, g, last=i == len(c) - 1)
            for i, (cin, cout) in enumerate(zip((c[0], *c), c, strict=False))
        )
        self.mid_block = MidBlock(c[-1], g)
        self.conv_norm_out = nn.GroupNorm(g, c[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(c[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    """Latent after `post_quant_conv`, (b, c, h, w) -> picture (b, 3, f·h, f·w)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        c, g = config.channels[::-1], config.groups
        self.conv_in = nn.Conv2d(config.latent_channels, c[0], 3, padding=1)
        self.mid_block = MidBlock(c[0], g)
        self.up_blocks = nn.ModuleList(
            UpBlock(cin, cout, config.layers + 1, g, last=i == len(c) - 1)
            for i, (cin, cout) in enumerate(zip((c[0], *c), c, strict=False))
        )
        self.conv_norm_out = nn.GroupNorm(g, c[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(c[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """The autoencoder of Stable Diffusion v1."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        c = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
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
