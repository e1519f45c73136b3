"""What the tests share: a small model, a picture, and a look at the machine's memory.

Tests marked `full_size` are skipped where the machine's memory would not hold them.
"""

import os

import pytest
import small

import ptinv

NEEDED = 8e9


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


def pytest_collection_modifyitems(items):
    # asked once, before any network takes its part
    available = available_memory()
    if available < NEEDED:
        reason = f"needs {NEEDED / 1e9:.0f} GB of memory; {available / 1e9:.1f} GB are available"
        for item in items:
            if item.get_closest_marker("full_size"):
                item.add_marker(pytest.mark.skip(reason=reason))


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


@pytest.fixture(scope="session")
def picture():
    """48 × 32 pixels of a scene."""
    return small.draw_picture()
