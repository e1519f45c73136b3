"""What the tests share: a small model, a picture, and a look at the machine's memory.

Tests marked `full_size` are slow, and skipped where the machine's memory would not hold them.
"""

import os
import shutil
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # `pytest -n 2`: a core for each, also of what it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the first import of torch

import small
from PIL import Image

import ptinv
from ptinv.core.unet import UNet
from ptinv.storage import checkpoint

NEEDED = 8e9


def pytest_addoption(parser):
    how = "cases that tests/fuzz draws (default: 300)"
    parser.addoption("--cases", type=int, default=300, metavar="N", help=how)


def available_memory() -> float:
    """Bytes that may be taken without swapping; infinite where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            kilobytes = {line.split(":")[0]: line.split()[1] for line in file}
        return 1024 * int(kilobytes["MemAvailable"])
    except (OSError, KeyError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` chooses
def pytest_collection_modifyitems(items):
    available = available_memory()  # once, before any network takes its part
    available /= int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    reason = f"needs {NEEDED / 1e9:.0f} GB of memory; {available / 1e9:.1f} GB are available"
    for item in items:
        if "tools" in item.path.parts[-3:]:  # the programs are not what a reader begins with
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("full_size"):
            item.add_marker(pytest.mark.slow)
            if available < NEEDED:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def plain_processor():
    """The CPU as one that emulates all but float32: what no precision is named for is in float32,
    so that its bytes are not the processor's choice."""

    def is_fast(dtype, device):
        return dtype == "float32" or device.type == "cuda"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_is_fast", is_fast)
        yield


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """The untrained model of `small.py` as a folder."""
    folder = tmp_path_factory.mktemp("small")
    small.write_model(folder)
    return folder


@pytest.fixture(scope="session")
def small_model(small_folder):
    """The same, opened; it is frozen, so all tests can share it."""
    return ptinv.load(small_folder, device="cpu", dtype="float32")


@pytest.fixture
def folder(small_folder, tmp_path):
    """A copy of the small model's folder, to be spoilt."""
    return shutil.copytree(small_folder, tmp_path / "model")


@pytest.fixture(scope="session")
def birds() -> Image.Image:
    """The model card's example, 128 × 128 pixels."""
    return Image.open(checkpoint.EMBEDDED / "examples" / "birds.png").convert("RGB")


@pytest.fixture(scope="session")
def wild() -> Path:
    """The folder of small files as other programs write them."""
    return Path(__file__).parent / "data" / "wild"


@pytest.fixture(scope="session")
def picture():
    """48 × 32 pixels of a scene."""
    return small.draw_picture()


@pytest.fixture(scope="session")
def inversion(small_model, picture):
    """The picture inverted in four steps, with the tuning for the usual prompt."""
    return ptinv.invert(small_model, picture, small.PROMPT, steps=4)


@pytest.fixture(scope="session")
def found(small_model, inversion):
    """The attention of the usual prompt's words over it."""
    return ptinv.attention_maps(small_model, inversion, small.PROMPT)


@pytest.fixture
def here(tmp_path, monkeypatch, small_folder, picture):
    """A folder with a few files, which commands run in; the small model is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTINV_MODEL", str(small_folder))
    picture.save("picture.png")
    (tmp_path / "notes.txt").write_text("a yellow car")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "picture.png").read_bytes()[:300])
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.png").write_bytes(b"what was here before")
    mask = Image.new("L", picture.size, "black")
    mask.save("black.png")
    mask.paste("white", (0, 0, 24, 32))
    mask.save("mask.png")
    mask.resize((32, 48)).save("other.png")
    return tmp_path


@pytest.fixture
def unet_calls(monkeypatch):
    """The timesteps at which the UNet is called, as it happens."""
    forward, timesteps = UNet.forward, []

    def noted(self, z, t, *rest):
        timesteps.append(t)
        return forward(self, z, t, *rest)

    monkeypatch.setattr(UNet, "forward", noted)
    return timesteps


class Remarks:
    """What a caller is told: the package's warnings so far."""

    def __init__(self, recorded):
        self.recorded = recorded

    @property
    def messages(self):
        return [str(w.message) for w in self.recorded if issubclass(w.category, ptinv.Remark)]

    def clear(self):
        self.recorded.clear()


@pytest.fixture
def remarks(recwarn):
    """The remarks that a test causes, whether Python has shown them before or not."""
    return Remarks(recwarn)
