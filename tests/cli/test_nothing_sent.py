"""No command opens a connection, or starts a program."""

import subprocess
import sys

import pytest
from small import PROMPT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("here")]

WATCHED = """
import sys

WAYS = "socket.connect socket.getaddrinfo socket.gethostbyname socket.sendto socket.bind".split()
WAYS += "subprocess.Popen os.system os.exec os.posix_spawn os.startfile".split()
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)) if event in WAYS else None)
from ptinv.cli import main

sys.exit(f"seen: {seen}" if main(sys.argv[1:]) or seen else 0)
"""
HOW = ["--steps", "2", "--quiet", "-o"]


@pytest.mark.parametrize(
    "words",
    [
        ["edit", "picture.png", PROMPT, *HOW, "out.png"],
        ["invert", "picture.png", PROMPT, *HOW, "out.safetensors"],
        ["generate", PROMPT, *HOW, "out.png"],
    ],
)
def test_a_command_reaches_nobody_and_starts_nothing(here, words):
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (here / words[-1]).exists()
