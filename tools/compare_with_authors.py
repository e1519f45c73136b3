"""Compares methods of the table with their authors' own code, where its repositories are cloned.

    pip install -e ".[peers,plots]"
    python tools/compare_with_authors.py DIR

DIR holds clones of the repositories below; what is not there is named, and the rest is compared.
Their code is imported from there and runs on this project's networks (tools/authors/facade.py says
how), on the embedded model and a drawn scene, with the settings of both sides made equal. Prints a
table: the largest difference of the final latents over the largest number in them, and which of
this project's own decisions were taken back for it.
"""

import argparse
import sys
import warnings
from pathlib import Path

from authors.comparisons import INSTALLED, ROWS, SIDE, Setting
from evaluation.tables import markdown
from torch import Tensor
from world.edits import random_edit
from world.scenes import caption, draw

import ptinv


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare(s: Setting, names: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """A line of the table for each comparison that can be made, and what is missing for others."""
    lines, missing = {}, []
    for name in names:
        row = ROWS[name]
        clone = s.folder / row.repository.partition("/")[2]
        if row.repository != INSTALLED and not clone.is_dir():
            missing.append(f"{name}: git clone https://github.com/{row.repository} {clone}")
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = difference(*row.run(s))
        except ImportError as error:
            missing.append(f"{name}: {error}; pip install -e '.[peers,plots]'")
            continue
        lines[name] = [f"{row.repository}, {row.where}", f"{found:.1e}", row.taken_back]
    return lines, missing


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the repositories' clones")
    parser.add_argument("--only", action="append", choices=list(ROWS), help="(repeatable)")
    parser.add_argument("--model", help="(default: the embedded one)")
    args = parser.parse_args(argv)
    try:
        model = ptinv.load(args.model, "cpu", "float32")
    except ptinv.InputError as error:
        print(f"compare_with_authors.py: {error}", file=sys.stderr)
        return 2
    scene, edited = random_edit("object", "test", 0, 1)
    setting = Setting(model, args.folder, draw(scene, SIDE), caption(scene), caption(edited))
    lines, missing = compare(setting, args.only or list(ROWS))
    for sentence in missing:
        print(f"compare_with_authors.py: {sentence}", file=sys.stderr)
    if lines:
        heads = ["compared with", "largest relative difference", "taken back for it"]
        print(markdown("method", heads, lines))
    return 0 if lines else 2


if __name__ == "__main__":
    sys.exit(main())
