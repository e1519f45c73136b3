"""Promises of the README: its commands, its Python, its links, and the paper in nine files."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from commands import ptinv_, remarks
from PIL import Image

from ptinv.metrics import psnr

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "weights" / "tiny" / "examples"
LINKS = sorted(set(re.findall(r'(?:\]\(|src=")((?!http)[^)"#]+)', README)))
CORE = re.findall(r"^\| \[`[^`]+`\]\((ptinv/core/[^)]+)\) \| (\d+) \|", README, re.M)


def alike(made: Path, shown: Path) -> bool:
    with Image.open(made) as a, Image.open(shown) as b:
        return psnr(a.convert("RGB"), b.convert("RGB")) > 30


@pytest.mark.slow
def test_the_first_command_makes_the_edit_that_the_picture_shows(tmp_path, monkeypatch, capsys):
    (command,) = re.findall(r"^pip install -e \. && ptinv (.*) -o edited\.png$", README, re.M)
    out = tmp_path / "edited.png"
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PTINV_MODEL", raising=False)
    assert ptinv_(*shlex.split(command), "-o", out) == 0
    assert alike(out, EXAMPLES / "edited.png")
    said = remarks(capsys)
    for line in re.findall(r"^ptinv: (.*?)(?:; …)?$", README, re.M):
        assert any(message.startswith(line) for message in said), line


@pytest.mark.slow
def test_the_python_makes_the_strip_of_etas_and_a_film(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    names = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(compile(code, "README.md", "exec"), names)
    assert len(names["film"]) == 40
    made = sorted(tmp_path.glob("edited-*.png"))
    assert len(made) == 4
    for path in made:
        assert alike(path, EXAMPLES / path.name.replace("edited", "eta"))


@pytest.mark.parametrize("target", LINKS)
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_line_counts_of_the_nine_files_are_about_right():
    assert len(CORE) == 9
    for path, said in CORE:
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        assert abs(lines - int(said)) <= 10, f"{path} has {lines} lines"


def imported(path: Path) -> set[str]:
    """The package's own modules that a file imports, as `core.ddim`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            names = [base, *(base / alias.name for alias in node.names)]
            files = [name for name in names if name.with_suffix(".py").is_file()]
            found |= {".".join(name.relative_to(ROOT / "ptinv").parts) for name in files}
    return found


def test_the_nine_files_are_all_of_core_and_each_imports_only_those_above_it():
    names = [Path(path).stem for path, _ in CORE]
    there = {path.stem for path in (ROOT / "ptinv" / "core").glob("*.py")} - {"__init__"}
    assert set(names) == there
    for i, (path, _) in enumerate(CORE):
        assert imported(ROOT / path) <= {"errors", *(f"core.{name}" for name in names[:i])}, path


FLOORS = ["errors settings", "core", "storage", "methods", "metrics sheet word_maps api", "cli"]


def test_imports_run_one_way_from_floor_to_floor():
    floor_of = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
    for path in (ROOT / "ptinv").rglob("*.py"):
        parts = path.relative_to(ROOT / "ptinv").with_suffix("").parts
        if parts[0] in floor_of:
            here = floor_of[parts[0]]
            for module in imported(path):
                assert floor_of.get(module.split(".")[0], 0) <= here, f"{path} imports {module}"


def test_the_package_keeps_its_budget():
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines())
             for path in (ROOT / "ptinv").rglob("*.py")}  # fmt: skip
    assert max(sizes.values()) <= 300
    assert sum(n for path, n in sizes.items() if path.parent.name == "core") <= 1350
    assert sum(sizes.values()) <= 5500
