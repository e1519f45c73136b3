"""Tries ptinv with the oldest and newest versions that it promises to work with:

    python tools/try_versions.py --python 3.11 3.12 3.13 --set lowest highest bare

For each Python and set an environment is made in a temporary folder, the fast tests are run in it,
and a row of a table says which versions those were and what came of them. The sets:

lowest    each dependency at the lowest version that `pyproject.toml` allows
highest   what `pip install` takes
bare      Pillow alone: whether each file compiles without a warning, and the command's help

Only wheels are installed. `--but torch` takes that one at its highest in the set `lowest`, too:
old wheels of it for Linux bring gigabytes of CUDA. Ends with 0 if all is well, 2 if a row isn't.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOWEST = re.compile(r"([A-Za-z0-9_-]+)>=([0-9.]+)")
PYTEST = ["-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
# what needs no dependency: the files as Python reads them, and what is answered before any import
BARE = """
import pathlib, sys, warnings
warnings.simplefilter("error")
for path in map(pathlib.Path, sys.argv[1:]):
    for file in [path, *path.rglob("*.py")]:
        if file.suffix == ".py":
            compile(file.read_text(encoding="utf-8"), str(file), "exec")
from ptinv.cli import main
for words in (["--version"], ["edit", "--help"]):
    assert main(words) == 0, words
print("compiles, and the command's help")
"""


class Row(NamedTuple):
    """One line of the table."""

    python: str
    which: str  # the set
    versions: str
    outcome: str
    passed: bool


def lowest(but: Iterable[str] = ()) -> dict[str, str]:
    """The lowest version of each dependency, by name, as pyproject.toml has it."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = (LOWEST.match(line) for line in about["project"]["dependencies"])
    return {m[1]: m[2] for m in found if m and m[1] not in but}


def interpreter(version: str) -> Path | None:
    """The Python of that version here: this one, one on the PATH, or one of pyenv's."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    of_pyenv = sorted(kept.glob(f"{version}.*/bin/python"))
    found = shutil.which(f"python{version}")
    works = found and subprocess.run([found, "--version"], capture_output=True).returncode == 0
    return Path(found) if found and works else next(iter(of_pyenv[::-1]), None)


def tried(version: str, which: str, but: list[str], tests: list[str], folder: Path) -> Row:
    """Makes an environment, and runs what is to be run in it."""
    name = f"{which} but {', '.join(but)}" if but and which == "lowest" else which
    if not (python := interpreter(version)):
        return Row(version, name, "", f"there is no Python {version} here", False)
    run([python, "-m", "venv", folder], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pinned = lowest(but) if which == "lowest" else {}
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={low}\n" for name, low in pinned.items()))
    install = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", "-c", constraints]
    installed = run(install + (["pillow"] if which == "bare" else ["-e", f"{ROOT}[test]"]))
    if installed.returncode:
        return Row(version, name, "", f"cannot be installed: {last_line(installed)}", False)
    done = run(
        [python, *(["-c", BARE, "ptinv", "tools", "tests"] if which == "bare" else PYTEST + tests)]
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    for test in failed:
        say(f"    {test}")
    return Row(version, name, versions(python), last_line(done), done.returncode == 0)


def versions(python: Path) -> str:
    """The dependencies' versions in an environment."""
    listed = json.loads(run([python, "-m", "pip", "list", "--format", "json"]).stdout)
    named = {one["name"].lower(): one["version"] for one in listed}
    return ", ".join(f"{name} {named[name]}" for name in lowest() if name in named)


def run(words: list, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a program in the repository's folder."""
    return subprocess.run(words, cwd=ROOT, check=check, capture_output=True, text=True)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a program printed: on stderr if it failed and said anything there."""
    said = (done.returncode and done.stderr.strip()) or done.stdout.strip()
    return said.splitlines()[-1] if said else "nothing was said"


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    head = ["| Python | versions | | outcome |", "|---|---|---|---|"]
    return "\n".join(
        head + [f"| {r.python} | {r.which} | {r.versions} | {r.outcome} |" for r in rows]
    )


def say(text: str) -> None:
    print(f"try_versions.py: {text}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if unknown := set(args.but) - lowest().keys():
        say(f"--but names {', '.join(sorted(unknown))}; the dependencies are {', '.join(lowest())}")
        return 2
    rows = []
    for version in args.python:
        for which in args.set:
            say(f"Python {version}, {which} …")
            with tempfile.TemporaryDirectory() as folder:
                rows.append(tried(version, which, args.but, args.tests, Path(folder)))
            say(rows[-1].outcome)
    print(table(rows))
    return 0 if all(row.passed for row in rows) else 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    sets = ("lowest", "highest", "bare")
    about = "versions, such as 3.12 (default: this one)"
    top.add_argument("--python", nargs="+", metavar="X.Y", default=[here], help=about)
    about = "(default: lowest highest)"
    top.add_argument("--set", nargs="+", choices=sets, default=sets[:2], help=about)
    about = "dependencies that the set `lowest` takes at their highest"
    top.add_argument("--but", nargs="+", metavar="NAME", default=[], help=about)
    about = "whose fast ones are run (default: all)"
    top.add_argument("--tests", nargs="+", metavar="PATH", default=["tests"], help=about)
    return top


if __name__ == "__main__":
    sys.exit(main())
