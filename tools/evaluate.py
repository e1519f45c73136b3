"""Measures a model and the methods on scenes whose true edits are known (see `scenes.py`).

    python tools/scenes.py scenes --count 12 --seed 1
    python tools/evaluate.py reconstruction scenes   # the paper's Table 2: what an inversion keeps
    python tools/evaluate.py edits scenes            # how near an edit comes to the true one

Prints a table in Markdown: the mean PSNR in dB, and for reconstructions the worst picture's. The
unconditional inversion of each picture, and for edits its tuning, is made once for all rows.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image
from tqdm import tqdm

import ptinv
from ptinv import images
from ptinv.errors import InputError
from ptinv.metrics import psnr

EMBEDDED = Path(__file__).parents[1] / "weights" / "tiny"

# sampled with the caption of the picture; ω = 0 in inversion
RECONSTRUCTIONS = {
    "VAE round trip (the ceiling)": dict(method="vae"),
    "DDIM, ω=0": dict(method="ddim", guidance=0.0),
    "DDIM, ω=1": dict(method="ddim", guidance=1.0),
    "DDIM, ω=7.5": dict(method="ddim", guidance=7.5),
    "PTI, ω=7.5, N=5, β=0.01": dict(method="pti", inner_steps=5, lr=0.01),
    "PTI, ω=7.5, N=1, β=0.1": dict(method="pti", inner_steps=1, lr=0.1),
    "PTI, ω=7.5, c from ∅, N=0": dict(method="pti", init_embedding="null", inner_steps=0),
}
EDITS = {
    "DDIM-Global": dict(method="ddim-global"),
    "DDIM-Edit": dict(method="ddim-edit"),
    "PTI": dict(method="pti"),
    "PTI, no mask": dict(method="pti", mask=None),
    "PTI, true mask": dict(method="pti", mask="true"),
}


def reconstruction(model: ptinv.StableDiffusion, edits: list[dict]) -> None:
    """The PSNR of each picture's reconstruction, a row a method."""
    scores = {name: [] for name in RECONSTRUCTIONS}
    for edit in tqdm(edits, desc="pictures"):
        picture = Image.open(edit["image"])
        inversion = ptinv.invert(model, picture, method="ddim-edit")
        for name, options in RECONSTRUCTIONS.items():
            result = ptinv.reconstruct(model, inversion, edit["caption"], **options)
            scores[name].append(psnr(result, images.to_rgb(picture)))
    print_table("| method | mean PSNR, dB | worst |", scores)


def edited(model: ptinv.StableDiffusion, edits: list[dict]) -> None:
    """The PSNR of each edit against the true edit, a row a method; by kind of edit."""
    kinds = sorted({edit["kind"] for edit in edits})
    scores = {name: {kind: [] for kind in kinds} for name in ("doing nothing", *EDITS)}
    for edit in tqdm(edits, desc="edits"):
        picture, truth = images.open_picture(edit["image"]), images.open_picture(edit["truth"])
        inversion = ptinv.invert(model, picture, edit["target"], method="pti")
        scores["doing nothing"][edit["kind"]].append(psnr(picture, truth))
        for name, options in EDITS.items():
            options = {"source": edit["caption"], **options}  # for the focus words alone
            if options.get("mask") == "true":
                options["mask"] = Image.open(edit["mask"])
            result = ptinv.edit(model, inversion, edit["target"], **options)
            scores[name][edit["kind"]].append(psnr(result, truth))
    print(
        f"| PSNR to the true edit, dB | {' | '.join(kinds)} | all |\n|---|{'---|' * len(kinds)}---|"
    )
    for name, by_kind in scores.items():
        cells = [mean(by_kind[kind]) for kind in kinds] + [mean(sum(by_kind.values(), []))]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


def print_table(header: str, scores: dict[str, list[float]]) -> None:
    print(f"{header}\n|{'---|' * (header.count('|') - 1)}")
    for name, values in scores.items():
        print(f"| {name} | {np.mean(values):.2f} | {min(values):.2f} |")


def manifest(folder: Path, count: int | None) -> list[dict]:
    """The edits that `scenes.py` wrote, their paths made whole."""
    path = folder / "manifest.jsonl"
    if not path.is_file():
        raise InputError(f"there is no {path}; write one with python tools/scenes.py {folder}")
    edits = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    paths = ("image", "truth", "mask")
    return [edit | {name: folder / edit[name] for name in paths} for edit in edits]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["reconstruction", "edits"])
    parser.add_argument("scenes", type=Path, help="folder that scenes.py wrote")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--count", type=int, help="only the first so many")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    args = parser.parse_args(argv)
    try:
        edits = manifest(args.scenes, args.count)
        model = ptinv.load(args.model, args.device, args.dtype)
    except InputError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    {"reconstruction": reconstruction, "edits": edited}[args.what](model, edits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
