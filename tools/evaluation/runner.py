"""Makes a list of independent items, each once, whatever stops it and however many share the work.

A finished item is one line of JSON in the run's folder: its settings, from which its key is made,
and its result. A run that begins looks for the keys that are there and makes the others; so it goes
on where it was stopped, and results of other settings or another model have other keys.

Several processes share a run if `RANK` and `WORLD_SIZE` say which of them each is, as torchrun has
it. They need nothing in common but the folder: each takes every WORLD_SIZE-th group and writes to a
file of its own. One that died and was started again makes what is left of its groups.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

import ptinv

from .command_line import sentence

Make = Callable[[int], dict[str, Any]]  # an item's place in its group -> its result


class Group(NamedTuple):
    """Items that share work, such as a picture's inversion: one process makes them, in order."""

    items: list[dict[str, Any]]  # each one's settings: all that its result depends on, for JSON
    begin: Callable[[], Make]  # called before the first one that is missing


def rank_and_world() -> tuple[int, int]:
    """Which of how many processes this is: (0, 1) where nothing says otherwise."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def made_by(model: ptinv.StableDiffusion) -> dict[str, str]:
    """The model and precision that every result depends on, for an item's settings."""
    return {"model": model.digests[0], "dtype": str(model.dtype).removeprefix("torch.")}


def check_folder(path: Path) -> None:
    """Raises InputError for a file where results are to be kept."""
    if path.exists() and not path.is_dir():
        raise ptinv.InputError(f"{path}: this is a file; name a folder")


def is_kept(folder: Path, result: dict[str, Any]) -> bool:
    """True if the picture that a result tells of is still in a folder."""
    return "output" in result and (folder / result["output"]).is_file()


def key_of(settings: dict[str, Any]) -> str:
    """An item's key, the same for the same settings in any order."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(
    groups: list[Group],
    folder: Path,
    kept: Callable[[dict[str, Any]], bool] = lambda result: True,
    alone: bool = False,
    quiet: bool = False,
) -> None:
    """Makes this process's share of the items that the folder lacks. What fails with a sentence is
    written as an error, which the next run tries again. kept: whether what a result tells of is
    still there. alone: makes all of them, whatever other processes do. quiet: without a bar. Raises
    OSError where it cannot write."""
    rank, world = rank_and_world()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"items-{rank}.jsonl"
    done = {key for key, result in results(folder).items() if kept(result)}
    share = groups if alone else groups[rank::world]
    with tqdm(total=sum(len(group.items) for group in share), disable=quiet or rank > 0) as bar:
        for group in share:
            make: Make | None = None
            for i, settings in enumerate(group.items):
                if key_of(settings) not in done:
                    make = make or group.begin()
                    append(path, {"key": key_of(settings), "settings": settings, **_try(make, i)})
                bar.update()


def _try(make: Make, i: int) -> dict[str, Any]:
    try:
        return {"result": make(i)}
    except Exception as error:
        if (said := sentence(error)) is None:
            raise
        print(f"{type(error).__name__}: {said}", file=sys.stderr)
        return {"error": said}


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line to a file in one write; one that was torn off before it is closed first."""
    data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    if _is_torn(path):
        data = b"\n" + data
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(f"cannot write all of a line to {path}")
    finally:
        os.close(descriptor)


def _is_torn(path: Path) -> bool:
    """True if a file ends within a line."""
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # there is none yet, or it is empty
        return False


def lines(folder: Path) -> Iterable[dict[str, Any]]:
    """The whole lines of all of a folder's files; a torn one is as if it weren't there."""
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_bytes().split(b"\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"key", "settings"} <= line.keys():
                yield line


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """The finished items' results by their keys."""
    return {line["key"]: line["result"] for line in lines(folder) if "result" in line}
