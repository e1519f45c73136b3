"""Writes a benchmark of edits whose true result is known, or a sheet of captioned scenes.

python tools/scenes.py OUT --count 32 --seed 0
python tools/scenes.py OUT.png --sheet
"""

import argparse
import sys
from pathlib import Path

from world.edits import sheet, write_benchmark
from world.scenes import SPLITS


def refused(args: argparse.Namespace) -> str | None:
    """The reason why nothing can be written for these arguments, if there is one."""
    if args.count < 1 or args.seed < 0:
        return "--count must be at least 1, and --seed at least 0"
    if args.out.exists() and args.out.is_dir() == args.sheet:
        was, wanted = ("folder", "file") if args.sheet else ("file", "folder")
        return f"{args.out} is a {was}, not a {wanted}"
    return None


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0, or 2 after an error."""
    parser = argparse.ArgumentParser(description="Write pictures with edits whose truth is known.")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=32, help="number of edits (default 32)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default 0)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="(default test)")
    parser.add_argument(
        "--sheet", action="store_true", help="write one picture OUT of COUNT captioned scenes"
    )
    args = parser.parse_args(argv)
    if reason := refused(args):
        print(f"scenes.py: {reason}", file=sys.stderr)
        return 2
    try:
        if args.sheet:
            sheet(args.count, args.split, args.seed).save(args.out)
        else:
            write_benchmark(args.out, args.count, args.split, args.seed)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"scenes.py: cannot write to {args.out}: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
