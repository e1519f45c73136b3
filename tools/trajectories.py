"""Draws why prompt tuning is needed: a picture's way into noise, and two ways back.

    python tools/trajectories.py weights/tiny/examples/birds.png "two pink dogs in the snow" \\
        -o trajectories.png

The way up is DDIM inversion without a prompt, from z_0 to z_T'. Down from there, sampling that is
guided at ω = 7.5 leaves the trajectory, and sampling under the tuned embeddings (η = 0) returns
along it. Each dot is the latent after a step. The latents have thousands of numbers; they are drawn
in the plane that holds most of their variance, turned until z_0 and z_T' lie on a level.
"""

import argparse
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from evaluation.command_line import answer
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

import ptinv
from ptinv.settings import check, check_prompt
from ptinv.storage.files import check_output
from ptinv.storage.pictures import FORMATS, open_picture, save_picture

SMOOTH = 4  # oversampling of lines and type
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1000, 190, 84, 48, 52  # pixels, like all that follows
TALLEST = 400  # the curves; they are drawn smaller where they would be taller
EDGE, TILE, FRAME = 24, 112, 4  # a picture at a curve's end
TYPE, SMALL = 19, 14
PAPER, INK, FAINT = (251, 251, 249), (34, 36, 42), (118, 122, 130)
GREY, RED, GREEN = (126, 132, 144), (208, 62, 52), (28, 134, 88)
OMEGA = 0.78  # its width, as a share of the type's size
Place = Sequence[float]  # (x, y)
Colour = tuple[int, int, int]


class Curve(NamedTuple):
    """A way through latent space, clean end first, and the picture at that end."""

    label: str
    colour: Colour
    latents: Tensor  # (T'+1, d)
    picture: Image.Image


class Label(NamedTuple):
    """The place of a curve's label."""

    share: float  # of the way, from the clean end
    shift: tuple[int, int]
    side: str  # see `Paper.text`


# in the order of `curves`
LABELS = (Label(0.5, (0, 26), "m"), Label(0.5, (16, -14), "l"), Label(0.3, (0, -24), "m"))
WIDTHS = (5, 3, 3)
ARROWS = (0.4, 0.72, 0.72)  # their places, as shares of the way


def curves(
    model: ptinv.StableDiffusion, picture: Image.Image, prompt: str, steps: int
) -> list[Curve]:
    """The way up without a prompt, the guided way down, and the tuned one."""
    inversion = ptinv.invert(model, picture, prompt, steps=steps)
    guidance = f"{inversion.settings['guidance']:g}"
    start = inversion.trajectory[-1]
    guided = ptinv.steps(model, inversion, prompt, method="ddim-global")
    tuned = ptinv.steps(model, inversion, prompt, method="pti", eta=0.0, mask=None)
    found = [Curve("inverted, no prompt", GREY, inversion.trajectory.flatten(1), picture)]
    for label, colour, steps_down in (
        (f"guided, ω = {guidance}", RED, guided),
        (f"tuned, ω = {guidance}", GREEN, tuned),
    ):
        latents = visited(start, steps_down)
        found.append(Curve(label, colour, latents.flatten(1), model.decode(latents[0])))
    return found


def visited(start: Tensor, steps: Iterable[ptinv.Step]) -> Tensor:
    """The latents of a way down from `start` (1, c, h, w), clean end first: (T'+1, 1, c, h, w)."""
    return torch.stack([start, *(step.z.cpu() for step in steps)]).flip(0)


def on_a_plane(latents: list[Tensor]) -> tuple[list[Tensor], float]:
    """Curves (n, d) -> their points (n, 2) in the plane of the first two principal components.

    Also returns the share of the variance that the plane holds. The plane is turned so that the
    first curve's ends lie on a level, clean end left, and the second curve's clean end above.
    """
    everything = torch.cat(latents).double()
    centred = everything - everything.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    points = list((centred @ axes[:2].T).split([len(curve) for curve in latents]))
    along = points[0][-1] - points[0][0]
    along = along / along.norm()
    across = torch.stack([-along[1], along[0]])
    if (points[1][0] - points[0][0]) @ across > 0:  # a picture's y grows downwards
        across = -across
    turned = [curve @ torch.stack([along, across]).T for curve in points]
    energy = sizes.square()
    return turned, float(energy[:2].sum() / energy.sum())


def draw(found: list[Curve]) -> Image.Image:
    """The curves with their labels, the pictures at their clean ends on the left."""
    points, share = on_a_plane([curve.latents for curve in found])
    everything = torch.cat(points)
    low, extent = everything.amin(dim=0), everything.amax(dim=0) - everything.amin(dim=0)
    scale = min((WIDTH - LEFT - RIGHT) / float(extent[0]), TALLEST / float(extent[1]))
    places = [((curve - low) * scale + torch.tensor([LEFT, TOP])).tolist() for curve in points]
    tiles = stacked([place[0][1] for place in places])
    height = round(max(float(extent[1]) * scale + TOP, max(tiles) + TILE / 2) + BOTTOM)

    paper = Paper(WIDTH, height)
    for curve, place, y in zip(found, places, tiles, strict=True):
        paper.line([(EDGE + TILE, y), place[0]], curve.colour, 1)
        paper.tile((EDGE, y - TILE / 2), curve.picture, curve.colour)
    for i, (curve, place) in enumerate(zip(found, places, strict=True)):
        paper.curve(place, curve.colour, WIDTHS[i])
        before, after = (at(place, ARROWS[i] + shift) for shift in (-0.03, 0.03))
        paper.arrow(*((before, after) if i == 0 else (after, before)), curve.colour, 3 * WIDTHS[i])
    for curve, place, label in zip(found, places, LABELS, strict=True):
        (x, y), (right, down) = at(place, label.share), label.shift
        paper.text((x + right, y + down), curve.label, curve.colour, side=label.side)
    for (x, y), subscript, rise in ((places[0][0], "0", 20), (places[0][-1], "T'", 0)):
        paper.dot((x, y), INK, 7)
        paper.latent((x + 13, y - rise), subscript)
    remark = f"every dot is a latent; this plane holds {100 * share:.0f} % of their variance"
    paper.text((WIDTH - EDGE, height - EDGE), remark, FAINT, SMALL, "r")
    return paper.done()


def at(points: Sequence[Place], share: float) -> Place:
    """The point at a share of the way."""
    return points[round(share * (len(points) - 1))]


def stacked(wanted: list[float]) -> list[float]:
    """The heights of tiles near those wanted, none on another, and none beyond the upper edge."""
    room, places = TILE + 3 * FRAME, dict[int, float]()
    for i in sorted(range(len(wanted)), key=wanted.__getitem__):
        least = max(places.values()) + room if places else EDGE + TILE / 2
        places[i] = max(wanted[i], least)
    return [places[i] for i in range(len(wanted))]


class Paper:
    """A page to draw on smoothly, in pixels of the finished picture."""

    def __init__(self, width: int, height: int):
        self.image = Image.new("RGB", (width * SMOOTH, height * SMOOTH), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Place], colour: Colour, width: float) -> None:
        """A line through points, in so many pixels of width."""
        scaled = [(x * SMOOTH, y * SMOOTH) for x, y in points]
        self.pen.line(scaled, colour, round(width * SMOOTH), joint="curve")

    def dot(self, place: Place, colour: Colour, radius: float) -> None:
        """A disc."""
        self.pen.circle([x * SMOOTH for x in place], radius * SMOOTH, colour)

    def curve(self, points: Sequence[Place], colour: Colour, width: float) -> None:
        """A line with a dot at every point."""
        self.line(points, colour, width)
        for point in points:
            self.dot(point, colour, width)

    def arrow(self, start: Place, end: Place, colour: Colour, size: float) -> None:
        """The head of an arrow, midway from start to end."""
        x, y = ((a + b) / 2 for a, b in zip(start, end, strict=True))
        turn = math.atan2(end[1] - start[1], end[0] - start[0])
        corners = [turn + angle for angle in (0, 2.5, -2.5)]
        head = [(x + size * math.cos(a), y + size * math.sin(a)) for a in corners]
        self.pen.polygon([(x * SMOOTH, y * SMOOTH) for x, y in head], colour)

    def text(
        self, place: Place, text: str, colour: Colour, size: int = TYPE, side: str = "m"
    ) -> None:
        """A line of type about a place: its left end ("l"), middle or right end there.

        Pillow's own font has no ω, so that is drawn.
        """
        font = ImageFont.load_default(size * SMOOTH)
        pieces = [piece for piece in re.split("(ω)", text) if piece]
        widths = [OMEGA * size * SMOOTH if p == "ω" else font.getlength(p) for p in pieces]
        x, y = (number * SMOOTH for number in place)
        x -= {"l": 0, "m": 0.5, "r": 1}[side] * sum(widths)
        for piece, width in zip(pieces, widths, strict=True):
            if piece == "ω":
                self._omega(x, y, width, colour)
            else:
                self.pen.text(
                    (x, y), piece, colour, font, "lm", stroke_width=SMOOTH * 3, stroke_fill=PAPER
                )
            x += width

    def _omega(self, x: float, y: float, width: float, colour: Colour) -> None:
        """An ω, of a width, about the level of a line of type."""
        top, base, bowl = y - 0.3 * width, y + 0.42 * width, 0.5 * width
        for left, start, end in ((x, 0, 245), (x + 0.92 * bowl, -65, 180)):
            corners = (left, top, left + bowl, base)
            self.pen.arc(corners, start, end, colour, round(0.11 * width))

    def latent(self, place: Place, subscript: str) -> None:
        """The name of a latent: z with a subscript."""
        x, y = place
        self.text(place, "z", INK, TYPE, "l")
        self.text((x + 10, y + 6), subscript, INK, SMALL, "l")

    def tile(self, corner: Place, picture: Image.Image, colour: Colour) -> None:
        """The middle of a picture, small and in a frame."""
        x, y = (round(number * SMOOTH) for number in corner)
        side, frame = TILE * SMOOTH, FRAME * SMOOTH
        self.pen.rectangle((x - frame, y - frame, x + side + frame, y + side + frame), colour)
        self.image.paste(ImageOps.fit(picture, (side, side)), (x, y))

    def done(self) -> Image.Image:
        """The finished picture."""
        return self.image.reduce(SMOOTH)


def main(argv: list[str] | None = None) -> int:
    return answer("trajectories.py", draw_file, parser(), argv)


def draw_file(args: argparse.Namespace) -> None:
    """Walks and draws what the command line names."""
    out = check_output(args.output, FORMATS, [args.picture])
    check("steps", args.steps, 2, 500, whole=True)
    check_prompt(args.prompt, "what guides the way down")
    picture = open_picture(args.picture)
    model = ptinv.load(args.model, args.device, args.dtype)
    save_picture(draw(curves(model, picture, args.prompt, args.steps)), out)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    top.add_argument("picture", metavar="PICTURE")
    top.add_argument("prompt", metavar="PROMPT", help="any: the guided way down is under it")
    top.add_argument("-o", "--output", required=True, metavar="OUT.png", help="or .webp, .jpg")
    top.add_argument("--model", help="(default: the embedded one)")
    top.add_argument("--steps", type=int, default=50, help="of the whole schedule (default 50)")
    top.add_argument("--device")
    top.add_argument("--dtype")
    return top


if __name__ == "__main__":
    sys.exit(main())
