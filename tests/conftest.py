"""Tests marked `full_size` are skipped where the machine's memory would not hold them."""

import os

import pytest

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
