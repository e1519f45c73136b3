"""Figures of the embedded model and of its judge, on drawn scenes that neither was trained on."""

from collections.abc import Iterable
from statistics import mean

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from world import judge as judges
from world import scenes

import ptinv
from ptinv.core import ddim
from ptinv.core.sampling import constant, last, sample
from ptinv.metrics import psnr

from .paper import FREE, NTI
from .tables import markdown

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
    "PTI, ω=7.5, c from ∅, N=0": FREE,
}


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


def share(truths: Iterable[bool]) -> float:
    """The percentage that is true."""
    return 100 * float(np.mean(list(truths)))


def table(corner: str, headings: list[str], rows: dict[str, list[float]], digits: int = 2) -> None:
    """Prints a table in Markdown."""
    cells = {name: [f"{cell:.{digits}f}" for cell in row] for name, row in rows.items()}
    print(markdown(corner, headings, cells))
