"""A program that is killed leaves the old file or the whole new one; run again, it makes the same.

Two kills of three are at a call that touches a file, counted from the program's end, where it
writes; the others at a share of its time. Each is drawn from its name.
"""

import io
import json
import os
import posix
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from random import Random

import batch
import pytest
from commands import contents
from forked import Ended, forked
from small import PROMPT

import ptinv.cli.commands  # noqa: F401  what the command line would import late
from ptinv import cli

OLD, HOW = b"what was here before", ["--quiet", "--steps", "3"]
PROGRAMS = {  # by name: what runs it, its words, and its output
    "edit": (cli.main, ["edit", "picture.png", PROMPT, "--method", "pti", *HOW], "out.png"),
    "invert": (cli.main, ["invert", "picture.png", PROMPT, *HOW], "out.safetensors"),
    "generate": (cli.main, ["generate", PROMPT, *HOW], "out.webp"),
    "batch": (batch.main, ["jobs.jsonl"], "out"),
}
KILLS = [("edit", 8), ("invert", 7), ("generate", 7), ("batch", 8)]
JOBS = [
    {"picture": "picture.png", "prompt": PROMPT, "steps": 2, "method": "pti", "name": "a"},
    {"picture": "picture.png", "prompt": "a red boat", "steps": 2, "method": "sdedit", "name": "b"},
    {"picture": "mask.png", "prompt": "a car", "steps": 2, "method": "sdedit", "name": "c"},
]
TOUCHING = {"open", "write", "flush", "close", "fsync", "replace", "unlink", "mkdir"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's processes"),
]


def touches(function) -> bool:
    """True for a built-in function that makes, fills, renames or removes a file."""
    owner = getattr(function, "__self__", None)
    of_files = owner is posix or owner is io or isinstance(owner, io.IOBase)
    return function.__name__ == "serialize_file" or of_files and function.__name__ in TOUCHING


def run(name: str, folder: Path, last: int | None = None) -> tuple[int, int]:
    """Runs a program; its exit code and, if `last` is a number, how many of its calls touched
    files. It does not survive the call of that number."""
    program, words, output = PROGRAMS[name]
    calls = 0

    def count(frame, event, function):
        nonlocal calls
        if event == "c_call" and touches(function):
            calls += 1
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(folder)
    sys.setprofile(None if last is None else count)  # which takes its time
    code = program([*words, "-o", output])
    sys.setprofile(None)
    return code, calls


def started(name: str, folder: Path, last: int | None = None, patience: float = 300) -> Ended:
    """Runs a program in a child, which is killed at that call or after so many seconds."""
    said = folder.with_name(f"{folder.name}-said")
    ended = forked(partial(run, name, folder, last), said, patience=patience)
    whole = ended.answer and ended.answer[0] == 0
    assert whole or ended.code == -signal.SIGKILL, said.read_text()
    return ended


@pytest.fixture(autouse=True)
def model(monkeypatch, small_folder):
    monkeypatch.setenv("PTINV_MODEL", str(small_folder))


@pytest.fixture(scope="module")
def wholes():
    """By program what it makes where nothing kills it, and the calls and seconds that it takes."""
    return {}


def furnish(folder: Path, picture) -> dict[str, bytes]:
    """Writes what the programs need; returns it."""
    folder.mkdir()
    picture.save(folder / "picture.png")
    picture.convert("L").save(folder / "mask.png")
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, JOBS)))
    return contents(folder)


def made_in(folder: Path) -> dict[str, bytes]:
    """What a program has made, by name, without the parts of files, which a later run may
    sweep, and a batch's notes, which say how long things took."""
    places = [folder, folder / "out"]
    files = {n: data for place in places if place.is_dir() for n, data in contents(place).items()}
    return {n: files[n] for n in files if not n.endswith((".part", ".jsonl"))}


@pytest.mark.parametrize("name, number", [(n, i) for n, kills in KILLS for i in range(kills)])
def test_a_killed_program_leaves_the_old_or_the_new_and_then_makes_the_same(
    wholes, tmp_path, picture, name, number
):
    if name not in wholes:
        furnish(tmp_path / "whole", picture)
        counted, timed = (started(name, tmp_path / "whole", last) for last in (0, None))
        wholes[name] = made_in(tmp_path / "whole"), counted.answer[1], timed.seconds
    results, calls, seconds = wholes[name]
    folder, output, rng = tmp_path / "killed", PROGRAMS[name][2], Random(f"{name} {number}")
    given = furnish(folder, picture)
    if had := name != "batch" and number % 2 == 1:
        (folder / output).write_bytes(OLD)
    if number % 3:
        last = calls - rng.randrange(min(calls, 25))
        killed = started(name, folder, last)
        assert killed.code == -signal.SIGKILL
    else:
        started(name, folder, patience=seconds * rng.random())

    left = made_in(folder)
    for file in results.keys() - given.keys():
        assert left.get(file) in (OLD if had else None, results[file]), file
    assert left.keys() <= results.keys() and contents(folder).items() >= given.items()
    assert started(name, folder).answer[0] == 0
    assert made_in(folder) == results
    shutil.rmtree(tmp_path)
