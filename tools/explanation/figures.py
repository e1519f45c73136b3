"""Figures in HTML: pictures side by side, frames that a slider moves through, tables of numbers.

Whatever is seen is said in words, too. Without the page's script all frames are shown, one after
the other.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

from PIL import Image


class Album:
    """The pictures of a page, each once, in the order in which they come. A page is written with
    their numbers first, so that it can be filled with them in one quality after another."""

    def __init__(self):
        self.pictures: list[Image.Image] = []

    def source(self, picture: Image.Image) -> str:
        """Keeps a picture, and returns the attribute that stands in its place."""
        number = next((i for i, known in enumerate(self.pictures) if known is picture), None)
        if number is None:
            number = len(self.pictures)
            self.pictures.append(picture)
        return f'src="picture:{number}"'

    def fill(self, text: str, quality: int) -> str:
        """A text with the pictures in it, as WebP of a quality from 0 to 100."""
        files = [webp(picture, quality) for picture in self.pictures]
        # quotes that a user types are escaped, so none of these is a user's
        return re.sub(r'src="picture:(\d+)"', lambda m: f'src="{files[int(m[1])]}"', text)


def webp(picture: Image.Image, quality: int) -> str:
    """A picture as an address that holds all of it."""
    file = BytesIO()
    picture.save(file, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


class Shown(NamedTuple):
    """A picture with a label; described in words where it isn't seen."""

    picture: Image.Image
    label: str  # HTML
    words: str


class Frame(NamedTuple):
    """One place of a slider: pictures and their caption."""

    pictures: Sequence[Shown]
    caption: str  # HTML
    value: str  # of the slider, in words
    x: float | None = None  # of the marker in its drawing


def pictures(album: Album, shown: Iterable[Shown], kind: str = "", columns: int = 2) -> str:
    """Pictures side by side, each over its label."""
    cells = []
    for one in shown:
        size = f'width="{one.picture.width}" height="{one.picture.height}"'
        image = f'<img {album.source(one.picture)} {size} alt="{escape(one.words)}">'
        label = f'<span class="label">{one.label}</span>' if one.label else ""
        cells.append(f"<div>{image}{label}</div>")
    style = f' style="--columns: {min(columns, len(cells))}"' if columns else ""
    return f'<div class="pictures {kind}"{style}>{"".join(cells)}</div>'


def frames(
    album: Album,
    label: str,
    frames: Sequence[Frame],
    chart: str = "",
    start: int = 0,
    kind: str = "",
) -> str:
    """The frames that a slider moves through; chart: the drawing whose marker goes with it."""
    parts = []
    for frame in frames:
        several = len(frame.pictures)
        x = "" if frame.x is None else f' data-x="{frame.x}"'
        inner = pictures(album, frame.pictures, "four" if several > 2 else "", several)
        parts.append(f'<figure class="frame"{x} data-value="{escape(frame.value)}">{inner}'
                     f"<figcaption>{frame.caption}</figcaption></figure>")  # fmt: skip
    data = f'data-label="{label}" data-chart="{chart}" data-start="{start}"'
    return f'<div class="frames {kind}" {data}>{"".join(parts)}</div>'


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Numbers behind a drawing, folded away."""
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    inner = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"""<details><summary>{title}, as numbers</summary>
<div class="scrolled"><table>{inner}</table></div></details>"""
