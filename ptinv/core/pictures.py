"""Pictures as PIL images and as tensors: modes, sizes and the way between the two.

A picture is an RGB PIL image outside the model, a float32 tensor (1, 3, H, W) in [-1, 1] inside it.
"""

import math
from os import PathLike

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import PictureError, not_finite

Picture = Image.Image | str | PathLike[str] | np.ndarray  # an array is uint8, (h, w[, 3 or 4])


def to_rgb(image: Picture) -> Image.Image:
    """A plain RGB image of any picture: upright by its EXIF, transparency over white.

    Grey of more than 8 bits is scaled to 8: modes I;16 from 0 … 65535, and also I and F if any
    value is over 255 (their range is not recorded). Colour profiles and metadata are dropped. An
    image that is plain already is returned as it is. Raises PictureError for grey out of range.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else Image.open(image)
    plain = type(image) is Image.Image and image.mode == "RGB"  # a subclass is not read yet
    if plain and not image.info and not image.getexif():
        return image
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        # Older Pillows open a 16-bit PNG as mode I.
        sixteen = upright.mode.startswith("I;16") or image.format == "PNG"
        upright = _to_8_bit(np.asarray(upright), sixteen)
    if upright.has_transparency_data:
        upright = upright.convert("LA") if upright.mode == "La" else upright  # its only way out
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright)
    rgb = upright.convert("RGB")
    rgb.info = {}
    return rgb


def _to_8_bit(grey: np.ndarray, sixteen: bool) -> Image.Image:
    low, high = grey.min(), grey.max()
    if not (low >= 0 and high <= 65535):  # also when either is NaN
        raise PictureError(
            f"the grey values go from {low} to {high}, not within 0 to 65535; "
            "save it as an 8-bit or 16-bit picture"
        )
    levels = grey.astype(np.float32)
    if sixteen or high > 255:
        levels /= 257  # 65535 = 257 · 255
    return Image.fromarray(levels.round().astype(np.uint8))


def fit(size: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """The (width, height) of about `area` pixels and `size`'s aspect ratio, in whole multiples.

    Raises ValueError unless all the numbers are positive.
    """
    width, height = size
    if min(width, height, area, multiple) <= 0:
        raise ValueError(f"size {size}, area {area} and multiple {multiple} must all be positive")

    # Each side goes to the multiple nearest in ratio. That makes the larger of the sides' two
    # ratio errors smallest, which in logarithms is half the sum of the area's and the aspect's.
    def nearest(side: float) -> int:
        below = int(side // multiple) * multiple
        above = below + multiple
        return below if side**2 < below * above else above

    return nearest(math.sqrt(area * width / height)), nearest(math.sqrt(area * height / width))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`image` at (width, height) by Lanczos resampling; the same pixels if it has that size."""
    return image.resize(size, Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as float32 (1, 3, H, W) in [-1, 1]. Raises ValueError for other modes."""
    if image.mode != "RGB":
        raise ValueError(f"an RGB image is needed, not {image.mode}; see to_rgb")
    levels = rearrange(torch.from_numpy(np.array(image)), "h w c -> 1 c h w")
    return levels.contiguous().float() / 127.5 - 1


def to_picture(x: Tensor) -> Image.Image:
    """The RGB image of a tensor (1, 3, H, W) in [-1, 1], clamped and rounded to the nearest level.

    Raises FloatingPointError if `x` holds NaN or infinity.
    """
    if not x.isfinite().all():
        raise not_finite("the result")
    levels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(rearrange(levels.cpu(), "1 c h w -> h w c", c=3).numpy())
