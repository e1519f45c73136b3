"""ε_θ: the UNet of Stable Diffusion v1, which predicts the noise in a latent from a prompt.

The attribute names are the tensor names of the checkpoint in diffusers' layout, so that it loads
without a map. A `control` (see `attention.py`) is handed down to every attention layer.

Shapes: latents and feature maps `b c h w`; the prompt's embedding, `context`, `b n d`; the embedded
timestep, `time`, `b 4c`. `UNet.forward` gives those of sd-v1-4 from end to end.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Attention, Control, Place


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


def chain(**layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, by names that make the checkpoint's tensor names."""
    return nn.Sequential(OrderedDict(layers))


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
    """Two 3×3 convolutions inside a skip connection; between them the embedded timestep is added,
    of `time_channels`, unless there is none (0), as in the VAE."""

    def __init__(self, cin: int, cout: int, groups: int, eps: float, time_channels: int = 0):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=eps)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        if time_channels:
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


class GEGLU(nn.Module):
    """A linear layer to twice the width, one half gating the other: a feature can switch another
    off, which no pointwise activation can (arXiv 2002.05202)."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.proj = nn.Linear(cin, 2 * cout)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class TransformerBlock(nn.Module):
    """Self-attention among pixels, cross-attention to the prompt, MLP, each around a skip."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, config.heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, config.context_channels, config.heads)
        self.norm3 = nn.LayerNorm(channels)
        mlp = GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)
        self.ff = chain(net=nn.Sequential(*mlp))  # slot 1 was dropout; it keeps the numbering

    def forward(
        self, x: Tensor, context: Tensor, control: Control | None, place: Callable[[str], Place]
    ) -> Tensor:
        """(b, p, c) and (b, n, d) -> (b, p, c)."""
        h = self.norm1(x)
        x = x + self.attn1(h, h, control, place("self"))
        x = x + self.attn2(self.norm2(x), context, control, place("cross"))
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Lays a feature map out as a sequence of pixels for a transformer block, and back."""

    def __init__(self, channels: int, part: str, level: int, config: UNetConfig):
        super().__init__()
        self.part, self.level = part, level
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, config)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor, control: Control | None) -> Tensor:
        """(b, c, h, w) and (b, n, d) -> (b, c, h, w)."""
        height, width = x.shape[-2:]
        place = partial(Place, part=self.part, level=self.level, height=height, width=width)
        h = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        h = self.transformer_blocks[0](h, context, control, place)
        return x + self.proj_out(rearrange(h, "b (h w) c -> b c h w", h=height))


class Block(nn.Module):
    """Residual blocks at one size, each followed by attention if the level attends (in the middle,
    only the first); then what halves the map on the way down, or doubles it on the way up.
    widths: the channels into and out of each residual block."""

    def __init__(self, part: str, level: int, widths: list[tuple[int, int]], config: UNetConfig):
        super().__init__()
        time_channels, out = 4 * config.channels[0], widths[-1][1]
        self.resnets = nn.ModuleList(
            ResnetBlock(cin, cout, config.groups, 1e-5, time_channels) for cin, cout in widths
        )
        attending = widths[:1] if part == "mid" else widths if config.attends[level] else []
        self.attentions = nn.ModuleList(
            SpatialTransformer(cout, part, level, config) for _, cout in attending
        )
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()
        if part == "down" and level < len(config.channels) - 1:
            self.downsamplers.append(chain(conv=nn.Conv2d(out, out, 3, stride=2, padding=1)))
        if part == "up" and level > 0:
            self.upsamplers.append(upsample(out))

    def forward(
        self, i: int, x: Tensor, time: Tensor, context: Tensor, control: Control | None
    ) -> Tensor:
        """Residual block i and its attention, if it has one; `UNet.forward` calls them in turn."""
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context, control) if i < len(self.attentions) else x


class UNet(nn.Module):
    """The noise predictor ε_θ(z_t, t, c)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        c, layers, wide = config.channels, config.layers, 4 * config.channels[0]
        self.conv_in = nn.Conv2d(config.latent_channels, c[0], 3, padding=1)
        self.time_embedding = chain(
            linear_1=nn.Linear(c[0], wide), silu=nn.SiLU(), linear_2=nn.Linear(wide, wide)
        )
        # the channels that enter each level, from conv_in on and from the middle on
        from_above, from_below = (c[0], *c[:-1]), (*c[1:], c[-1])
        self.down_blocks = nn.ModuleList()
        for level, here in enumerate(c):
            widths = [(from_above[level], here)] + [(here, here)] * (layers - 1)
            self.down_blocks.append(Block("down", level, widths, config))
        self.mid_block = Block("mid", len(c) - 1, [(c[-1], c[-1])] * 2, config)
        self.up_blocks = nn.ModuleList()
        for level, here in reversed([*enumerate(c)]):
            inputs = [from_below[level]] + [here] * layers
            skips = [here] * layers + [from_above[level]]  # the last is what entered the level
            widths = [(x + skip, here) for x, skip in zip(inputs, skips, strict=True)]
            self.up_blocks.append(Block("up", level, widths, config))
        self.conv_norm_out = nn.GroupNorm(config.groups, c[0], eps=1e-5)
        self.conv_out = nn.Conv2d(c[0], config.latent_channels, 3, padding=1)

    def forward(
        self,
        z: Tensor,
        t: int | Tensor,
        context: Tensor,
        control: Control | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """The predicted noise, in z's shape and precision.

        z: scaled latents (b, c, h, w), h and w multiples of 2^(levels - 1); t: a timestep, or one
        a row, (b,); context: the prompts' embedding (b, n, d). checkpointing: a gradient runs each
        block again on the way back, so that only what enters the blocks is kept until then.

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
        given = time, context.to(dtype), control

        def run(block: Block, *inputs: Any) -> Tensor:
            if checkpointing:
                return checkpoint(block, *inputs, use_reentrant=False)
            return block(*inputs)

        # The way down sees ever more of the picture and ever less exactly where. Noise must be
        # predicted to the cell, so the way up takes back each map of its own size, last one first.
        x = self.conv_in(z.to(dtype))
        skips = [x]
        for block in self.down_blocks:
            for i in range(len(block.resnets)):
                x = run(block, i, x, *given)
                skips.append(x)
            for halve in block.downsamplers:
                x = halve(x)
                skips.append(x)
        for i in range(len(self.mid_block.resnets)):
            x = run(self.mid_block, i, x, *given)
        for block in self.up_blocks:
            for i in range(len(block.resnets)):
                x = run(block, i, torch.cat([x, skips.pop()], dim=1), *given)
            for double in block.upsamplers:
                x = double(x)
        return self.conv_out(F.silu(self.conv_norm_out(x))).to(z.dtype)
