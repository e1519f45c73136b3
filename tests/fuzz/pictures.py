"""Pictures that people have, the same damaged, and what is no picture at all."""

import io
import struct
import zlib
from pathlib import Path
from random import Random

from fuzz.cases import Case, kind, over
from fuzz.values import TEXTS, damaged, no_file, rewrite
from PIL import Image
from small import draw_picture

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "SGI"]
SIDES = [0, 1, 15, 16, 17, 31, 64, 65, 127, 500, 8001, 10**6, 2**31 - 1, 2**32 - 1]
ENDINGS = [".png", ".jpg", ".webp", ".tiff", ".PNG", "", ".txt", ".png.gz"]
TOLD = [b"iCCP", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tRNS", b"PLTE", b"acTL", b"pHYs", b"gAMA"]


def picture_bytes(rng: Random) -> bytes:
    """A picture of some mode, size and format, turned by its EXIF or not; a PNG where that format
    does not take it."""
    size = rng.choice([(16, 16), (48, 32), (17, 61), (128, 16), (33, 33)])
    image, data = draw_picture().resize(size), io.BytesIO()
    exif = Image.Exif()
    if rng.random() < 0.3:
        exif[274] = rng.choice([*range(1, 9), 0, 9, 65535])
    try:
        image = image.convert(rng.choice(MODES))
        image.save(data, rng.choice(FORMATS), exif=exif)
    except (OSError, ValueError):
        data = io.BytesIO()
        draw_picture().resize(size).save(data, "PNG", exif=exif)
    return data.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_bytes(rng: Random) -> bytes:
    """A PNG whose checksums are right and whose header and chunks say anything."""
    side, depth, colours = (rng.choice(some) for some in (SIDES, [1, 2, 4, 8, 16, 3], range(7)))
    header = struct.pack(
        ">IIBBBBB", side, rng.choice([side, 32]), depth, colours, 0, 0, rng.choice([0, 1])
    )
    lines = zlib.compress(bytes(rng.choice([0, 100, 10**5, 3 * 10**7])))
    told = [chunk(rng.choice(TOLD), rng.randbytes(rng.choice([0, 1, 30])))] * rng.choice([0, 1, 2])
    body = [chunk(b"IHDR", header), *told, chunk(b"IDAT", lines), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def some_file(rng: Random, path: Path) -> None:
    """Writes something to a name of a picture."""
    match rng.randrange(7):
        case 0 | 1:
            rewrite(path, picture_bytes(rng))
        case 2 | 3:
            rewrite(path, damaged(rng, picture_bytes(rng)))
        case 4:
            rewrite(path, png_bytes(rng))
        case 5:
            rewrite(
                path,
                rng.choice(
                    [b"a yellow car", b"%PDF-1.4", b"\0" * 99, b"PK\3\4", rng.randbytes(500)]
                ),
            )
        case 6:
            no_file(rng, path)


@kind
def pictures(rng: Random, here: Path) -> Case:
    """A picture, or what is called one; now and then a name of no file."""
    name = "given" + rng.choice(ENDINGS)
    some_file(rng, here / name)
    odd = [*TEXTS, "given.png/", "given.png/x", "~", "/", "/dev/zero", "http://x/a.png"]
    return over(rng, rng.choice(odd) if rng.random() < 0.15 else name)


@kind
def masks(rng: Random, here: Path) -> Case:
    """A mask, or what is called one."""
    some_file(rng, here / "given.png")
    how = rng.choice(
        [[], ["--mask-from", rng.choice(["file", "~file", "attention*file", "difference+~file"])]]
    )
    more = ["--mask", "given.png", *how]
    more += rng.choice([[], ["--paste-back"], ["--mask-feather", "3"], ["--mask-dilate", "2"]])
    case = over(rng, "picture.png")
    return case._replace(words=case.words + more)
