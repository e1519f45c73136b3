"""The benchmark's measure of memory, in a process of its own as the benchmark has it."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
MEASURED = """
import benchmark, torch

def take(megabytes):
    torch.ones(megabytes * 10**6, dtype=torch.uint8)  # written to, and let go at once

take(400)
print(benchmark.added_by(lambda: take(100)))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc tells the peak")
@pytest.mark.slow
def test_a_call_adds_its_own_peak_and_no_earlier_one():
    words = [sys.executable, "-c", MEASURED]
    done = subprocess.run(words, cwd=TOOLS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 90 < float(done.stdout) < 150
