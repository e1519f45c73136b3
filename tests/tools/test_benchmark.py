"""The benchmark's measure of memory."""

from pathlib import Path

import benchmark
import pytest
import torch

MB = 10**6


def take(megabytes: int) -> None:
    torch.ones(megabytes * MB, dtype=torch.uint8)  # written to, and let go at once


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc tells the peak")
@pytest.mark.slow
def test_a_call_adds_its_own_peak_and_no_earlier_one():
    take(400)
    assert 90 < benchmark.added_by(lambda: take(100)) < 150
