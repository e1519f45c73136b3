"""Measures the judge, a model, and the methods, on drawn scenes whose contents and edits are known.

    python tools/evaluate.py judge                   # is the judge right about held-out scenes?
    python tools/evaluate.py model                   # does the model make what captions ask for?
    python tools/scenes.py scenes --count 16
    python tools/evaluate.py reconstruction scenes   # the paper's Table 2: what an inversion keeps
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

import judge as judges
import numpy as np
import scenes
import torch
from PIL import Image
from tqdm import tqdm

import ptinv
from ptinv import ddim, images
from ptinv.editing.conditions import constant
from ptinv.errors import InputError
from ptinv.methods import METHODS, Method
from ptinv.metrics import psnr
from ptinv.sampling import Walk, last, walk_down
from ptinv.settings import check

EMBEDDED = Path(__file__).parents[1] / "weights" / "tiny"

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
EDITS = {
    "DDIM-Global": dict(method="ddim-global"),
    "DDIM-Edit": dict(method="ddim-edit"),
    "DiffEdit": dict(method="diffedit"),
    "latent interpolation": dict(method="latent"),
    "SDEdit": dict(method="sdedit"),
    "ILVR": dict(method="ilvr"),
    "edit-friendly": dict(method="edit-friendly"),
    "PTI": dict(method="pti"),
    "PTI, no mask": dict(method="pti", mask=None),
    "PTI, true mask": dict(method="pti", mask="true"),
    "Prompt-to-Prompt": dict(method="p2p"),
    "Null-Text Inversion": dict(method="null-text"),
    "negative-prompt": dict(method="npi"),
    "negative-prompt, proximal": dict(method="npi-prox"),
    "Direct": dict(method="direct"),
    "PTI under Prompt-to-Prompt": dict(method="pti-p2p"),
}


def held_out(count: int, seed: int) -> list[scenes.Scene]:
    """Scenes of the test split, on which nothing is trained."""
    return [scenes.random_scene(scenes.split_rng("test", seed, i)) for i in range(count)]


def judge_figures(model: ptinv.StableDiffusion, count: int, seed: int) -> None:
    """How often the judge is wholly right about held-out scenes, and about their round trips."""
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
    """What the judge finds of what captions ask for, then what inversions keep of pictures."""
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
        walk = Walk(constant(model.embed(""), cond), 7.5)
        z0 = last(walk_down(model, z, ddim.ladder(50)[::-1], walk), z)
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


def edited(model: ptinv.StableDiffusion, edits: list[dict]) -> None:
    """How near an edit is to the true one, and whether the judge sees in it what was asked for."""
    judge = judges.load() if judges.WEIGHTS.is_file() else None
    results = {name: [] for name in ("doing nothing", *EDITS, "the true edit")}
    for edit in tqdm(edits, desc="edits"):
        picture = images.open_picture(edit["image"])
        inversion = ptinv.invert(model, picture, edit["target"], method="pti")
        results["doing nothing"].append(picture)
        results["the true edit"].append(images.open_picture(edit["truth"]))
        for name, options in EDITS.items():
            options = {"source": edit["caption"], **options}  # to many only for the focus words
            if options.get("mask") == "true":
                options["mask"] = Image.open(edit["mask"])
            row = METHODS[options["method"]]
            start = inversion if shares_its_trajectory(row, METHODS["pti"]) else picture
            results[name].append(ptinv.edit(model, start, edit["target"], **options))
    truths = results["the true edit"]
    kinds = [kind for kind in scenes.EDITS if any(edit["kind"] == kind for edit in edits)]
    nearness, judged = {}, {}
    for name, made in results.items():
        if name != "the true edit":
            near = [psnr(a, b) for a, b in zip(made, truths, strict=True)]
            nearness[name] = _by_kind(near, edits, kinds)
        if judge:
            seen = judges.look(judge, made)
            right = [scenes.read(edit["target"]) == s for edit, s in zip(edits, seen, strict=True)]
            distance = judges.perceptual_distance(judge, made, truths).mean()
            judged[name] = [100 * x for x in _by_kind(right, edits, kinds)] + [float(distance)]
    table("PSNR to the true edit, dB", [*kinds, "all"], nearness)
    if judge:
        table("shows what was asked for, %", [*kinds, "all", "distance to the true edit"], judged)


def shares_its_trajectory(row: Method, other: Method) -> bool:
    """Whether, at their defaults, what one row inverted serves another."""
    names = "steps", "encode_ratio", "inversion_guidance"
    same = all(row.defaults.get(name) == other.defaults.get(name) for name in names)
    return same and row.trajectory is other.trajectory


def _by_kind(values: list[float], edits: list[dict], kinds: list[str]) -> list[float]:
    """The mean of the edits of each kind, then of all."""
    pairs = list(zip(values, edits, strict=True))
    return [mean(v for v, edit in pairs if edit["kind"] == kind) for kind in kinds] + [mean(values)]


def share(truths: Iterable[bool]) -> float:
    """How many in a hundred are true."""
    return 100 * float(np.mean(list(truths)))


def table(corner: str, headings: list[str], rows: dict[str, list[float]], digits: int = 2) -> None:
    """Prints one in Markdown."""
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
            f"python tools/train_judge.py {judges.WEIGHTS.parent}"
        )
    edits = manifest(args.scenes, args.count) if on_files else []
    model = ptinv.load(args.model, args.device, args.dtype)
    match args.what:
        case "judge":
            judge_figures(model, count, args.seed)
        case "model":
            model_figures(model, count, args.inverted, args.seed)
        case "reconstruction":
            reconstruction(model, [(images.open_picture(e["image"]), e["caption"]) for e in edits])
        case "edits":
            edited(model, edits)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["judge", "model", "reconstruction", "edits"])
    parser.add_argument("scenes", type=Path, nargs="?", help="a folder that scenes.py wrote")
    parser.add_argument("--model", default=EMBEDDED)
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
