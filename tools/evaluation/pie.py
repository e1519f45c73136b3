"""PIE-Bench as its own harness runs it (cure-lab/PnPInversion; Ju et al., arXiv 2310.01506).

700 pictures of 512 pixels with prompts for both, a mask, and the words to blend by. Every method
has seed 1234, 50 steps and ω = 7.5; Prompt-to-Prompt refines, replaces cross-attention for 0.4 and
self-attention (of up to 32² cells) for 0.6 of the steps, and doubles the blend word's attention.
PTI is here twice: from picture and prompt alone, as it was meant, and told what the others are.

Fidelity is measured on the picture times 1 - mask: what is masked is black in both, so its figures
are higher than over the background alone. SSIM leaves out what lies within half a window of the
edge, as torchmetrics 1.0 did; newer ones mirror the picture there. Fidelity is absent where a
mask covers everything.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import PIL
import torch
import transformers
from PIL import Image, ImageChops
from world.edits import Edit

import ptinv

from . import metrics
from .datasets import Case
from .edits import Bench, groups
from .networks import Networks, only
from .runner import Group
from .tables import Column, Rows, estimate, markdown, shown, values
from .variants import Variant

SEED = 1234
P2P = dict(seed=SEED, cross_replace=0.4, self_replace=0.6, self_cells=32, align="refine")
ENGINES = {"DDIM + P2P": "p2p", "Null-Text + P2P": "null-text", "NPI + P2P": "npi",
           "Direct + P2P": "direct", "PTI + P2P": "pti-p2p"}  # fmt: skip
ALONE = {"PTI": "pti", "auto": "auto"}
COLUMNS = (
    Column("structure", "structure, ×10³", 2, 1000.0),
    Column("pie_psnr", "PSNR, dB"),
    Column("pie_lpips", "LPIPS, ×10³", 2, 1000.0),
    Column("pie_mse", "MSE, ×10⁴", 2, 10_000.0),
    Column("pie_ssim", "SSIM, ×10²", 2, 100.0),
    Column("clip", "CLIP score"),
    Column("clip_edited", "within the mask"),
)
PUBLISHED = {  # of sd-v1-4, as that paper's Table 1 has them
    "DDIM + P2P": (69.43, 17.87, 208.80, 219.88, 71.14, 25.01, 22.44),
    "Null-Text + P2P": (13.44, 27.03, 60.67, 35.86, 84.11, 24.75, 21.86),
    "NPI + P2P": (16.17, 26.21, 69.01, 39.73, 83.40, 24.61, 21.87),
    "Direct + P2P": (11.65, 27.22, 54.55, 32.86, 84.76, 25.02, 22.10),
}


def variants(case: Case) -> list[Variant]:
    """The rows of one case: what they are told is its own."""
    told = P2P | {"source": case.caption}
    if len(blend := case.about["blend"]) == 2:
        told |= {"source_focus": blend[0], "focus": blend[1], "reweight": {blend[1]: 2.0}}
    else:
        told |= {"mask": None}
    alone = {"seed": SEED}
    return [Variant(label, method, told) for label, method in ENGINES.items()] + [
        Variant(label, method, alone) for label, method in ALONE.items()
    ]


def groups_of(bench: Bench, cases: list[Case]) -> list[Group]:
    """A group a picture, an item a method."""
    return [group for case in cases for group in groups(bench, [case], variants(case))]


def besides(networks: Networks, made: Image.Image, edit: Edit) -> dict[str, Any]:
    """The fidelity of the background, as the harness measures it."""
    if edit.mask is None or edit.mask.size != made.size:
        raise ptinv.InputError(f"the picture is {made.size} and its mask is not; fetch it again")
    outside = ImageChops.invert(edit.mask)
    if not outside.getbbox():
        return {}
    x, y = (only(picture, outside) for picture in (made, edit.picture))
    fidelity = metrics.psnr(x, y)
    found = {
        "pie_psnr": fidelity,
        "pie_mse": 10 ** (-fidelity / 10),
        "pie_ssim": metrics.ssim(x, y),
    }
    return found | ({"pie_lpips": networks.distance(x, y)} if networks.lpips else {})


def bench_of(bench: Bench) -> Bench:
    """A bench that measures the background, too."""
    return replace(bench, besides=partial(besides, bench.networks))


def report(rows: Rows) -> str:
    """The table in Markdown, the published rows below ours."""
    cells = {}
    for label, row in rows.items():
        found = [estimate([*values(row, column).values()]) for column in COLUMNS]
        cells[label] = [
            "not measured" if e is None else shown(e, column.digits)
            for e, column in zip(found, COLUMNS, strict=True)
        ]
    cells |= {
        f"{label}, published": [f"{x:.2f}" for x in line] for label, line in PUBLISHED.items()
    }
    number = max(map(len, rows.values()))
    return markdown(f"{number} pictures", [column.heading for column in COLUMNS], cells)


def versions() -> str:
    """The versions that CLIP scores move with, in a line."""
    return ", ".join(f"{one.__name__} {one.__version__}" for one in (torch, transformers, PIL))
