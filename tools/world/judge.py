"""The judge: a small classifier of pictures of the scenes' world.

    which things, and how many of each kind     12 kinds × (none, one, two, three)
    in which colours                            12 kinds × 10 colours, yes or no
    in which place                              6 backgrounds

It learned from drawn scenes alone (`train_judge.py`), never from pictures that a model made, so it
has no favourite among models. Its pooled features are this world's perceptual space: the distance
of two pictures in it stands in for LPIPS, and the mean over pictures of a class for the class
statistics of CSFID.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from world.grounds import BACKGROUNDS
from world.scenes import NUMBERS, SIDE, Content
from world.things import COLOURS, KINDS

from ptinv.core import pictures as pixels

WEIGHTS = Path(__file__).parents[2] / "weights" / "judge" / "judge.safetensors"
WIDTHS = (32, 64, 128, 192)  # at 64, 32, 16 and 8 cells across
K, C, B, N = len(KINDS), len(COLOURS), len(BACKGROUNDS), len(NUMBERS)


class Answers(NamedTuple):
    """The judge's logits for a batch of pictures."""

    counts: Tensor  # (b, kinds, 4)
    colours: Tensor  # (b, kinds, colours)
    background: Tensor  # (b, backgrounds)


class Residual(nn.Module):
    """Two 3×3 convolutions around a skip connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Judge(nn.Module):
    """A convolutional network of 1.7 million parameters."""

    def __init__(self):
        super().__init__()
        a, b, c, d = WIDTHS
        self.trunk = nn.Sequential(
            nn.Conv2d(3, a, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(a, b, 4, stride=2, padding=1),
            Residual(b),
            nn.Conv2d(b, c, 3, stride=2, padding=1),
            Residual(c),
            Residual(c),
            nn.Conv2d(c, d, 3, stride=2, padding=1),
            Residual(d),
        )
        self.norm = nn.GroupNorm(8, d)
        self.whole = nn.Linear(2 * d, K * N + B)  # of the picture: how many things, which place
        self.each = nn.Conv2d(d, K * C, 1)  # of a cell: a colour is of the thing that is there

    def features(self, x: Tensor) -> Tensor:
        """Pictures (b, 3, 128, 128) in [-1, 1] -> (b, 384): means and maxima over the map."""
        return pooled(self.cells(x))

    def cells(self, x: Tensor) -> Tensor:
        """Pictures -> a map (b, 192, 8, 8)."""
        return F.silu(self.norm(self.trunk(x))).float()

    def forward(self, x: Tensor) -> Answers:
        cells = self.cells(x)
        counts, background = self.whole(pooled(cells)).split((K * N, B), dim=1)
        colours = self.each(cells).amax(dim=(2, 3))
        return Answers(counts.unflatten(1, (K, N)), colours.unflatten(1, (K, C)), background)


def pooled(cells: Tensor) -> Tensor:
    """A map (b, c, h, w) -> its means and maxima, (b, 2 c)."""
    return torch.cat([cells.mean(dim=(2, 3)), cells.amax(dim=(2, 3))], dim=1)


def load(path: Path = WEIGHTS) -> Judge:
    """The judge with its trained weights (stored in float16, run in float32)."""
    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=True)
    return judge.eval().requires_grad_(False)


def contents(answers: Answers) -> list[Content]:
    """The answers as words. A kind that is there has its likeliest colour, and all others above ½.

    A kind in several colours has its number split among them as evenly as it goes.
    """
    found = []
    for counts, colours, background in zip(*answers, strict=True):
        groups = {}
        for kind, numbers, logits in zip(KINDS, counts, colours, strict=True):
            total = int(numbers.argmax())
            likely = logits.argsort(descending=True, stable=True).tolist()
            shown = [i for n, i in enumerate(likely) if n == 0 or logits[i] > 0][:total]
            for n, i in enumerate(shown):
                share = (total + len(shown) - 1 - n) // len(shown)
                groups[list(COLOURS)[i], kind] = share
        found.append(Content(groups, list(BACKGROUNDS)[int(background.argmax())]))
    return found


@torch.no_grad()
def look(judge: Judge, pictures: list[Image.Image]) -> list[Content]:
    """The contents of each picture."""
    return [content for batch in batches(pictures) for content in contents(both(judge, batch))]


def both(judge: Judge, x: Tensor) -> Answers:
    """The mean of the answers for pictures and their mirror images, which show the same things."""
    return Answers(*((a + b) / 2 for a, b in zip(judge(x), judge(x.flip(3)), strict=True)))


@torch.no_grad()
def features(judge: Judge, pictures: list[Image.Image]) -> Tensor:
    """The pictures in the judge's perceptual space, (n, 384)."""
    return torch.cat([judge.features(batch) for batch in batches(pictures)])


def batches(pictures: list[Image.Image], size: int = 50) -> Iterator[Tensor]:
    """Pictures as tensors (b, 3, 128, 128) in [-1, 1]."""
    for start in range(0, len(pictures), size):
        small = [pixels.resize(p, (SIDE, SIDE)) for p in pictures[start : start + size]]
        yield torch.cat([pixels.to_tensor(p) for p in small])


def perceptual_distance(judge: Judge, a: list[Image.Image], b: list[Image.Image]) -> np.ndarray:
    """Per pair of pictures, the root mean square difference of their features."""
    return (features(judge, a) - features(judge, b)).square().mean(dim=1).sqrt().numpy()
