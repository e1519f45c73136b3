"""How the tests run the command line: mostly in this process, sometimes as a user starts it."""

import os
import signal
import subprocess
import sys
import time

from PIL import Image

from ptinv import cli


def ptinv_(*words):
    """Runs the command in this process; returns its exit code."""
    return cli.main([str(word) for word in words])


def remarks(capsys):
    """The lines that a command has said on stderr since they were last read."""
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("ptinv: ") for line in lines if line.startswith("ptinv: ")]


def contents(folder):
    """The files in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def pixels(path):
    with Image.open(path) as image:
        return image.size, image.convert("RGB").tobytes()


def interrupted_at(
    sign: str, *words, flags=(), by: signal.Signals = signal.SIGINT
) -> tuple[int, str]:
    """Starts the command, presses Ctrl-C once `sign` is on stderr; its exit code and stderr.
    by: another signal in its place."""
    process = subprocess.Popen(
        [sys.executable, *flags, "-m", "ptinv", *map(str, words)],
        stderr=subprocess.PIPE,
        # a shell that starts the tests in the background has them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said, deadline = b"", time.monotonic() + 300
    try:
        while sign.encode() not in said and time.monotonic() < deadline:
            piece = os.read(process.stderr.fileno(), 65536)
            assert piece, f"ended without {sign!r}: {said.decode()[-500:]}"
            said += piece
        process.send_signal(by)
        said += process.communicate(timeout=120)[1]
    finally:
        process.kill()
    return process.returncode, said.decode()
