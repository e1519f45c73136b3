"""Measures speed and memory; each table names the machine, and rows come as they are measured.

    python tools/benchmark.py networks                        # beside diffusers, where installed
    python tools/benchmark.py load sd-v1-4 --dtype float16    # opening a checkpoint
    python tools/benchmark.py load folder --make              # the same for one of random weights
    python tools/benchmark.py edit picture.png "a yellow car" # its stages
    python tools/benchmark.py gpu --random                    # methods, one picture and several
    python tools/benchmark.py gpu --random --compile          # the same by torch.compile, too
    python tools/benchmark.py growth -o plot.png              # by area, steps, N and pictures
    python tools/benchmark.py start                           # from a command to its end
    python tools/benchmark.py memory                          # methods in each precision

`networks` runs sd-v1-4 at full size with random weights, on whose values speed doesn't depend.
Where diffusers is installed its classes run in turn (A B A B …) on the same tensors, after a
warm-up, all under autocast. Memory is what the first call of a fresh process adds at its peak.
`load` opens a checkpoint in a fresh process and reads every weight once, so that those which are
only mapped count too. A file that was read lately comes from the system's cache, which is faster.
`gpu`, `growth` and `memory` make whole edits. `--random` has a model of sd-v1-4's size made in
memory, with no file. A UNet row is one latent at one timestep under one embedding. Peak memory is
what PyTorch has allocated on a GPU, and all that the process holds on a CPU.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from importlib import metadata, util
from pathlib import Path

import torch
from benchmarks.edits import BIRDS, PROMPT, edit, gpu, precisions
from benchmarks.growth import growth
from benchmarks.loading import load
from benchmarks.measure import Row
from benchmarks.networks import networks
from benchmarks.starting import start

from ptinv.errors import InputError
from ptinv.storage.checkpoint import DTYPES

COMMANDS = dict(networks=networks, load=load, edit=edit, gpu=gpu, growth=growth)
COMMANDS |= dict(memory=precisions, start=start)


def machine() -> str:
    """The machine and libraries that the figures hold for, in a line."""
    parts = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[:1]
    parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    parts += [f"{torch.get_num_threads()} threads", f"load average {os.getloadavg()[0]:.1f}"]
    found = [name for name in ("torch", "diffusers") if util.find_spec(name)]
    return ", ".join(parts + [f"{name} {metadata.version(name)}" for name in found])


def lines(found: Iterator[Row | str]) -> Iterator[str]:
    """Sentences and a Markdown table, line by line as its rows come."""
    begun = False
    for one in found:
        if isinstance(one, str):
            yield f"\n{one}" if begun else one
            continue
        if not begun:
            begun = True
            yield from ("", line_of(one), line_of(["---"] * len(one)))
        yield line_of(f"{x:.4g}" if isinstance(x, float) else str(x) for x in one.values())


def line_of(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_json(found: Iterator[Row | str]) -> str:
    """The rows, and the sentences, as one object."""
    notes, rows = [], []
    for one in found:
        (notes if isinstance(one, str) else rows).append(one)
    return json.dumps({"machine": machine(), "notes": notes, "rows": rows})


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number from `least` on."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, not {text}")
        return int(text)

    return number


def listed(kind: Callable = str) -> Callable[[str], list]:
    """Reads values with commas between them."""

    def values(text: str) -> list:
        return [kind(part.strip()) for part in text.split(",")]

    return values


def precision(name: str) -> str:
    if name not in DTYPES:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(DTYPES)}, not {name}")
    return name


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar=" | ".join(COMMANDS))
    parsers = {name: commands.add_parser(name, help=r.__doc__) for name, r in COMMANDS.items()}
    for name, command in parsers.items():
        command.set_defaults(run=COMMANDS[name])
        command.add_argument("--json", action="store_true", help="print one JSON object")
        if name not in ("memory", "start"):
            usual = "float32" if name in ("networks", "load") else "auto"
            command.add_argument("--dtype", choices=["auto", *DTYPES], default=usual)
        if name not in ("load", "start"):
            usual = "cuda" if name == "gpu" else "cpu"
            command.add_argument("--device", choices=["cpu", "cuda"], default=usual)
    add = parsers["networks"].add_argument
    add("--size", type=int, default=64, help="of the latent: 64 is a picture of 512 pixels")
    add("--repeats", type=int, default=5)
    parsers["start"].add_argument("--repeats", type=whole(1), default=5)
    add = parsers["load"].add_argument
    add("path", type=Path, help="a folder or a .safetensors file")
    add("--tokenizer", type=Path, help="its folder, if not in its usual place")
    add("--make", action="store_true", help="first write a folder of that name")
    add("--make-dtype", choices=["float32", "float16"], default="float32")
    add = parsers["edit"].add_argument
    add("picture", type=Path)
    add("prompt")
    add("--model", help="(default: the embedded one)")
    add("--steps", type=whole(1), default=50)
    for name in ("gpu", "growth", "memory"):
        of_models(parsers[name])
    for name in ("gpu", "memory"):
        of_methods(parsers[name])
    add = parsers["gpu"].add_argument
    add("--pictures", type=listed(whole(1)), default=[1, 8], help="how many (default: 1,8)")
    add("--compile", action="store_true", help="measure torch.compile, too; on CUDA also graphs")
    add("--repeats", type=whole(1), default=3, help="of which the median is told (default: 3)")
    add("-o", "--output", type=Path, help="a file for the table, besides")
    add = parsers["growth"].add_argument
    add("--steps", type=whole(1), default=10, help="the fewest (default: 10)")
    add("-o", "--output", type=Path, help="a PNG for the plot (extra `plots`)")
    add = parsers["memory"].add_argument
    usual = "(default: on the CPU, all but float16)"
    add("--precisions", type=listed(precision), help=usual)
    return parser.parse_args(argv)


def of_models(parser: argparse.ArgumentParser) -> None:
    """The options of commands that edit a picture by one of several models."""
    add = parser.add_argument
    add("--model", help="a folder or file (default: the embedded one)")
    add("--random", action="store_true", help="sd-v1-4's size, random weights, and no file")
    add("--tokenizer", type=Path, help="its folder (default: the model's, or the embedded one)")
    add("--size", type=whole(8), help="of the latents' side (default: the model's own)")
    add("--picture", type=Path, default=BIRDS)


def of_methods(parser: argparse.ArgumentParser) -> None:
    """The options of commands that compare methods."""
    add = parser.add_argument
    add("--methods", type=listed(), default=["pti", "auto", "fast"])
    add("--prompt", default=PROMPT)
    add("--steps", type=whole(1), help="of all methods (default: each one's own)")
    add("--source", help="what the picture shows (default: read off it, where a method does)")


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    file = args.output if args.run is gpu else None
    try:
        if args.json:
            print(as_json(args.run(args)))
            return 0
        if file:
            file.write_text("")
        tell(machine(), file)
        for line in lines(args.run(args)):
            tell(line, file)
    except (InputError, OSError, BrokenExecutor) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    return 0


def tell(line: str, file: Path | None) -> None:
    """Prints a line at once, and adds it to a file: an interrupted run leaves what it has."""
    print(line, flush=True)
    if file:
        with file.open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
