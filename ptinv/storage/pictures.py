"""Picture files: opened as plain RGB, checked for the output's name, saved with their record.

Whatever can be wrong with a user's file raises PictureError, whose message names the file in one
sentence. Modes and tensors are in `core/pictures.py`.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..core.pictures import READ, to_rgb
from ..errors import Doubt, PictureError, Remark, remark
from . import files

MIN_SIDE = 16  # pixels
MAX_PIXELS = 64_000_000
MAX_ASPECT = 8
UNKNOWN = f"the file is not a picture that is opened here ({', '.join(READ)}); convert it to PNG"
TOO_MANY = f"the picture has more than {MAX_PIXELS // 10**6} million pixels; scale it down first"
WRONG = {  # what Pillow raises of a file
    PermissionError: "the file may not be read; check its permissions",
    Image.DecompressionBombError: TOO_MANY,
    UnidentifiedImageError: UNKNOWN,
    Exception: "the picture is truncated or damaged; use another copy",
}
MUTING = threading.RLock()  # filters are the process's: threads would restore each other's
REDUCED = 254  # a TIFF's tag, NewSubfileType
Reading = Callable[[Image.Image], Any]  # makes what is wanted of any image, such as plain RGB
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB = SRGB[:24] + bytes(12) + SRGB[36:]  # without its date: a file is the same on any day
LOSSY = {"quality": 95, "icc_profile": SRGB}
JPEG = ("JPEG", LOSSY | {"subsampling": "4:4:4"})
# by extension: Pillow's name and how it is written
FORMATS = {".png": ("PNG", {}), ".jpg": JPEG, ".jpeg": JPEG, ".webp": ("WEBP", LOSSY)}


def check_size(width: int, height: int) -> None:
    """Raises PictureError for a picture that is too small, too large or too elongated."""
    size, (short, long) = f"{width}x{height} pixels", sorted([width, height])
    if short < MIN_SIDE:
        least = f"use one of at least {MIN_SIDE} on both sides"
        raise PictureError(f"the picture is too small, {size}; {least}")
    if short * long > MAX_PIXELS:
        raise PictureError(TOO_MANY)
    if long > MAX_ASPECT * short:
        raise PictureError(f"the picture is too elongated, {size}; crop to {MAX_ASPECT}:1 or less")


@contextmanager
def _decoding(name: str = "") -> Iterator[None]:
    """Mutes Pillow's warnings, and turns all that it raises on a bad picture into PictureError.
    name: what each message, and each of our own remarks, begins with."""
    try:
        with MUTING, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged data
        said = {PictureError: str(error)} | WRONG
        wrong = next(said[kind] for kind in said if isinstance(error, kind))
        raise PictureError(name + wrong) from error
    for warning in caught:
        if issubclass(warning.category, Remark):
            remark(f"{name}{warning.message}", warning.category)


def checked(image: Image.Image, read: Reading = to_rgb) -> Any:
    """Reads a PIL image, by default as RGB. Raises PictureError for bad sizes, previews, damage."""
    with _decoding():
        check_size(*image.size)
        if getattr(image, "tag_v2", {}).get(REDUCED, 0) & 1:
            wrong = "this is a raw photograph or a pyramid, whose first picture is only a small"
            raise PictureError(f"{wrong} preview; export it as PNG or JPEG")
        return read(image)


def open_picture(path: str | Path, read: Reading = to_rgb) -> Any:
    """As `checked`, of the picture in a file, of an animation the first frame; the error names the
    file. A picture's size is checked before any pixel is decoded."""
    files.check_file(path, PictureError)
    # by an open file: Pillow maps a named one, and misreads a turned TIFF so
    with _decoding(f"{path}: "), open(path, "rb") as file, Image.open(file, formats=READ) as image:
        made, frames = checked(image, read), getattr(image, "n_frames", 1)
    if frames > 1 and isinstance(made, Image.Image):  # of a file's texts there is nothing to say
        remark(f"{path} holds {frames} frames; only the first is used", Doubt)
    return made


def save_picture(image: Image.Image, path: str | Path, text: dict[str, str] | None = None) -> None:
    """Writes an image as sRGB in the format of `path`'s extension, whole or not at all. `text` goes
    into a PNG's chunks. Raises InputError as `files.check_output`, OSError if the writing fails."""
    path = files.check_output(path, FORMATS)
    kind, options = FORMATS[path.suffix.lower()]
    chunks = PngInfo()
    chunks.add(b"sRGB", b"\0")
    for key, value in (text or {}).items():
        chunks.add_text(key, value)  # as iTXt where Latin-1 doesn't do
    with files.replacing(path) as part, open(part, "xb") as file:  # `open` minds the umask
        image.save(file, format=kind, pnginfo=chunks, **options)
