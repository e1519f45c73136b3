"""Pictures as PIL images and as tensors: colours, sizes and the way between the two.

Outside the model a picture is an sRGB PIL image, inside it float32 (1, 3, H, W) in [-1, 1].
"""

import math
from contextlib import suppress
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageChops, ImageCms
from torch import Tensor

from ..errors import Doubt, PictureError, not_finite, remark

Picture = Image.Image | str | PathLike[str] | np.ndarray  # an array is uint8, (h, w[, 3 or 4])
READ = "PNG JPEG WEBP GIF BMP TIFF PPM AVIF".split()  # for some other formats Pillow runs a program
ORIENTATION, BITS, WHITE_IS_ZERO, WHITE = 274, 258, 262, 341  # tags of EXIF and TIFF
TURNS = dict(zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True))  # to `Image.Transpose`


def to_rgb(image: Picture) -> Image.Image:
    """Any picture as plain sRGB, upright, over white; a plain one as it is. See `read_colours`."""
    colours = read_colours(image)
    if colours.mode == "RGBA":
        white = Image.new("RGBA", colours.size, "white")
        colours = Image.alpha_composite(white, colours).convert("RGB")
    return colours


def read_colours(image: Picture) -> Image.Image:
    """A picture in sRGB and upright by its EXIF: RGB, or RGBA if it shows through anywhere.

    Colours are converted by the picture's profile; without one, and where it cannot be used
    (remarked on), they are sRGB's. Raises PictureError for grey out of range.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    elif not isinstance(image, Image.Image):
        if not Path(image).is_file():  # a pipe may never end
            raise PictureError(f"{image}: there is no regular file of this name; check the path")
        image = Image.open(BytesIO(Path(image).read_bytes()), formats=READ)
    plain = type(image) is Image.Image and image.mode == "RGB"  # a subclass is not read yet
    if plain and not image.info and not image.getexif():
        return image
    image.load()  # a TIFF is turned upright by this
    with suppress(Exception):  # EXIF has many ways of being damaged
        image = image.transpose(TURNS[image.getexif()[ORIENTATION]])
    profile, shown = image.info.get("icc_profile"), image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image, shown)
    elif isinstance(shown, tuple) and max(shown) > 255:  # of 16 bits, as Pillow's pixels were
        image = image.copy()  # the caller's keeps its own
        image.info["transparency"] = tuple(level >> 8 for level in shown)
    kind, alpha = image.mode, None
    if image.has_transparency_data:
        image = (image.convert("LA") if kind == "La" else image).convert("RGBA")
        alpha = image.getchannel("A")
    rgb = _to_srgb(image, kind, profile) if profile else image.convert("RGB")
    if alpha and alpha.getextrema()[0] < 255:
        rgb.putalpha(alpha)
    rgb.info = {}
    return rgb


def _to_8_bit(image: Image.Image, transparent: int | None) -> Image.Image:
    """Grey of modes I;16, I or F as L, or LA if one level is transparent. White is a TIFF's tag or
    the most of its bits. Else, and where 1 is the largest of 16 bits, it is guessed, with a remark,
    to be the first of 1, 255 and 65535 that no value exceeds."""
    tags, levels = getattr(image, "tag_v2", {}), np.asarray(image).astype(np.float32)
    low, high = levels.min(), levels.max()
    if not (low >= -1e-3 and high < 65535.5):  # also when one is NaN; rounding may go beyond
        wrong = f"the grey values go from {low} to {high}, not within 0 to 65535"
        raise PictureError(f"{wrong}; save it as an 8-bit or 16-bit picture")
    sixteen = image.mode.startswith("I;16") or image.format == "PNG"  # mode I in older Pillows
    white, tagged = 2 ** int(np.max(tags.get(BITS, 16))) - 1, np.max(tags.get(WHITE, 0))
    if tagged >= high > 0:
        white = tagged
    elif not sixteen or high == 1:
        white = next(white for white in (1, 255, 65535) if high <= 1.001 * white)
        remark(f"the picture does not say what white is: its grey is read as 0 to {white}")
    shares = (levels / white).clip(0, 1)
    if tags.get(WHITE_IS_ZERO) == 0:
        shares = 1 - shares
    grey = Image.fromarray((255 * shares).round().astype(np.uint8))
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image, kind: str, profile: bytes) -> Image.Image:
    """The RGB image that a profile says an image of mode `kind` is; one in sRGB keeps its own."""
    plain = image.convert("RGB")
    try:
        space = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}[space.profile.xcolor_space]
        if (kind == "CMYK") != (mode == "CMYK") or (mode == "L" and kind not in ("L", "LA", "La")):
            raise ValueError(f"it is of {mode}, the picture of {kind}")
        srgb = ImageCms.createProfile("sRGB")
        read = ImageCms.profileToProfile(image.convert(mode), space, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError) as error:
        remark(f"the colour profile cannot be used ({error}): colours are read as sRGB's", Doubt)
        return plain
    furthest = max(high for _, high in ImageChops.difference(read, plain).getextrema())
    return read if furthest > 1 else plain


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
