"""Clocks and memory, on the CPU and on CUDA, and processes that hold nothing else."""

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from ptinv.errors import InputError

MB = 1e6
Row = dict[str, object]  # of a table, by its columns


def check_device(device: str) -> None:
    """Raises InputError for CUDA where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu")


def now() -> float:
    """The time in seconds, once the GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(call: Callable) -> float:
    start = now()
    call()
    return now() - start


def memory(device: str = "cpu") -> tuple[float, float]:
    """The memory that this process holds now, and held at its peak, in MB."""
    if device == "cuda":
        return torch.cuda.memory_allocated() / MB, torch.cuda.max_memory_allocated() / MB
    status = Path("/proc/self/status").read_text()  # `ru_maxrss` starts at the parent's memory
    held, peak = (int(re.search(rf"{x}:\s*(\d+)", status)[1]) for x in ("VmRSS", "VmHWM"))
    return held * 1024 / MB, peak * 1024 / MB


def forget_peak(device: str = "cpu") -> None:
    """Has `memory` tell the peak from here on: an import or the making of weights may be higher."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM falls back to VmRSS


def added_by(call: Callable, device: str = "cpu") -> float:
    """The memory that a call adds at its peak to this process's, in MB."""
    forget_peak(device)
    before, _ = memory(device)
    call()
    return memory(device)[1] - before


def in_fresh_process(function: Callable, *args):
    # so that the C library gives large blocks back once they are freed, and a peak is of what lives
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
