"""ε_θ: the UNet of Stable Diffusion v1, which predicts the noise in a latent from a prompt.

The attribute names are the tensor names of the checkpoint in diffusers' layout, so that it loads
without a map. A `control` (see `attention.py`) is handed down to every attention layer.

Shapes: latents and feature maps `b c h w`; the prompt's embedding, `context`, `b n d`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention, Control, Place


@dataclass(frozen=True)
class UNetConfig:
    """The channel table; the defaults are Stable Diffusion v1's, 64×64 latents for 512² pictures.

    level       map      channels   attends
    0           64×64    320        yes
    1           32×32    640        yes
    2           16×16    1280       yes       the level whose maps make masks
    3           8×8      1280       no        (but its middle block does)
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attends: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2  # residual blocks a level on the way down; one more on the way up
    heads: int = 8
    context_channels: int = 768
    groups: int = 32
    latent_channels: int = 4
    trained_size: int = 64  # side of the square latents it was trained on

    @property
    def cross_levels(self) -> list[int]:
        """Those that attend to the prompt; the coarsest always does, in its middle block."""
        coarsest = len(self.channels) - 1
        return [i for i, attends in enumerate(self.attends) if attends or i == coarsest]

    @property
    def mask_level(self) -> int:
        """The attending level whose map is nearest to 16 cells across: objects, not details."""
        levels = [i for i, attends in enumerate(self.attends) if attends]
        return min(levels, key=lambda level: abs(math.log2(self.trained_size / 2**level / 16)))


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Sinusoids of timesteps, (b,) -> (b, channels): cosines first, periods 2π to almost 20000π."""
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers over the sinusoids."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.linear_1 = nn.Linear(cin, cout)
        self.linear_2 = nn.Linear(cout, cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class ResnetBlock(nn.Module):
    """Two 3×3 convolutions around a skip connection; the timestep is added between them."""

    def __init__(self, cin: int, cout: int, config: UNetConfig):
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, cin, eps=1e-5)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * config.channels[0], cout)
        self.norm2 = nn.GroupNorm(config.groups, cout, eps=1e-5)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class GEGLU(nn.Module):
    """A linear layer to twice the width, one half gating the other."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.proj = nn.Linear(cin, 2 * cout)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """The transformer's MLP. Slot 1 held dropout in training; it only keeps the numbering."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention among pixels, cross-attention to the prompt, MLP, each around a skip."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, config.heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, config.context_channels, config.heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(
        self, x: Tensor, context: Tensor, control: Control | None, place: Callable[[str], Place]
    ) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h, control, place("self"))
        x = x + self.attn2(self.norm2(x), context, control, place("cross"))
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Lays a feature map out as a sequence of pixels for a transformer block, and back."""

    def __init__(self, channels: int, config: UNetConfig, part: str, level: int):
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, config)])
        self.proj_out = nn.Conv2d(channels, channels, 1)
        self.place = partial(Place, part=part, level=level)

    def forward(self, x: Tensor, context: Tensor, control: Control | None) -> Tensor:
        height, width = x.shape[-2:]
        h = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        place = partial(self.place, height=height, width=width)
        for block in self.transformer_blocks:
            h = block(h, context, control, place)
        return x + self.proj_out(rearrange(h, "b (h w) c -> b c h w", h=height))


class Downsample(nn.Module):
    """Halves a map."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles a map by repeating pixels, then smooths it."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Block(nn.Module):
    """One level of the UNet: residual blocks, each followed by attention if the level attends."""

    def __init__(self, widths: list[tuple[int, int]], level: int, part: str, config: UNetConfig):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(cin, cout, config) for cin, cout in widths)
        self.attentions = nn.ModuleList(
            SpatialTransformer(cout, config, part, level)
            for _, cout in widths
            if config.attends[level]
        )

    def layer(
        self, i: int, x: Tensor, time: Tensor, context: Tensor, control: Control | None
    ) -> Tensor:
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context, control) if self.attentions else x


class DownBlock(Block):
    """One level on the way down; returns every map that the way up will want."""

    def __init__(self, level: int, config: UNetConfig):
        c = config.channels
        cin, cout = c[max(level - 1, 0)], c[level]
        widths = [(cin, cout)] + [(cout, cout)] * (config.layers - 1)
        super().__init__(widths, level, "down", config)
        last = level == len(c) - 1
        self.downsamplers = nn.ModuleList([] if last else [Downsample(cout)])

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, control: Control | None
    ) -> list[Tensor]:
        skips = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, time, context, control)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return skips


class UpBlock(Block):
    """One level on the way up; each residual block takes a map from the way down beside its own."""

    def __init__(self, level: int, config: UNetConfig):
        c = config.channels
        below, here, above = c[min(level + 1, len(c) - 1)], c[level], c[max(level - 1, 0)]
        skips = [here] * config.layers + [above]
        inputs = [below] + [here] * config.layers
        widths = [(x + skip, here) for x, skip in zip(inputs, skips, strict=True)]
        super().__init__(widths, level, "up", config)
        self.upsamplers = nn.ModuleList([Upsample(here)] if level > 0 else [])

    def forward(
        self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, control: Control | None
    ) -> Tensor:
        for i in range(len(self.resnets)):
            x = self.layer(i, torch.cat([x, skips.pop()], dim=1), time, context, control)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


class MidBlock(nn.Module):
    """The coarsest level: residual, attention, residual."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        c, level = config.channels[-1], len(config.channels) - 1
        self.resnets = nn.ModuleList(ResnetBlock(c, c, config) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialTransformer(c, config, "mid", level)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, control: Control | None) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, time), context, control)
        return self.resnets[1](x, time)


class UNet(nn.Module):
    """The noise predictor ε_θ(z_t, t, c)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        c, levels = config.channels, range(len(config.channels))
        self.conv_in = nn.Conv2d(config.latent_channels, c[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(c[0], 4 * c[0])
        self.down_blocks = nn.ModuleList(DownBlock(level, config) for level in levels)
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList(UpBlock(level, config) for level in reversed(levels))
        self.conv_norm_out = nn.GroupNorm(config.groups, c[0], eps=1e-5)
        self.conv_out = nn.Conv2d(c[0], config.latent_channels, 3, padding=1)

    def forward(
        self, z: Tensor, t: int | Tensor, context: Tensor, control: Control | None = None
    ) -> Tensor:
        """The predicted noise, in z's shape and precision.

        z: scaled latents (b, c, h, w), h and w multiples of 2^(levels - 1); t: a timestep, or one
        a row, (b,); context: the prompts' embedding (b, n, d).
        """
        dtype = self.conv_in.weight.dtype
        t = torch.as_tensor(t, device=z.device).expand(z.shape[0])
        time = self.time_embedding(timestep_embedding(t, self.config.channels[0]).to(dtype))
        context = context.to(dtype)

        x = self.conv_in(z.to(dtype))
        skips = [x]
        for block in self.down_blocks:
            skips += block(skips[-1], time, context, control)
        x = self.mid_block(skips[-1], time, context, control)
        for block in self.up_blocks:
            x = block(x, skips, time, context, control)
        return self.conv_out(F.silu(self.conv_norm_out(x))).to(z.dtype)
