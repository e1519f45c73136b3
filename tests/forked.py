"""Runs work in a child of this process, where it may hang, fill the memory or be killed.

A child begins in milliseconds with all that is imported here. It works in one thread, since those
of this process are not in it.
"""

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

FAILED = 99  # a child's exit code where its work raised an error


class Ended(NamedTuple):
    """How a child came to its end."""

    code: int  # its exit code; below zero, the signal that ended it
    answer: Any  # what the work returned, through JSON; None where it didn't
    seconds: float
    memory: int  # the most bytes that it had beyond this process's


def forked(
    work: Callable[[], Any], said: Path, busy: int = 300, patience: float = 300, room: int = 2**35
) -> Ended:
    """Does the work in a child. said: where its stdout and stderr go, with the traceback of one
    that ends badly. It is killed after `busy` seconds of the processor's time, whatever else the
    machine does, or `patience` of the clock's; room: the bytes of address space it may add."""
    pages, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
    size = resource.getpagesize()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    begun, (told, answer) = time.monotonic(), os.pipe()
    if not (child := os.fork()):
        try:
            with open(said, "a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            faulthandler.enable(2)
            faulthandler.register(signal.SIGXCPU, file=2, chain=True)
            resource.setrlimit(resource.RLIMIT_CPU, (busy, busy + 5))
            resource.setrlimit(resource.RLIMIT_AS, (size * pages + room, resource.RLIM_INFINITY))
            torch.set_num_threads(1)
            data = json.dumps(work()).encode()
            with open(answer, "wb") as pipe:
                pipe.write(data)
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc().encode(errors="replace"))
        finally:
            os._exit(FAILED)  # a child never goes on as its parent
    os.close(answer)
    with open(told, "rb") as pipe:
        if not select.select([pipe], [], [], patience)[0]:
            os.kill(child, signal.SIGKILL)
        data = pipe.read()
    _, status, used = os.wait4(child, 0)
    seconds, code = time.monotonic() - begun, os.waitstatus_to_exitcode(status)
    memory = 1024 * used.ru_maxrss - size * resident
    return Ended(code, json.loads(data) if data else None, seconds, memory)
