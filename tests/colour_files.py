"""Picture files in other colour spaces and types of number, written by hand: Pillow writes few.

A colour space is three primaries, a white point and a curve; a profile of one is a header and nine
tags (ICC.1:2010). Numbers are floats in [0, 1], (h, w, channels), until they are written.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

D50, D65 = np.array([0.9642, 1.0, 0.8249]), np.array([0.95047, 1.0, 1.08883])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


class Space(NamedTuple):
    """A colour space of RGB."""

    primaries: tuple[tuple[float, float], ...]  # x and y of red, green and blue
    white: np.ndarray  # XYZ
    curve: tuple[float, ...]  # γ, or the five numbers of a parametric curve of type 3

    @property
    def to_d50(self) -> np.ndarray:
        """Linear RGB -> XYZ under D50, (3, 3)."""
        xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in self.primaries]).T
        xyz = xyz * np.linalg.solve(xyz, self.white)
        cones = (BRADFORD @ D50) / (BRADFORD @ self.white)
        return np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD @ xyz

    def linear(self, numbers: np.ndarray) -> np.ndarray:
        if len(self.curve) == 1:
            return numbers ** self.curve[0]
        g, a, b, c, d = self.curve
        return np.where(numbers >= d, (a * numbers + b).clip(0) ** g, c * numbers)

    def encoded(self, linear: np.ndarray) -> np.ndarray:
        linear = linear.clip(0, 1)
        if len(self.curve) == 1:
            return linear ** (1 / self.curve[0])
        g, a, b, c, d = self.curve
        return np.where(linear >= c * d, (linear ** (1 / g) - b) / a, linear / c)

    def profile(self) -> bytes:
        columns = self.to_d50.T
        named = zip(("rXYZ", "gXYZ", "bXYZ"), columns, strict=True)
        tags = {"wtpt": _xyz(D50)} | {name: _xyz(column) for name, column in named}
        return _profile("RGB ", tags | dict.fromkeys(("rTRC", "gTRC", "bTRC"), _curve(self.curve)))


SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SRGB = Space(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65, SRGB_CURVE)
SPACES = {
    "sRGB": SRGB,
    "P3": Space(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65, SRGB_CURVE),
    "Adobe": Space(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, (2.19921875,)),
    "ProPhoto": Space(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50, (1.8,)),
}


def in_space(picture: Image.Image, space: Space) -> np.ndarray:
    """An sRGB picture's colours as another space's numbers."""
    linear = SRGB.linear(np.asarray(picture.convert("RGB")) / 255)
    return space.encoded(linear @ SRGB.to_d50.T @ np.linalg.inv(space.to_d50).T)


def grey_profile(gamma: float) -> bytes:
    return _profile("GRAY", {"wtpt": _xyz(D50), "kTRC": _curve((gamma,))})


def ink_profile(lab: Callable[[tuple[int, ...]], tuple[int, int, int]]) -> bytes:
    """A printer's: L*, a* and b*, each of 0 … 255, for each of the 16 ways to lay four inks."""
    corners = [lab((c, m, y, k)) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    straight = bytes(range(256))
    table = struct.pack(">4sI4B", b"mft1", 0, 4, 3, 2, 0)
    table += b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    table += straight * 4 + bytes(np.array(corners, np.uint8)) + straight * 3
    return _profile("CMYK", {"wtpt": _xyz(D50), "A2B0": table}, kind="prtr", connection="Lab ")


def _xyz(xyz: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(65536 * float(x))) for x in xyz)


def _curve(curve: tuple[float, ...]) -> bytes:
    if len(curve) == 1:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * curve[0]))
    numbers = b"".join(struct.pack(">i", round(65536 * x)) for x in curve)
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + numbers


def _profile(space: str, tags: dict[str, bytes], kind="mntr", connection="XYZ ") -> bytes:
    tags = {"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)} | tags
    tags["cprt"] = b"text" + bytes(4) + b"none\0"
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    version = 0x04000000 if space == "RGB " else 0x02000000
    kinds = (part.encode() for part in (kind, space, connection))
    size = start + len(data)
    head = struct.pack(">I4sI4s4s4s12s4s28s", size, b"", version, *kinds, b"", b"acsp", b"")
    return (head + _xyz(D50)[8:] + bytes(48))[:128] + table + data


def write_png(path: Path, numbers: np.ndarray, bits: int, profile: bytes | None = None) -> None:
    """Writes grey, RGB or RGBA of 8 or 16 bits."""
    height, width, channels = numbers.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    levels = (numbers * (2**bits - 1)).round().astype(">u2" if bits == 16 else np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in levels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))]
    if profile:
        chunks.append((b"iCCP", b"p\0\0" + zlib.compress(profile)))
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in [*chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]:
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data)


def write_tiff(path: Path, numbers: np.ndarray, profile: bytes | None = None, **tags) -> None:
    """Writes numbers as they are: uint8, uint16 or float32. tags: `_254=1` sets that one."""
    height, width, channels = numbers.shape
    bits, floating = numbers.itemsize * 8, numbers.dtype.kind == "f"
    entries = {
        256: width, 257: height, 258: (bits,) * channels, 259: 1, 262: 2 if channels > 2 else 1,
        273: 8, 277: channels, 278: height, 279: numbers.nbytes,
        339: (3 if floating else 1,) * channels,
    }  # fmt: skip
    entries |= {338: 2} if channels == 4 else {}
    entries |= {34675: profile} if profile else {}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    pixels = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
    directory, extra = b"", b""
    after = 8 + len(pixels) + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        if isinstance(value, bytes):
            kind, count, packed = 7, len(value), value
        elif isinstance(value, float):
            kind, count, packed = 11, 1, struct.pack("<f", value)
        else:
            values = value if isinstance(value, tuple) else (value,)
            kind, count, packed = 4, len(values), struct.pack(f"<{len(values)}I", *values)
            if tag in (258, 259, 262, 277, 338, 339):  # readers expect short ones
                kind, packed = 3, struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", after + len(extra)), extra + packed
        directory += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    path.write_bytes(head + pixels + struct.pack("<H", len(entries)) + directory + bytes(4) + extra)
