"""Attention, and the one place where an edit can look at it or change it.

Without a control the layers use the fused kernel, which never writes the probabilities down. With
one, the layers that it wants, and no others, compute them explicitly:

    softmax(q kᵀ / √d)   ->   control(probabilities, place)   ->   · v

Shapes: b batch, p pixels of the map (height · width), n tokens attended to (pixels in
self-attention, the prompt's in cross-attention), h heads, d channels a head.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where in the UNet an attention layer stands, as a control sees it."""

    kind: Literal["self", "cross"]
    part: Literal["down", "mid", "up"]
    level: int  # how many times the latent has been halved
    height: int  # of the map, so that p = height · width
    width: int


class Control(Protocol):
    """What `unet(…, control=…)` takes. It is made for one call, and so knows that call's rows."""

    def wants(self, place: Place) -> bool:
        """Whether the probabilities of this layer should be computed and shown."""
        ...

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        """Given (b, h, p, n), rows of which sum to 1, returns what to use in their stead."""
        ...


class Attention(nn.Module):
    """Multi-head attention from `x` to a context: the prompt's tokens, or `x` itself."""

    def __init__(self, channels: int, context_channels: int, heads: int, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_channels, channels, bias=bias)
        self.to_v = nn.Linear(context_channels, channels, bias=bias)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(
        self, x: Tensor, context: Tensor, control: Control | None = None, place: Place | None = None
    ) -> Tensor:
        """(b, p, c) and (b, n, c') -> (b, p, c)."""
        q = rearrange(self.to_q(x), "b p (h d) -> b h p d", h=self.heads)
        k = rearrange(self.to_k(context), "b n (h d) -> b h n d", h=self.heads)
        v = rearrange(self.to_v(context), "b n (h d) -> b h n d", h=self.heads)
        if control is not None and control.wants(place):
            q = q * q.shape[-1] ** -0.5  # before the product, which float16 could not hold
            scores = einsum(q, k, "b h p d, b h n d -> b h p n")
            probabilities = scores.float().softmax(dim=-1)
            probabilities = control(probabilities, place)
            out = einsum(probabilities.to(v.dtype), v, "b h p n, b h n d -> b h p d")
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b h p d -> b p (h d)"))
