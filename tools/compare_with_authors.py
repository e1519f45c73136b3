"""Compares the table's methods with their authors' own code, run on the embedded model.

    git clone https://github.com/cure-lab/PnPInversion DIR/PnPInversion    # and so on
    python tools/compare_with_authors.py DIR [--only direct]

Nothing of that code is here: it is imported from DIR, where each repository has its own name. Both
sides start at the same latent; where this project decided otherwise than the code, the decision is
taken back, and the table says which. A difference of 1e-5 is float32's rounding over the steps.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from authors import noising, others, side_by_side
from authors.stage import Stage

from ptinv.errors import InputError
from ptinv.storage.checkpoint import EMBEDDED
from ptinv.storage.pictures import open_picture

EXAMPLE = Path(__file__).parents[1] / "weights" / "tiny" / "examples" / "birds.png"
PAIRED = "words are aligned by refinement"


@dataclass(frozen=True)
class Comparison:
    """One method with the code that it is compared with."""

    method: str
    repository: str  # owner/name, or a library that is installed
    where: str  # file: function
    differ: Callable[[Stage, Path], float]  # both sides run; the largest relative difference
    taken_back: str  # this project's decisions

    def folder(self, directory: Path) -> Path:
        """Folder that its repository is looked for in; a library is not."""
        return directory if self.repository == LIBRARY else directory / Path(self.repository).name


COMPVIS, SAMPLER = "CompVis/stable-diffusion", "ldm/models/diffusion/ddim.py"
LIBRARY = "diffusers"
P2P, FORWARD = "cure-lab/PnPInversion", "models/p2p/p2p_guidance_forward.py"
COMPARISONS = (
    Comparison("p2p", P2P, f"{FORWARD}: p2p_guidance_forward", side_by_side.p2p, PAIRED),
    Comparison(
        "null-text",
        P2P,
        "models/p2p/inversion.py: null_optimization",
        side_by_side.null_text,
        PAIRED,
    ),
    Comparison(
        "npi", P2P, "models/p2p/inversion.py: NegativePromptInversion", side_by_side.npi, PAIRED
    ),
    *(
        Comparison(
            f"npi-prox, {norm}",
            P2P,
            "models/p2p/proximal_guidance_forward.py: proximal_guidance_diffusion_step",
            side_by_side.npi_prox(norm),
            f"{PAIRED}; proximal=code-{norm}, where the paper's operator is the default",
        )
        for norm in ("l0", "l1")
    ),
    Comparison(
        "direct",
        P2P,
        f"{FORWARD}: direct_inversion_p2p_guidance_forward",
        side_by_side.direct,
        PAIRED,
    ),
    Comparison(
        "edit-friendly",
        "inbarhub/DDPM_inversion",
        "ddm_inversion/inversion_utils.py: inversion_reverse_process",
        others.edit_friendly,
        "the last noise map is zero; ω = 3.5, as rounding grows with it",
    ),
    Comparison(
        "pti",
        "wmchen/diffusion-inversion",
        "inversions/unet_based/pti/pipeline_sd.py: inverse",
        others.pti,
        "inverted and tuned for the source text at ω = 1, β falls by 1 % a step; η = 0",
    ),
    Comparison(
        "diffedit",
        LIBRARY,
        "StableDiffusionDiffEditPipeline.generate_mask (the masks' cells)",
        others.diffedit,
        "none",
    ),
    Comparison(
        "diffedit-port",
        "Xiang-cd/DiffEdit-stable-diffusion",
        "diffedit.ipynb: get_mask (the mask's cells)",
        others.diffedit_port,
        "none; on their side, timesteps have the offset of one",
    ),
    Comparison(
        "sdedit",
        COMPVIS,
        f"{SAMPLER}: stochastic_encode, decode",
        noising.sdedit,
        "a strength of 0.7, which needs no rounding; noised for the step that is decoded first",
    ),
    Comparison("ddim-global", COMPVIS, f"{SAMPLER}: decode", noising.ddim_global, "none"),
    Comparison(
        "ilvr",
        "jychoi118/ilvr_adm",
        "resizer.py: Resizer (the filter)",
        noising.ilvr,
        "edges are mirrored",
    ),
)


def row(comparison: Comparison, found: float) -> str:
    """A line of the Markdown table."""
    c = comparison
    return f"| {c.method} | {c.repository}, {c.where} | {found:.1e} | {c.taken_back} |"


def compare(directory: Path, only: str | None) -> None:
    """Prints the table, and for each missing repository how to get it. Raises InputError."""
    chosen = [c for c in COMPARISONS if only in (None, c.method)]
    if not chosen:
        names = ", ".join(c.method for c in COMPARISONS)
        raise InputError(f"nothing is compared for {only!r}; there are {names}")
    if not directory.is_dir():
        raise InputError(f"there is no folder {directory}; clone the authors' repositories into it")
    missing = {c.repository: c for c in chosen if not c.folder(directory).is_dir()}
    for name, c in missing.items():
        clone = f"git clone https://github.com/{name} {c.folder(directory)}"
        print(f"{name} is not in {directory}; run: {clone}", file=sys.stderr)
    present = [c for c in chosen if c.repository not in missing]
    if not present:
        raise InputError(f"{directory} has none of the repositories to compare with; clone one")
    stage = Stage(EMBEDDED, open_picture(EXAMPLE))
    print("| method | compared with | largest relative difference | decisions taken back |")
    print("|---|---|---|---|")
    for c in present:
        with redirect_stdout(sys.stderr):  # the authors' code talks
            found = c.differ(stage, c.folder(directory).resolve())
        print(row(c, found), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="the repositories' folder")
    parser.add_argument("--only", metavar="NAME", help="one method")
    given = parser.parse_args(arguments)
    try:
        compare(given.directory, given.only)
    except InputError as error:
        print(f"compare_with_authors: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
