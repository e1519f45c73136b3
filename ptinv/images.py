"""Pictures in and out: everything between files, PIL images and tensors.

A picture is an RGB PIL image outside the model and a float32 tensor (1, 3, H, W) in [-1, 1] inside
it. Whatever can be wrong with a user's picture raises `PictureError`, whose message is one sentence
fit for the user.
"""

import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from . import files
from .errors import InputError

log = logging.getLogger(__name__)

MIN_SIDE = 16  # pixels
MAX_PIXELS = 64_000_000
MAX_ASPECT = 8
FORMATS = {  # by extension: Pillow's name and how it is written
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".webp": ("WEBP", {"quality": 95}),
}


class PictureError(InputError):
    """A picture that cannot be used: what is wrong and what to do."""


def open_picture(path: str | Path) -> Image.Image:
    """The picture in a file, as `to_rgb` makes it; of an animation, the first frame.

    Raises PictureError, naming the file, if it is missing, unreadable, no picture, damaged, or of
    an unusable size. The size is checked in the header, before any pixel is decoded.
    """
    with _opened(path) as image:
        rgb = to_rgb(image)
        if (frames := getattr(image, "n_frames", 1)) > 1:
            log.warning("%s holds %d frames; only the first is used", path, frames)
        return rgb


def read_text(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG; none of any other picture. Raises as `open_picture`."""
    with _opened(path) as image:
        check_size(*image.size)
        return dict(getattr(image, "text", {}))


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        files.check_file(path)
        with _decoding(), Image.open(path) as image:
            yield image
    except InputError as error:
        raise PictureError(f"{path}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A new, plain RGB image of any PIL image: upright by its EXIF, transparency over white.

    Grey of more than 8 bits is scaled to 8: modes I;16 from 0 … 65535, and also I and F if any
    value is over 255 (these do not tell their range). Colour profiles and metadata are dropped.
    Raises PictureError if the size is unusable or the pixels cannot be decoded.
    """
    check_size(*image.size)
    with _decoding():
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
            # Older Pillows open a 16-bit PNG as mode I.
            sixteen = upright.mode.startswith("I;16") or image.format == "PNG"
            upright = _to_8_bit(np.asarray(upright), sixteen)
        if upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in upright.info:
            upright = _over_white(upright)
        rgb = upright.convert("RGB")
    rgb.info = {}
    return rgb


def check_size(width: int, height: int) -> None:
    """Raises PictureError for a picture that is too small, too large or too elongated."""
    if min(width, height) < MIN_SIDE:
        raise PictureError(
            f"the picture is too small, {width}x{height} pixels; "
            f"use one of at least {MIN_SIDE} on both sides"
        )
    if width * height > MAX_PIXELS:
        raise _too_many_pixels()
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(
            f"the picture is too elongated, {width}x{height} pixels; "
            f"crop it to {MAX_ASPECT}:1 or less"
        )


def _too_many_pixels() -> PictureError:
    limit = MAX_PIXELS // 10**6
    return PictureError(f"the picture has more than {limit} million pixels; scale it down first")


@contextmanager
def _decoding() -> Iterator[None]:
    """Mutes Pillow's warnings and turns all that it raises on a bad picture into PictureError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (PictureError, MemoryError):
        raise
    except PermissionError as error:
        raise PictureError("the file may not be read; check its permissions") from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels() from error
    except UnidentifiedImageError as error:
        raise PictureError(
            "the file is not a picture of a known format; convert it to PNG or JPEG"
        ) from error
    except Exception as error:  # decoders raise almost anything on damaged data
        raise PictureError(
            f"the picture is truncated or damaged ({error}); use another copy"
        ) from error


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


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that it converts to
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


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
        raise FloatingPointError(
            "the result is not finite (NaN or infinity): the checkpoint may be damaged, "
            "or try --dtype float32 or bfloat16"
        )
    levels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(rearrange(levels.cpu(), "1 c h w -> h w c", c=3).numpy())


def to_mask(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """A mask picture (white = edit) averaged over the latent's (w, h) = `size` cells.

    Returns float32 (1, 1, h, w) in [0, 1]. Transparency counts as white.
    Raises PictureError if the mask is all black, or not a usable picture.
    """
    grey = to_rgb(image).convert("L")
    if grey.getextrema()[1] == 0:
        raise PictureError("the mask is all black and selects nothing; paint white what to edit")
    # Mode F: 8 bits would round a small selection in a large cell to nothing.
    cells = grey.convert("F").resize(size, Image.Resampling.BOX)
    return rearrange(torch.from_numpy(np.array(cells)) / 255, "h w -> 1 1 h w").clamp(0, 1)


def spread(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask over the latent's cells (1, 1, h, w) -> over a picture's pixels (height, width).

    Grown by a cell, as decoding spreads each that far, with a soft edge; 0 is 0 beyond that.
    """
    grown = F.max_pool2d(mask.float().cpu(), 3, stride=1, padding=1)
    pixels = F.interpolate(grown, size=size[::-1], mode="bilinear")
    return rearrange(pixels, "1 1 h w -> h w").clamp(0, 1)


def paste_back(original: Image.Image, edited: Image.Image, mask: Tensor) -> Image.Image:
    """The edited picture with the original's own pixels, to the byte, where the mask is 0.

    mask: (1, 1, h, w) over the latent's cells; see `spread`. Both pictures are RGB, of one size.
    """
    share = spread(mask, original.size)[..., None].numpy()
    old, new = (np.asarray(picture, np.float32) for picture in (original, edited))
    return Image.fromarray((old + (new - old) * share).round().astype(np.uint8))


def over(picture: Image.Image, mask: Tensor) -> Image.Image:
    """An RGB picture dimmed where the mask (1, 1, h, w) is 0, reddened where it is 1."""
    share = spread(mask, picture.size)[..., None].numpy()
    pixels = np.asarray(picture, np.float32)
    red = np.array([230.0, 40.0, 40.0], np.float32)
    shown = 0.45 * pixels * (1 - share) + (0.65 * pixels + 0.35 * red) * share
    return Image.fromarray(shown.round().astype(np.uint8))


def check_output(path: str | Path, inputs: Iterable[str | Path] = ()) -> Path:
    """`path` as a Path if a picture can be saved there, as `files.check_output` says."""
    return files.check_output(path, FORMATS, inputs)


def carries_text(path: Path) -> bool:
    """Whether a picture of this name takes text chunks: a PNG does, JPEG and WebP do not."""
    return FORMATS[path.suffix.lower()][0] == "PNG"


def save_picture(image: Image.Image, path: str | Path, text: dict[str, str] | None = None) -> None:
    """Writes `image` in the format of `path`'s extension; an old file is replaced only when whole.

    `text` goes into the chunks of a picture that `carries_text`; others do not take it.
    Raises InputError as `check_output` does, and OSError if the writing fails.
    """
    path = check_output(path)
    kind, options = FORMATS[path.suffix.lower()]
    if text and carries_text(path):
        options = {**options, "pnginfo": _chunks(text)}
    with files.replacing(path) as part:
        with open(part, "xb") as file:  # unlike mkstemp, this leaves the mode to the umask
            image.save(file, format=kind, **options)


def _chunks(text: dict[str, str]) -> PngInfo:
    chunks = PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)  # as iTXt where Latin-1 doesn't do
    return chunks
