"""Attention, and the one place where an edit can look at it or change it.

Without a control the layers use the fused kernel, which never writes the probabilities down: at
64×64 those of self-attention are 8 · 4096² numbers a picture, half a gigabyte. With a control, the
layers that it wants, and no others, compute them explicitly:

    q, k, v   ->   control.inputs(q, k, v, place)
    softmax(q kᵀ / √d)   ->   control(probabilities, place)   ->   · v

Shapes: b batch, p pixels of the map (height · width), n tokens attended to (pixels in
self-attention, the prompt's in cross-attention), h heads, d channels a head.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

QKV = tuple[Tensor, Tensor, Tensor]  # queries, keys and values


@dataclass(frozen=True)
class Place:
    """The position of an attention layer in the UNet, given to a control."""

    kind: Literal["self", "cross"]
    part: Literal["down", "mid", "up"]
    level: int  # how many times the latent has been halved
    height: int  # of the map, so that p = height · width
    width: int


class Control:
    """An edit's access to attention, `unet(…, control=…)`, made for one call and so for its rows:
    with guidance the ∅ rows of the batch come first, then a row for each branch. This one changes
    nothing; one that changes probabilities overrides `wants`, too."""

    def inputs(self, q: Tensor, k: Tensor, v: Tensor, place: Place) -> QKV:
        """Takes any layer's queries (b, h, p, d), keys and values (b, h, n, d), and returns those
        to use in their stead: MasaCtrl, say, gives one row the keys and values of another."""
        return q, k, v

    def wants(self, place: Place) -> bool:
        """True if this layer should compute its probabilities and pass them here."""
        return False

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        """Takes the probabilities (b, h, p, n), float32, and returns those to use in their stead.

        Each [row, head, pixel] sums to 1 over what that pixel attends to. In sd-v1-4's cross-
        attention at 16×16, (b, 8, 256, 77): [0, :, :, 2] is a map of the picture for token 2 of the
        first row, which is how a word's mask is made, and what Prompt-to-Prompt replaces.
        """
        return probabilities


class Attention(nn.Module):
    """Multi-head attention from `x` to a context: the prompt's tokens, or `x` itself."""

    def __init__(self, channels: int, context_channels: int, heads: int, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_channels, channels, bias=bias)
        self.to_v = nn.Linear(context_channels, channels, bias=bias)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))  # so that it is to_out.0

    def forward(
        self, x: Tensor, context: Tensor, control: Control | None = None, place: Place | None = None
    ) -> Tensor:
        """(b, p, c) and (b, n, c') -> (b, p, c)."""
        q = rearrange(self.to_q(x), "b p (h d) -> b h p d", h=self.heads)
        k = rearrange(self.to_k(context), "b n (h d) -> b h n d", h=self.heads)
        v = rearrange(self.to_v(context), "b n (h d) -> b h n d", h=self.heads)
        if control is not None:
            q, k, v = control.inputs(q, k, v, place)
        if control is not None and control.wants(place):
            q = q * q.shape[-1] ** -0.5  # before the product, which float16 could not hold
            scores = einsum(q, k, "b h p d, b h n d -> b h p n")
            probabilities = control(scores.float().softmax(dim=-1), place)
            out = einsum(probabilities.to(v.dtype), v, "b h p n, b h n d -> b h p d")
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b h p d -> b p (h d)"))
