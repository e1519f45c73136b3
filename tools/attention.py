"""Draws where in a picture each word of a prompt looks: its cross-attention, as heat over it.

    python tools/attention.py picture.png "two pink birds in the snow" -o maps.png

Each map is relative to its own maximum, which is written below the word, so a weak map looks as
bright as a strong one. Little words often show the noun before them, since CLIP's text model reads
from left to right. Nothing is edited: the picture is inverted without a prompt, and the UNet is run
once at each of its latents. PICTURE may be what `ptinv invert` made of one.
"""

import argparse
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import torch
from evaluation.command_line import answer
from PIL import Image, ImageChops, ImageOps
from torch import Tensor
from tqdm import tqdm
from world.sheets import Row, Tile, draw_sheet

import ptinv
from ptinv.settings import check_prompt
from ptinv.storage.files import check_output
from ptinv.storage.pictures import FORMATS, save_picture
from ptinv.word_maps import Steps

SHOWN = (256, 256)  # pixels that a picture on a sheet has at most
COLOURS = "000004 1f0c48 550f6d 88226a ba3655 e35933 f98c0a f9c932 fcffa4"
# matplotlib's "inferno": even steps look even, also without colour
RAMP = np.array([list(bytes.fromhex(colour)) for colour in COLOURS.split()])
DIM = 0.4  # of the grey picture under the heat
NUMBER = "[0-9]{1,4}"


def main(argv: list[str] | None = None) -> int:
    return answer("attention.py", draw_file, parser(), argv)


def draw_file(args: argparse.Namespace) -> None:
    """Measures and draws what the command line names."""
    output = check_output(args.output, FORMATS, [args.picture])
    check_prompt(args.prompt, "what to look for in the picture")
    model = ptinv.load(args.model, args.device, args.dtype)
    given = {name: getattr(args, name) for name in ("steps", "encode_ratio") if name in args}
    levels = args.levels and [level for span in args.levels for level in span]
    maps = ptinv.attention_maps(
        model,
        args.picture,
        args.prompt,
        levels,
        lambda loop, label: tqdm(loop, desc=f"{label:9}", disable=args.quiet),
        **given,
    )
    save_picture(draw(maps, args.at), output)


def draw(maps: ptinv.AttentionMaps, at: Iterable[Steps] | None = None) -> Image.Image:
    """Draws every word's map: a row for each level and each of `at`, the steps it averages over (by
    default all), and a key. Raises InputError for a step that isn't there, or too many."""
    at = list(at or []) or [range(1, maps.steps + 1)]
    rows = [row_of(maps, level, steps) for level in maps.maps for steps in at]
    bar = over(Image.new("RGB", (128, 14)), torch.linspace(0, 1, 128)[None])
    key = "0 to max, the word's largest share of a pixel's attention"
    order = f"step {maps.steps} is the noisiest, step 1 next to the picture"
    return draw_sheet([*rows, Row([Tile(bar, "the colours")])], f"{key}; {order}")


def row_of(maps: ptinv.AttentionMaps, level: int, steps: Steps) -> Row:
    """A level at some steps: the picture, and every word's map over it."""
    shown = ImageOps.contain(maps.picture, SHOWN)
    tiles = [Tile(shown, "the picture")]
    for word in maps.words:
        heat = maps.of(word, level, steps)
        tiles.append(Tile(over(shown, heat), word.text, f"max {heat.max():.1%}"))
    height, width = maps.maps[level].shape[2:]
    when = ("step" if len(steps) == 1 else "mean of steps") + f" {listed(steps)}"
    return Row(tiles, f"level {level} ({width} x {height})", f"{when} of {maps.steps}")


def listed(numbers: Collection[int]) -> str:
    """Whole numbers as text, such as "1 to 40" where none is left out, else "3, 5"."""
    span = range(min(numbers), max(numbers) + 1)
    whole = len(span) > 1 and sorted(numbers) == list(span)
    return f"{span[0]} to {span[-1]}" if whole else ", ".join(map(str, numbers))


def over(picture: Image.Image, heat: Tensor) -> Image.Image:
    """Draws a map (h, w) as heat over an RGB picture in dim grey, smoothly enlarged to its size.
    Its numbers, from 0 up, are drawn relative to their largest: brighter is always more."""
    shares = Image.fromarray((heat / heat.max().clamp(min=1e-12)).float().numpy())
    shares = np.asarray(shares.resize(picture.size, Image.Resampling.BICUBIC))
    places = np.linspace(0, 1, len(RAMP))
    colours = np.stack([np.interp(shares, places, channel) for channel in RAMP.T], axis=-1)
    grey = picture.convert("L").point(lambda level: DIM * level).convert("RGB")
    light = Image.fromarray(colours.round().astype(np.uint8))
    return ImageChops.screen(grey, light)  # added: never darker


def spans(text: str) -> list[range]:
    """Reads whole numbers and ranges of them, such as 40,20,1-10."""
    span = rf"{NUMBER}(-{NUMBER})?"
    if re.fullmatch(rf"{span}(,{span})*", text):
        ends = [sorted(int(k) for k in part.split("-")) for part in text.split(",")]
        return [range(both[0], both[-1] + 1) for both in ends]
    raise argparse.ArgumentTypeError(f"{text!r} is not numbers, such as 40,20, or ranges, 1-10")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    top.add_argument("picture", metavar="PICTURE", help="or what `ptinv invert` made of it")
    top.add_argument("prompt", metavar="PROMPT")
    top.add_argument("-o", "--output", type=Path, metavar="MAPS.png", required=True)
    of_unet = "of the UNet, from fine to coarse (default: the one that masks are made at)"
    top.add_argument("--levels", metavar="1,2", type=spans, help=of_unet)
    steps = "steps, from 1 next to the picture to T' (40 by default), the noisiest; a range is "
    steps += "averaged (default: all, averaged)"
    top.add_argument("--at", metavar="40,20,1-10", type=spans, help=steps)
    for name, kind in (("--steps", int), ("--encode-ratio", float)):
        top.add_argument(name, type=kind, default=argparse.SUPPRESS, help="as of `ptinv edit`")
    for name in ("--model", "--device", "--dtype"):
        top.add_argument(name, help="as of `ptinv edit`")
    top.add_argument("--quiet", action="store_true", help="say only what is wrong")
    return top


if __name__ == "__main__":
    sys.exit(main())
