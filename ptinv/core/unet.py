"""ε_θ: the UNet of Stable Diffusion v1, which predicts the noise in a latent from a prompt.

The attribute names are the tensor names of the checkpoint in diffusers' layout, so that it loads
without a map. A `control` (see `attention.py`) is handed down to every attention layer.

Shapes: latents and feature maps `b c h w`; the prompt's embedding, `context`, `b n d`; the embedded
timestep, `time`, `b 4c`. `UNet.forward` gives those of sd-v1-4 from end to end.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Control, SpatialTransformer, chain


@dataclass(frozen=True)
class UNetConfig:
    """The channel table; the defaults are Stable Diffusion v1's: 64×64 latents of 512² pictures."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one a level: maps of side 64, 32, 16, 8
    attends: tuple[bool, ...] = (True, True, True, False)  # the coarsest, in its middle block alone
    layers: int = 2  # residual blocks a level on the way down; one more on the way up
    heads: int = 8
    context_channels: int = 768
    groups: int = 32
    latent_channels: int = 4
    trained_size: int = 64  # side of the square latents it was trained on

    @property
    def mask_level(self) -> int:
        """The attending level whose map is nearest to 16 cells across: objects, not details."""
        levels = [i for i, attends in enumerate(self.attends) if attends]
        return min(levels, key=lambda level: abs(math.log2(self.trained_size / 2**level / 16)))


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Sinusoids of timesteps, (b,) -> (b, channels): cosines first, periods 2π to almost 20000π.

    The same weights serve all noise levels, so the network is given the level. One number would be
    a poor input to a linear layer; waves of many periods tell near timesteps apart and far ones.
    """
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResnetBlock(nn.Module):
    """Two 3×3 convolutions around a skip connection; between them the embedded timestep is added,
    of `time_channels`, unless there is none (None), as in the VAE."""

    def __init__(
        self, cin: int, cout: int, groups: int, eps: float, time_channels: int | None = None
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=eps)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, cout)
        self.norm2 = nn.GroupNorm(groups, cout, eps=eps)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:  # a shift of each channel, the same at every pixel
            h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


def upsample(channels: int) -> nn.Module:
    """Doubles a map by repeating pixels, then smooths it."""
    repeat = nn.Upsample(scale_factor=2.0, mode="nearest")
    return chain(repeat=repeat, conv=nn.Conv2d(channels, channels, 3, padding=1))


def resnet(cin: int, cout: int, config: UNetConfig) -> ResnetBlock:
    return ResnetBlock(cin, cout, config.groups, 1e-5, 4 * config.channels[0])


def transformer(channels: int, config: UNetConfig, part: str, level: int) -> SpatialTransformer:
    heads, groups = config.heads, config.groups
    return SpatialTransformer(channels, config.context_channels, heads, groups, part, level)


class Block(nn.Module):
    """One level of the UNet: residual blocks, each followed by attention if the level attends."""

    def __init__(self, widths: list[tuple[int, int]], level: int, part: str, config: UNetConfig):
        super().__init__()
        self.resnets = nn.ModuleList(resnet(cin, cout, config) for cin, cout in widths)
        attending = widths if config.attends[level] else []
        self.attentions = nn.ModuleList(
            transformer(cout, config, part, level) for _, cout in attending
        )

    def layer(
        self, i: int, x: Tensor, time: Tensor, context: Tensor, control: Control | None
    ) -> Tensor:
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context, control) if self.attentions else x


class DownBlock(Block):
    """One level on the way down; returns every map that it makes, for the way up."""

    def __init__(self, level: int, config: UNetConfig):
        c = config.channels
        cin, cout = c[max(level - 1, 0)], c[level]
        widths = [(cin, cout)] + [(cout, cout)] * (config.layers - 1)
        super().__init__(widths, level, "down", config)
        last = level == len(c) - 1
        halve = [] if last else [chain(conv=nn.Conv2d(cout, cout, 3, stride=2, padding=1))]
        self.downsamplers = nn.ModuleList(halve)

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, control: Control | None
    ) -> list[Tensor]:
        skips = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, time, context, control)
            skips.append(x)
        for halve in self.downsamplers:
            x = halve(x)
            skips.append(x)
        return skips


class UpBlock(Block):
    """One level on the way up; each residual block takes a map from the way down beside its own."""

    def __init__(self, level: int, config: UNetConfig):
        c = config.channels
        below, here, above = c[min(level + 1, len(c) - 1)], c[level], c[max(level - 1, 0)]
        skips = [here] * config.layers + [above]  # the last is what entered this level
        inputs = [below] + [here] * config.layers
        widths = [(x + skip, here) for x, skip in zip(inputs, skips, strict=True)]
        super().__init__(widths, level, "up", config)
        self.upsamplers = nn.Sequential(*([upsample(here)] if level > 0 else []))

    def forward(
        self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, control: Control | None
    ) -> Tensor:
        for i in range(len(self.resnets)):
            x = self.layer(i, torch.cat([x, skips.pop()], dim=1), time, context, control)
        return self.upsamplers(x)


class MidBlock(nn.Module):
    """The coarsest level: residual, attention, residual."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        c, level = config.channels[-1], len(config.channels) - 1
        self.resnets = nn.ModuleList(resnet(c, c, config) for _ in range(2))
        self.attentions = nn.ModuleList([transformer(c, config, "mid", level)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, control: Control | None) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, time), context, control)
        return self.resnets[1](x, time)


class UNet(nn.Module):
    """The noise predictor ε_θ(z_t, t, c)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        c, wide, levels = config.channels, 4 * config.channels[0], range(len(config.channels))
        self.conv_in = nn.Conv2d(config.latent_channels, c[0], 3, padding=1)
        self.time_embedding = chain(
            linear_1=nn.Linear(c[0], wide), silu=nn.SiLU(), linear_2=nn.Linear(wide, wide)
        )
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

        For sd-v1-4 at 512², channels × side (every map on the way down is kept as a skip):

            conv_in        4×64 -> 320×64
            down_blocks.0  320×64 twice, halved to 320×32        mid_block    1280×8
            down_blocks.1  640×32 twice, halved to 640×16        (self- and cross-attention in it,
            down_blocks.2  1280×16 twice, halved to 1280×8       in down 0-2 and in up 1-3)
            down_blocks.3  1280×8 twice
            up_blocks.0    1280+1280, 1280+1280, 1280+1280 ->  1280×8, doubled to 16
            up_blocks.1    1280+1280, 1280+1280, 1280+640  -> 1280×16, doubled to 32
            up_blocks.2     1280+640,   640+640,  640+320  ->  640×32, doubled to 64
            up_blocks.3      640+320,   320+320,  320+320  ->  320×64
            conv_out       320×64 -> 4×64
        """
        dtype = self.conv_in.weight.dtype
        t = torch.as_tensor(t, device=z.device).expand(z.shape[0])
        time = self.time_embedding(timestep_embedding(t, self.config.channels[0]).to(dtype))
        context = context.to(dtype)

        # The way down sees ever more of the picture and ever less exactly where. Noise must be
        # predicted to the cell, so the way up takes back each map of its own size, last one first.
        x = self.conv_in(z.to(dtype))
        skips = [x]
        for block in self.down_blocks:
            skips += block(skips[-1], time, context, control)
        x = self.mid_block(skips[-1], time, context, control)
        for block in self.up_blocks:
            x = block(x, skips, time, context, control)
        return self.conv_out(F.silu(self.conv_norm_out(x))).to(z.dtype)
