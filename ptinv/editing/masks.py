"""Masks: where an edit may show. One vocabulary, whatever a mask is made from:

    attention    the maps of the focus words, while the walk goes: Prompt-to-Prompt's local
                 blending, where there is a source branch with its own words, too
    difference   where the noise predicted for two texts differs, before the walk (DiffEdit)
    a picture    the user's own

    a+b  union      a*b  intersection      ~a  inversion

A mask is a function of the rung just walked; it returns zeros and ones (b or 1, 1, h, w), numbers
in between where it was softened, or None as long as it cannot tell.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import reduce, repeat
from torch import Tensor

from .. import ddim
from ..attention import Control
from ..model import StableDiffusion
from ..sampling import NoiseAt, Rows
from .controls import Record, rows_of

Mask = Callable[[int], Tensor | None]
BEGIN = 0.2  # the share of the steps after which an attention mask is trusted


def fixed(mask: Tensor) -> Mask:
    """The same at every rung."""
    return lambda k: mask


def union(a: Mask, b: Mask) -> Mask:
    return _both(torch.maximum, a, b)


def intersection(a: Mask, b: Mask) -> Mask:
    return _both(torch.minimum, a, b)


def inverse(a: Mask) -> Mask:
    return _each(lambda mask: 1 - mask, a)


def softened(a: Mask, dilate: int, feather: int) -> Mask:
    """Grown by `dilate` cells, then with an edge that falls off over 2·`feather` cells outside."""
    return _each(lambda mask: feathered(dilated(mask, dilate + feather), feather), a)


def dilated(mask: Tensor, cells: int) -> Tensor:
    """(b, 1, h, w) grown by so many cells in all eight directions."""
    return F.max_pool2d(mask, 2 * cells + 1, stride=1, padding=cells)


def feathered(mask: Tensor, cells: int) -> Tensor:
    """(b, 1, h, w) averaged over a square that reaches so many cells to each side."""
    padded = F.pad(mask, (cells,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * cells + 1, stride=1)


def _each(change: Callable[[Tensor], Tensor], a: Mask) -> Mask:
    def at(k: int) -> Tensor | None:
        mask = a(k)
        return None if mask is None else change(mask)

    return at


def _both(combine: Callable[[Tensor, Tensor], Tensor], a: Mask, b: Mask) -> Mask:
    def at(k: int) -> Tensor | None:
        x, y = a(k), b(k)
        return None if x is None or y is None else combine(*torch.broadcast_tensors(x, y))

    return at


@dataclass
class AttentionLog:
    """How much attention each token got in the walk so far, at one level of the UNet.

    The one thing here that has a memory. It is made for one walk: `control` listens to every call
    of the UNet, and whoever asks later reads the `maps`.
    """

    level: int
    records: dict[int, tuple[Rows, Record]] = field(default_factory=dict)  # by rung

    def control(self, k: int, rows: Rows) -> Control:
        record = Record(self.level)
        self.records[k] = rows, record
        return record

    def maps(self, branch: str = "target") -> Tensor:
        """(b, 77, h, w): summed over steps, layers and heads; a row a row of the branch."""
        if any(record.total is None for _, record in self.records.values()) or not self.records:
            raise LookupError(f"no cross-attention was seen at level {self.level}")
        return sum(record.total[rows_of(branch, rows)] for rows, record in self.records.values())


def of_attention(
    log: AttentionLog,
    tokens: list[int],
    size: tuple[int, int],
    steps: int,
    threshold: float = 0.3,
    each_object: bool = False,
    branch: str = "target",
    widened: bool = True,
) -> Mask:
    """Where the tokens' attention is above a threshold, once a fifth of the walk's steps are made.

    size: (h, w) of the latent. steps: T'. branch: whose tokens they are. An `AttentionLog` of a
    level that attends nowhere would stay empty, which raises LookupError.
    """

    def at(k: int) -> Tensor | None:
        if steps - k + 1 <= round(BEGIN * steps):
            return None
        maps = log.maps(branch)[:, tokens].sum(dim=1)
        return attention_mask(maps, size, threshold, each_object, widened)

    return at


def attention_mask(
    maps: Tensor,
    size: tuple[int, int],
    threshold: float,
    each_object: bool = False,
    widened: bool = True,
) -> Tensor:
    """Maps of attention (b, h, w) -> a mask of zeros and ones (b, 1, height, width).

    Prompt-to-Prompt's rule: 3×3 maxima, to the latent's size (bilinearly, where the reference
    repeats cells), relative to the largest value. The strongest of several objects then decides for
    all, and the others may be missed (the paper's Fig. 7). With `each_object` a place is compared
    with the strongest one within an eighth of the map to each side, so that every object has its
    own measure; one that stays below the threshold itself counts as if it just reached it.

    widened: whether the maxima are taken; they are not for words whose places are to be left out.
    """
    maps = dilated(maps[:, None], 1 if widened else 0)
    maps = F.interpolate(maps, size=size, mode="bilinear")
    maps = maps / maps.amax(dim=(2, 3), keepdim=True)
    if each_object:
        reach = max(1, round(min(size) / 8))
        maps = maps / dilated(maps, reach).clamp(min=threshold)
    return (maps > threshold).float()


@torch.no_grad()
def noise_difference(
    model: StableDiffusion,
    z0: Tensor,
    reference: Tensor,
    target: Tensor,
    steps: int,
    noise: NoiseAt,
    draws: int = 10,
    clamp: float = 3.0,
    chunk: int = 8,
) -> Tensor:
    """DiffEdit's map (arXiv 2210.11427, §3.2): how much two texts disagree about the noise.

    The latent z0 (1, c, h, w) is noised half the way with `draws` different noises; the absolute
    difference of the predictions for the two contexts (1, 77, d) is averaged over noises and
    channels. Extreme values are clamped at `clamp` times the mean, and the rest scaled to [0, 1]:
    (1, 1, h, w). Guidance would multiply all differences alike and so change nothing.

    chunk: how many rows go through the UNet at once, which bounds the memory.
    """
    rung = ddim.ladder(steps)[max(steps // 2, 1) - 1]
    total = torch.zeros_like(z0[:, :1])
    per_call = max(chunk // 2, 1)
    for start in range(0, draws, per_call):
        some = range(start, min(start + per_call, draws))
        z = torch.cat([ddim.add_noise(z0, noise(i).to(z0), rung.alpha) for i in some])
        contexts = torch.cat([repeat(c, "1 n d -> b n d", b=len(z)) for c in (reference, target)])
        eps = model.predict_noise(torch.cat([z, z]), rung.t, contexts)
        there, here = eps.chunk(2)
        total += reduce((here - there).abs(), "b c h w -> 1 1 h w", "sum")
    mean = total.mean()
    return (total / (clamp * mean).clamp(min=1e-12)).clamp(max=1)


def thresholded(shares: Tensor, threshold: float) -> Tensor:
    """A map of shares -> zeros and ones."""
    return (shares > threshold).float()


def combined(expression: str, named: Callable[[str], Mask]) -> Mask:
    """The mask that an expression such as "attention*~difference" stands for.

    `named` makes a mask of each name in it. `~` binds before `*`, and `*` before `+`.
    """
    if "+" in expression:
        return union(*(combined(part, named) for part in expression.split("+", 1)))
    if "*" in expression:
        return intersection(*(combined(part, named) for part in expression.split("*", 1)))
    if expression.strip().startswith("~"):
        return inverse(combined(expression.strip()[1:], named))
    return named(expression.strip())
