"""Measures of how close two pictures are."""

import math

from PIL import Image
from torch import Tensor

from .core.pictures import to_tensor


def psnr(a: Image.Image | Tensor, b: Image.Image | Tensor) -> float:
    """The peak signal-to-noise ratio in dB: 10 log₁₀(255² / MSE), with the MSE over pixels and
    channels in 8-bit levels; infinite for equal pictures. Takes RGB images, or tensors in [-1, 1]
    of shape (1, 3, H, W), neither rounded nor clamped. Raises ValueError if the sizes differ."""
    x, y = (to_tensor(p) if isinstance(p, Image.Image) else p.detach().cpu() for p in (a, b))
    if x.shape != y.shape:
        raise ValueError(f"the pictures differ in size: {tuple(x.shape)} and {tuple(y.shape)}")
    mse = ((x.double() - y.double()) * 127.5).square().mean().item()
    return 10 * math.log10(255**2 / mse) if mse else math.inf
