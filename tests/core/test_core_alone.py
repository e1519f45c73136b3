"""`core/` and `errors.py`, copied into an empty folder, open a model and edit a picture."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import pixels
from small import PROMPT

import ptinv
from ptinv import cli

PACKAGE = Path(ptinv.__file__).parent
STEPS = 4
ALLOWED = {"torch", "einops", "safetensors", "transformers", "PIL", "numpy"}
PROGRAM = """
import sys

import torch
from PIL import Image

from alone.core import model, pti

folder, picture, prompt, steps, out = sys.argv[1:]
sd = model.load(folder)
with torch.no_grad():
    z0 = sd.encode(Image.open(picture))
edited = pti.edit_latent(sd, z0, prompt, steps=int(steps))
sd.decode(edited).save(out)
assert not any(name == "ptinv" or name.startswith("ptinv.") for name in sys.modules)
"""


@pytest.fixture
def alone(tmp_path):
    """A folder that holds nothing but the package `alone`."""
    package = tmp_path / "alone"
    shutil.copytree(PACKAGE / "core", package / "core", ignore=shutil.ignore_patterns("__*__"))
    shutil.copy(PACKAGE / "errors.py", package)
    return tmp_path


def imported(file: Path) -> set[str]:
    """The modules that a file imports, relative ones with their dots."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level < 2:
            found.add("." if node.level else node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "core").glob("*.py")), ids=lambda file: file.stem
)
def test_core_imports_nothing_of_the_package_but_errors(file):
    others = imported(file) - ALLOWED - {".", "..errors"}
    assert others <= set(sys.stdlib_module_names)
    assert "logging" not in others


@pytest.mark.slow
def test_core_alone_edits_a_picture_as_the_command_does_to_the_bit(
    alone, monkeypatch, small_folder, picture
):
    picture.resize((32, 32)).save(alone / "picture.png")  # as large as the model edits
    words = [small_folder, "picture.png", PROMPT, STEPS, "alone.png"]
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    subprocess.run(command, cwd=alone, env=environment, check=True)

    monkeypatch.chdir(alone)
    options = ["--method", "pti", "--no-mask", "--steps", str(STEPS), "--quiet"]
    where = ["--model", str(small_folder), "--device", "cpu", "--dtype", "float32"]
    code = cli.main(
        ["edit", "picture.png", PROMPT, "--method", "pti", "-o", "whole.png", *options, *where]
    )
    assert code == 0
    assert pixels("alone.png") == pixels("whole.png") != pixels("picture.png")
    assert pixels("alone.png")[0] == pixels("picture.png")[0]
