"""Measures speed and memory; each table names the machine.

    python tools/benchmark.py networks                        # beside diffusers, where installed
    python tools/benchmark.py load sd-v1-4 --dtype float16    # opening a checkpoint
    python tools/benchmark.py load folder --make              # the same for one of random weights
    python tools/benchmark.py edit picture.png "a yellow car"

`networks` runs sd-v1-4 at full size with random weights, on whose values speed doesn't depend.
Where diffusers is installed its classes run in turn (A B A B …) on the same tensors, after a
warm-up, all under autocast. Memory is what the first call of a fresh process adds at its peak.
`load` opens a checkpoint in a fresh process and reads every weight once, so that those which are
only mapped count too. A file that was read lately comes from the system's cache, which is faster.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial
from importlib import import_module, metadata, util
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from world.folder import write_configs

import ptinv
from ptinv.core import model as core
from ptinv.core.unet import UNetConfig
from ptinv.core.vae import VAEConfig
from ptinv.errors import InputError
from ptinv.storage.checkpoint import DTYPES, EMBEDDED, open_checkpoint
from ptinv.storage.layouts import SD_V1_LATENT_SCALE, SD_V1_TEXT
from ptinv.storage.pictures import open_picture

MB = 1e6
SD_V1 = core.Configs(UNetConfig(), VAEConfig(), SD_V1_TEXT, SD_V1_LATENT_SCALE)
Row = dict[str, object]


def output(network: nn.Module, z: Tensor, context: Tensor) -> Tensor:
    """The VAE's picture or the UNet's prediction, out of the object that diffusers returns."""
    result = network.decode(z) if hasattr(network, "decode") else network(z, 481, context)
    return result if isinstance(result, Tensor) else result.sample


def gradient(unet: nn.Module, z: Tensor, context: Tensor) -> Tensor:
    context = context.detach().requires_grad_()
    return torch.autograd.grad(output(unet, z, context).square().sum(), context)[0]


JOBS = {  # a network, and what is done with it
    "UNet forward": ("unet", output),
    "UNet forward + backward": ("unet", gradient),
    "VAE decode": ("vae", output),
}


def empty(part: str, library: str = "ptinv") -> nn.Module:
    """A network of sd-v1-4's size, ptinv's or diffusers', frozen, on the meta device."""
    if library == "ptinv":
        network = core.networks(SD_V1)[part]
    else:
        settings = folder_config(part)
        with torch.device("meta"):
            network = getattr(import_module(library), settings.pop("_class_name"))(**settings)
    return network.eval().requires_grad_(False)


def folder_config(part: str) -> dict:
    """A network's `config.json` in sd-v1-4's folder."""
    with TemporaryDirectory() as folder:
        write_configs(Path(folder), SD_V1)
        return json.loads((Path(folder) / part / "config.json").read_text(encoding="utf-8"))


def random_weights(part: str, device: str, dtype: str) -> dict[str, Tensor]:
    """Weights, by name, that keep a network's activations about 1."""
    how = dict(device=device, dtype=DTYPES[dtype])
    weights = {k: torch.empty_like(v, **how) for k, v in empty(part).state_dict().items()}
    for name, weight in weights.items():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.fill_(name.endswith("weight"))  # of a norm; else it is a bias
    return weights


def prepare(name: str, library: str, weights: dict, size: int, device: str) -> Callable:
    """A job with its network, a latent (1, c, size, size) and a context (1, 77, d)."""
    part, job = JOBS[name]
    network = empty(part, library)
    network.load_state_dict(weights, strict=True, assign=True)
    torch.manual_seed(0)
    z = torch.randn(1, SD_V1.unet.latent_channels, size, size).to(device)
    context = torch.randn(1, 77, SD_V1.unet.context_channels if part == "unet" else 1).to(device)
    dtype = next(network.parameters()).dtype
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    return autocast(partial(job, network, z, context))


def networks(args: argparse.Namespace) -> list[Row]:
    """A row for each job at sd-v1-4's size."""
    if args.repeats < 1 or args.size < 8 or args.size % 8:
        raise InputError("size must be a multiple of 8 and repeats a whole number, both above 0")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu")
    return [compare(name, args.repeats, args.size, args.device, args.dtype) for name in JOBS]


def compare(name: str, repeats: int, size: int, device: str, dtype: str) -> Row:
    """A job's time and memory in ptinv and, where it is installed, in diffusers."""
    libraries = [library for library in ("ptinv", "diffusers") if util.find_spec(library)]
    # first the processes, while this one holds no weights of its own
    added = [in_fresh_process(first_call, name, each, size, device, dtype) for each in libraries]
    weights = random_weights(JOBS[name][0], device, dtype)
    calls = [prepare(name, library, weights, size, device) for library in libraries]
    outputs = [call().double() for call in calls]  # the warm-up
    seconds = [[timed(call) for call in calls] for _ in range(repeats)]
    medians = [median(each) for each in zip(*seconds, strict=True)]
    row: Row = {"job": name, "ptinv, s": medians[0]}
    if len(libraries) > 1:
        a, b = outputs
        row |= {"diffusers, s": medians[1], "ratio": medians[0] / medians[1]}
        row |= {"ratio of pairs": median(ours / theirs for ours, theirs in seconds)}
        row |= {"difference": ((a - b).abs().max() / b.abs().max()).item()}
    return row | {f"{library}, MB": mb for library, mb in zip(libraries, added, strict=True)}


def first_call(name: str, library: str, size: int, device: str, dtype: str) -> float:
    call = prepare(name, library, random_weights(JOBS[name][0], device, dtype), size, device)
    return added_by(call, device)


def added_by(call: Callable, device: str = "cpu") -> float:
    """The memory that a call adds at its peak to this process's, in MB."""
    # the highest so far may be higher, from an import or the making of weights
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM falls back to VmRSS
    before, _ = memory(device)
    call()
    return memory(device)[1] - before


def memory(device: str = "cpu") -> tuple[float, float]:
    """The memory that this process holds now, and held at its peak, in MB."""
    if device == "cuda":
        return torch.cuda.memory_allocated() / MB, torch.cuda.max_memory_allocated() / MB
    status = Path("/proc/self/status").read_text()  # `ru_maxrss` starts at the parent's memory
    held, peak = (int(re.search(rf"{x}:\s*(\d+)", status)[1]) for x in ("VmRSS", "VmHWM"))
    return held * 1024 / MB, peak * 1024 / MB


def now() -> float:
    """The time in seconds, once the GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(call: Callable) -> float:
    start = now()
    call()
    return now() - start


def in_fresh_process(function: Callable, *args):
    # so that the C library gives large blocks back once they are freed, and a peak is of what lives
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def load(args: argparse.Namespace) -> list[Row]:
    """The time and memory that opening a checkpoint takes, on the CPU."""
    if args.make:
        in_fresh_process(make, args.path, args.tokenizer, args.make_dtype)
    checkpoint = open_checkpoint(args.path, args.tokenizer, half=args.dtype == "float16")
    files = {entry.path for entry in checkpoint.tensors.values()}
    size = sum(file.stat().st_size for file in files) / MB
    _, imports = in_fresh_process(memory)
    opened = in_fresh_process(open_and_read, args.path, args.tokenizer, args.dtype)
    ratio = (opened["peak, MB"] - imports) / max(size, opened["weights, MB"])
    return [{"files, MB": size, **opened, "imports alone, MB": imports, "ratio": ratio}]


def open_and_read(path: Path, tokenizer: Path | None, dtype: str) -> Row:
    start = now()
    model = ptinv.load(path, "cpu", dtype, tokenizer)
    row = {"loading, s": now() - start}
    weights = nn.ModuleList([model.unet, model.vae, model.text_encoder]).state_dict().values()
    row["first reading, s"] = timed(lambda: [weight.sum() for weight in weights])
    row["weights, MB"] = sum(weight.nbytes for weight in weights) / MB
    return row | {"peak, MB": memory()[1]}


def make(folder: Path, tokenizer: Path | None, dtype: str) -> None:
    """Writes a checkpoint of sd-v1-4's size with random weights, a network at a time."""
    if folder.exists():
        raise InputError(f"{folder} exists already; --make writes a new folder")
    shutil.copytree(tokenizer or EMBEDDED / "tokenizer", folder / "tokenizer")
    write_configs(folder, SD_V1)
    for part, file in core.WEIGHTS.items():
        save_file(random_weights(part, "cpu", dtype), folder / part / file)


def edit(args: argparse.Namespace) -> list[Row]:
    """An edit with the default method: each loop's seconds, the UNet's calls, the memory."""
    model = ptinv.load(args.model, args.device, args.dtype)
    run = partial(ptinv.edit, model, open_picture(args.picture), args.prompt)
    run(steps=2)  # the warm-up
    row, calls = {}, dict(forward=0, backward=0)

    def progress(loop: Iterable, label: str) -> Iterator:
        start = now()
        yield from loop
        row[f"{label}, s"] = now() - start

    def count(unet: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls["forward"] += 1
        if output.requires_grad:
            output.register_hook(lambda _: calls.update(backward=calls["backward"] + 1))

    model.unet.register_forward_hook(count)
    whole = timed(partial(run, steps=args.steps, progress=progress))
    return [{**row, "whole, s": whole, **calls, "peak, MB": memory(args.device)[1]}]


def machine() -> str:
    """The machine and libraries that the figures hold for, in a line."""
    parts = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[:1]
    parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    parts += [f"{torch.get_num_threads()} threads", f"load average {os.getloadavg()[0]:.1f}"]
    found = [name for name in ("torch", "diffusers") if util.find_spec(name)]
    return ", ".join(parts + [f"{name} {metadata.version(name)}" for name in found])


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    cells = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in r.values()] for r in rows]
    return "\n".join(f"| {' | '.join(x)} |" for x in (rows[0], ["---"] * len(rows[0]), *cells))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="networks | load | edit")
    parsers = {run: commands.add_parser(run.__name__) for run in (networks, load, edit)}
    for run, command in parsers.items():
        command.set_defaults(run=run)
        command.add_argument("--dtype", choices=DTYPES, default="float32")
        command.add_argument("--json", action="store_true", help="print one JSON object")
        if run is not load:
            command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add = parsers[networks].add_argument
    add("--size", type=int, default=64, help="of the latent: 64 is a picture of 512 pixels")
    add("--repeats", type=int, default=5)
    add = parsers[load].add_argument
    add("path", type=Path, help="a folder or a .safetensors file")
    add("--tokenizer", type=Path, help="its folder, if not in its usual place")
    add("--make", action="store_true", help="first write a folder of that name")
    add("--make-dtype", choices=["float32", "float16"], default="float32")
    add = parsers[edit].add_argument
    add("picture", type=Path)
    add("prompt")
    add("--model", help="(default: the embedded one)")
    add("--steps", type=int, default=50)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    try:
        rows = args.run(args)
    except (InputError, OSError, BrokenExecutor) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    as_json = json.dumps({"machine": machine(), "rows": rows})
    print(as_json if args.json else f"{machine()}\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
