"""Measures the judge, a model, and the methods, on drawn scenes whose contents and edits are known.

    python tools/evaluate.py judge                   # is the judge right about held-out scenes?
    python tools/evaluate.py model                   # does the model make what captions name?
    python tools/scenes.py scenes --count 16
    python tools/evaluate.py reconstruction scenes   # the paper's Table 2: fidelity of inversions
    python tools/evaluate.py edits scenes            # does an edit do what it should, and no more?

Prints tables in Markdown. Nothing here was trained on the scenes that are used. The unconditional
inversion of each picture, and for edits its tuning, is made once for all rows.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from world import judge as judges
from world import scenes
from world.cells import Edit, Way, cells_of
from world.edits import EDITS as KINDS

import ptinv
from ptinv.core import ddim
from ptinv.core.sampling import constant, last, sample
from ptinv.errors import InputError
from ptinv.metrics import psnr
from ptinv.settings import check
from ptinv.storage.pictures import open_picture

# as PTI's paper compares with it: from the same trajectory, one learning rate, every iteration
NTI = dict(
    method="null-text", encode_ratio=0.8, inversion_guidance=0.0, lr_decay=0.0, stop_below=0.0
)

# sampled with the caption of the picture; ω = 0 in inversion
RECONSTRUCTIONS = {
    "VAE round trip (the ceiling)": dict(method="vae"),
    "DDIM, ω=0": dict(method="ddim", guidance=0.0),
    "DDIM, ω=1": dict(method="ddim", guidance=1.0),
    "DDIM, ω=7.5": dict(method="ddim", guidance=7.5),
    "NTI, ω=7.5, N=5, β=0.01": dict(NTI, inner_steps=5, lr=0.01),
    "PTI, ω=7.5, N=5, β=0.01": dict(method="pti", inner_steps=5, lr=0.01),
    "NTI, ω=7.5, N=1, β=0.1": dict(NTI, inner_steps=1, lr=0.1),
    "PTI, ω=7.5, N=1, β=0.1": dict(method="pti", inner_steps=1, lr=0.1),
    "PTI, ω=7.5, c from ∅, N=0": dict(method="pti", init_embedding="null", inner_steps=0),
}
# every row has the source text, although for many of them it only marks the words that are new
EDITS = (
    Way("DDIM-Global", "ddim-global", told=True),
    Way("DDIM-Edit", "ddim-edit", told=True),
    Way("DiffEdit", "diffedit", told=True),
    Way("latent interpolation", "latent", told=True),
    Way("SDEdit", "sdedit", told=True),
    Way("ILVR", "ilvr", told=True),
    Way("edit-friendly", "edit-friendly", told=True),
    Way("PTI", "pti", told=True),
    Way("PTI, no mask", "pti", {"mask": None}, told=True),
    Way("PTI, true mask", "pti", told=True, true_mask=True),
    Way("Prompt-to-Prompt", "p2p", told=True),
    Way("Null-Text Inversion", "null-text", told=True),
    Way("negative-prompt", "npi", told=True),
    Way("negative-prompt, proximal", "npi-prox", told=True),
    Way("Direct", "direct", told=True),
    Way("PTI under Prompt-to-Prompt", "pti-p2p", told=True),
)


def held_out(count: int, seed: int) -> list[scenes.Scene]:
    """Scenes of the test split, on which nothing is trained."""
    return [scenes.random_scene(scenes.split_rng("test", seed, i)) for i in range(count)]


def judge_figures(model: ptinv.StableDiffusion, count: int, seed: int) -> None:
    """The share of held-out scenes, and of their round trips, about which the judge is right."""
    judge, drawn = judges.load(), held_out(count, seed)
    truth = [scenes.content(scene) for scene in drawn]
    pictures = [scenes.draw(scene) for scene in drawn]
    blurred = [model.decode(model.encode(picture)) for picture in tqdm(pictures, desc="blurring")]
    rows = {}
    for name, shown in {"drawn": pictures, "VAE round trips": blurred}.items():
        seen = judges.look(judge, shown)
        pairs = list(zip(truth, seen, strict=True))
        rows[f"{count} scenes, {name}"] = [
            share(t.kinds.keys() == s.kinds.keys() for t, s in pairs),
            share(t.groups.keys() == s.groups.keys() for t, s in pairs),
            share(t.background == s.background for t, s in pairs),
            share(t.kinds == s.kinds for t, s in pairs),
            share(t == s for t, s in pairs),
        ]
    table("right about, %", ["which things", "colours", "background", "how many", "all"], rows, 1)


def model_figures(model: ptinv.StableDiffusion, count: int, few: int, seed: int) -> None:
    """The share of captions' contents that the judge finds, then the fidelity of inversions."""
    drawn = held_out(count, seed)
    wanted = [scenes.content(scene) for scene in drawn]
    made = generated(model, [scenes.caption(scene) for scene in drawn], seed)
    pairs = list(zip(wanted, judges.look(judges.load(), made), strict=True))
    cells = [
        share(kind in s.kinds for t, s in pairs for kind in t.kinds),
        share(group in s.groups for t, s in pairs for group in t.groups),
        share(t.background == s.background for t, s in pairs),
        share(s.kinds.get(kind) == n for t, s in pairs for kind, n in t.kinds.items()),
        share(t == s for t, s in pairs),
    ]
    headings = ["object", "in its colour", "background", "number", "whole caption"]
    table("found, %", headings, {f"{count} captions, ω=7.5, 50 steps": cells}, 1)
    pictures = [scenes.draw(scene) for scene in drawn]
    trips = [psnr(model.decode(model.encode(p)), p) for p in tqdm(pictures, desc="round trips")]
    print(f"\nVAE round trip of {count} scenes: {mean(trips):.2f} dB, worst {min(trips):.2f}\n")
    captioned = [(p, scenes.caption(s)) for p, s in zip(pictures, drawn, strict=True)]
    reconstruction(model, captioned[:few])


@torch.no_grad()
def generated(
    model: ptinv.StableDiffusion, captions: list[str], seed: int, batch: int = 32
) -> list[Image.Image]:
    """A picture for each caption, as `ptinv.generate` makes it but many at a time."""
    config, made = model.unet.config, []
    shape = (config.latent_channels, config.trained_size, config.trained_size)
    g = torch.Generator().manual_seed(seed)
    for start in tqdm(range(0, len(captions), batch), desc="generating"):
        cond = model.embed(captions[start : start + batch])
        z = torch.randn(len(cond), *shape, generator=g).to(model.device)
        condition = constant(model.embed(""), cond)
        z0 = last(sample(model, z, ddim.schedule(50)[::-1], condition), z)
        made += [model.decode(one) for one in z0.split(1)]
    return made


def reconstruction(model: ptinv.StableDiffusion, captioned: list[tuple[Image.Image, str]]) -> None:
    """The PSNR of each picture's reconstruction, a row a method."""
    scores = {name: [] for name in RECONSTRUCTIONS}
    for picture, caption in tqdm(captioned, desc="reconstructing"):
        inversion = ptinv.invert(model, picture, method="ddim-edit")
        for name, options in RECONSTRUCTIONS.items():
            result = ptinv.reconstruct(model, inversion, caption, **options)
            scores[name].append(psnr(result, picture))
    rows = {name: [mean(values), min(values)] for name, values in scores.items()}
    table(f"{len(captioned)} scenes", ["mean PSNR, dB", "worst"], rows)


def edited(model: ptinv.StableDiffusion, edits: list[Edit]) -> None:
    """The nearness of each edit to the true one, and whether it shows what was asked for."""
    judge = judges.load() if judges.WEIGHTS.is_file() else None
    cells = cells_of(model, edits, list(EDITS))
    results = {"doing nothing": [edit.picture for edit in edits]}
    results |= {label: [cell.picture for cell in row] for label, row in cells.items()}
    results["the true edit"] = truths = [edit.truth for edit in edits]
    nearness, judged = {}, {}
    for name, made in results.items():
        if name != "the true edit":
            near = [psnr(a, b) for a, b in zip(made, truths, strict=True)]
            nearness[name] = by_kind(near, edits)
        if judge:
            seen = judges.look(judge, made)
            right = [scenes.read(edit.target) == s for edit, s in zip(edits, seen, strict=True)]
            distance = judges.perceptual_distance(judge, made, truths).mean()
            judged[name] = [100 * x for x in by_kind(right, edits)] + [float(distance)]
    kinds = kinds_of(edits)
    table("PSNR to the true edit, dB", [*kinds, "all"], nearness)
    if judge:
        table("shows what was asked for, %", [*kinds, "all", "distance to the true edit"], judged)


def kinds_of(edits: list[Edit]) -> list[str]:
    """The kinds of edit that occur."""
    return [kind for kind in KINDS if any(edit.kind == kind for edit in edits)]


def by_kind(values: list[float], edits: list[Edit]) -> list[float]:
    """The mean of the edits of each kind that occurs, then of all."""
    pairs = list(zip(values, edits, strict=True))
    means = [mean(v for v, edit in pairs if edit.kind == kind) for kind in kinds_of(edits)]
    return [*means, mean(values)]


def share(truths: Iterable[bool]) -> float:
    """The percentage that is true."""
    return 100 * float(np.mean(list(truths)))


def table(corner: str, headings: list[str], rows: dict[str, list[float]], digits: int = 2) -> None:
    """Prints a table in Markdown."""
    print(f"| {corner} | {' | '.join(headings)} |\n|---|{'---|' * len(headings)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(f'{cell:.{digits}f}' for cell in cells)} |")


def manifest(folder: Path, count: int | None) -> list[dict]:
    """The edits that `scenes.py` wrote, their paths made whole."""
    path = folder / "manifest.jsonl"
    if not path.is_file():
        raise InputError(f"there is no {path}; write one with python tools/scenes.py {folder}")
    paths = ("image", "truth", "mask")
    try:
        edits = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
        return [edit | {name: folder / edit[name] for name in paths} for edit in edits]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is not what scenes.py writes ({error!r}); write it again"
        ) from error


def listed(entry: dict) -> Edit:
    """The edit that a line of the manifest lists."""
    with Image.open(entry["mask"]) as mask:
        mask.load()
    pictures = open_picture(entry["image"]), open_picture(entry["truth"]), mask
    return Edit(entry["kind"], entry["caption"], entry["target"], *pictures)


def evaluate(args: argparse.Namespace) -> None:
    """Prints what was asked for, once everything that it needs is known to be there."""
    count = 512 if args.count is None else args.count
    check("count", count, 1, 10**6, whole=True)
    check("inverted", args.inverted, 1, 10**6, whole=True)
    check("seed", args.seed, 0, 2**32 - 1, whole=True)
    on_files = args.what in ("reconstruction", "edits")
    if on_files and args.scenes is None:
        raise InputError(f"{args.what} needs a folder that scenes.py wrote; name it")
    if not on_files and not judges.WEIGHTS.is_file():
        raise InputError(
            f"there is no judge at {judges.WEIGHTS}; train one with "
            f"python tools/world/train_judge.py {judges.WEIGHTS.parent}"
        )
    edits = manifest(args.scenes, args.count) if on_files else []
    model = ptinv.load(args.model, args.device, args.dtype)
    match args.what:
        case "judge":
            judge_figures(model, count, args.seed)
        case "model":
            model_figures(model, count, args.inverted, args.seed)
        case "reconstruction":
            reconstruction(model, [(open_picture(e["image"]), e["caption"]) for e in edits])
        case "edits":
            edited(model, [listed(entry) for entry in edits])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["judge", "model", "reconstruction", "edits"])
    parser.add_argument("scenes", type=Path, nargs="?", help="a folder that scenes.py wrote")
    parser.add_argument("--model", help="(default: the embedded one)")
    parser.add_argument("--count", type=int, help="only so many (judge, model: 512)")
    parser.add_argument("--inverted", type=int, default=16, help="by model; of COUNT (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="of what judge and model draw")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    args = parser.parse_args(argv)
    try:
        evaluate(args)
    except (InputError, OSError, FloatingPointError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
