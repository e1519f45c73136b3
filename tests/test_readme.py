"""What the README promises: its commands, its Python and its links."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ptinv.metrics import psnr

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = sorted(set(re.findall(r'(?:\]\(|src=")((?!http)[^)"]+)', README)))


def test_the_first_command_makes_the_edit_that_the_picture_shows(tmp_path):
    (command,) = re.findall(r"^pip install -e \. && ptinv (.*) -o edited\.png$", README, re.M)
    out = tmp_path / "edited.png"
    words = [sys.executable, "-m", "ptinv", *shlex.split(command), "-o", str(out)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=300)
    with Image.open(out) as made, Image.open(ROOT / "weights/tiny/examples/edited.png") as shown:
        assert psnr(made.convert("RGB"), shown.convert("RGB")) > 30


def test_the_python_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    exec(compile(code, "README.md", "exec"), {})
    assert len(list(tmp_path.glob("edited-*.png"))) == 3


@pytest.mark.parametrize("target", LINKS)
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_line_counts_of_the_reading_order_are_about_right():
    rows = re.findall(r"^\| \[`[^`]+`\]\((ptinv/[^)]+)\) \| (\d+) \|", README, re.M)
    assert len(rows) > 15
    for path, said in rows:
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        assert abs(lines - int(said)) <= 10 + lines // 10, f"{path} has {lines} lines"


def imported(path: Path) -> set[Path]:
    """The package's own files that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for file in (base, *(base / alias.name for alias in node.names)):
                found |= {file.with_suffix(".py")} if file.with_suffix(".py").is_file() else set()
    return found


def test_the_reading_order_names_every_file_and_each_imports_only_what_stands_above_it():
    order = [
        ROOT / path for path in re.findall(r"^\| \[`[^`]+`\]\((ptinv/[^)]+)\) \| \d+", README, re.M)
    ]
    files = {path for path in (ROOT / "ptinv").rglob("*.py") if not path.name.startswith("__")}
    files.add(ROOT / "ptinv" / "cli" / "__init__.py")  # the others only gather names
    assert set(order) == files and len(order) == len(files)
    for i, path in enumerate(order):
        assert imported(path) & files <= set(order[:i]), path.name
