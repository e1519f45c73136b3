"""What `pip install .` installs: the command with its model inside, working from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import ptinv

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what it is built of, without fetching anything."""
    for needed in ("pip", "setuptools"):
        if find_spec(needed) is None:
            pytest.skip(f"the wheel is built with {needed}, which is not installed")
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("the wheel is built by setuptools 77 or newer; this one is older")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("ptinv", "weights/tiny"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, str(source), "-w", str(out)], check=True, timeout=600)
    (made,) = out.glob("ptinv-*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_the_model_with_its_card_but_no_examples(wheel):
    assert wheel.name == f"ptinv-{ptinv.__version__}-py3-none-any.whl"
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ptinv").rglob("*.py")}
    tiny = ROOT / "weights" / "tiny"
    model = {
        f"ptinv/tiny/{path.relative_to(tiny)}"
        for path in tiny.rglob("*")
        if path.is_file() and "examples" not in path.parts
    }
    assert held == modules | model | {"ptinv/py.typed"}


@pytest.mark.slow
def test_the_installed_command_works_from_any_folder(wheel, tmp_path):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(installed)
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PTINV_MODEL"}
    environment["PYTHONPATH"] = str(installed)

    def started(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    where = started("-c", "import ptinv; print(ptinv.__file__)").stdout.strip()
    assert Path(where) == installed / "ptinv" / "__init__.py"
    generate = ["generate", "a red car", "--steps", "1", "-o", "car.png"]
    done = started("-m", "ptinv", *generate)
    assert done.returncode == 0, done.stderr
    assert "embedded tiny model" in done.stderr
    with Image.open(elsewhere / "car.png") as made:
        assert made.text["model"] == "tiny"
