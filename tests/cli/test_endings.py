"""How a command ends: output that cannot go anywhere, Ctrl-C, and what goes wrong on the way."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch
from commands import contents, interrupted_at, ptinv_
from safetensors.torch import load_file, save_file
from small import PROMPT

from ptinv.core.unet import UNet
from ptinv.errors import remark

pytestmark = pytest.mark.usefixtures("here")

STEPS = ["--steps", "3"]
EDIT = ["edit", "picture.png", PROMPT, "--method", "pti", *STEPS]
GENERATE = ["generate", PROMPT, *STEPS]

# Where its output goes


def printed_to(output, word) -> tuple[int, str]:
    """The exit code and stderr of a command whose stdout goes somewhere, in one go at its end."""
    command = [sys.executable, "-m", "ptinv", word]
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=env)
    return done.returncode, done.stderr


WORDS = [pytest.param("methods", marks=pytest.mark.slow), "--version"]


@pytest.mark.parametrize("word", [*WORDS, "--help"])
def test_output_that_nobody_reads_any_more_ends_quietly(word):
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does
    assert printed_to(writer, word) == (1, "")
    os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("word", WORDS)
def test_output_to_a_full_disk_is_answered_in_a_sentence(word):
    with open("/dev/full", "w") as full:
        assert printed_to(full, word) == (
            1,
            "ptinv: the output: No space left on device\n",
        )


# Ctrl-C


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment, flags",
    [
        ("numpy\n", ["-X", "importtime"]),  # while torch is imported
        ("embedded tiny model", []),  # while the model is opened
        ("sampling", []),
    ],
)
def test_ctrl_c_leaves_nothing(here, monkeypatch, moment, flags):
    monkeypatch.delenv("PTINV_MODEL")
    before = contents(here)
    words = ["edit", "picture.png", PROMPT, "--method", "sdedit", "-o", "old.png"]
    code, said = interrupted_at(moment, *words, flags=flags)
    assert code == 130, said[-500:]
    assert said.endswith("ptinv: interrupted; no part of the output is left\n")
    assert "Traceback" not in said
    assert contents(here) == before


@pytest.mark.parametrize("out", ["new.png", "old.png"])
def test_an_interrupted_command_returns_130_and_leaves_nothing(here, capsys, monkeypatch, out):
    forward, calls = UNet.forward, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, *args)

    monkeypatch.setattr(UNet, "forward", interrupted)
    before = contents(here)
    assert ptinv_(*EDIT, "-o", out) == 130
    assert capsys.readouterr().err.endswith("ptinv: interrupted; no part of the output is left\n")
    assert contents(here) == before


@pytest.mark.parametrize(
    "words",
    [
        ["edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", "old.png"],
        [*GENERATE, "-o", "old.png"],
        ["invert", "picture.png", *STEPS, "-o", "old.safetensors"],
    ],
)
def test_ctrl_c_while_saving_leaves_the_old_file(here, monkeypatch, words):
    def interrupted(*_):
        raise KeyboardInterrupt

    (here / "old.safetensors").write_bytes(b"what was here before")
    before = contents(here)
    monkeypatch.setattr("os.replace", interrupted)
    assert ptinv_(*words) == 130
    assert contents(here) == before


@pytest.mark.parametrize("by, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_either_signal_leaves_nothing_and_its_usual_handler_in_place(
    here, capsys, monkeypatch, by, code
):
    forward = UNet.forward
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}[by]
    before_test = signal.signal(by, usual)  # where the tests run in the background, one is ignored

    def signalled(self, *args):
        os.kill(os.getpid(), by)
        return forward(self, *args)

    monkeypatch.setattr(UNet, "forward", signalled)
    before = contents(here)
    assert ptinv_(*EDIT, "--no-mask", "--quiet", "-o", "old.png") == code
    assert capsys.readouterr().err == "ptinv: interrupted; no part of the output is left\n"
    assert contents(here) == before
    assert signal.signal(by, before_test) == usual


@pytest.mark.slow
def test_a_command_that_is_terminated_leaves_nothing(here):
    before = contents(here)
    code, said = interrupted_at("sampling", *EDIT, "-o", "old.png", by=signal.SIGTERM)
    assert code == 143, said[-500:]
    assert said.endswith("ptinv: interrupted; no part of the output is left\n")
    assert "Traceback" not in said
    assert contents(here) == before


# What goes wrong on the way


def test_what_libraries_warn_of_is_not_told(capsys, monkeypatch):
    def deprecated(args):
        warnings.warn("this will be gone in version 9", DeprecationWarning, stacklevel=2)
        warnings.warn("a library is slow today", UserWarning, stacklevel=2)
        remark("the edit is about: car")

    monkeypatch.setattr("ptinv.cli.commands.methods", deprecated)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert ptinv_("methods") == 0
    assert capsys.readouterr().err == "ptinv: the edit is about: car\n"


def test_a_file_that_may_not_be_read_is_answered_with_its_name(capsys, monkeypatch):
    def refused(args):
        raise PermissionError(13, "Permission denied", "model/unet/config.json")

    monkeypatch.setattr("ptinv.cli.commands.methods", refused)
    assert ptinv_("methods") == 2
    said = capsys.readouterr().err
    assert said == "ptinv: model/unet/config.json cannot be used (Permission denied)\n"


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
@pytest.mark.parametrize(
    "words", [[*EDIT, "-o", "old.png"], ["invert", "picture.png", *STEPS, "-o", "a.safetensors"]]
)
def test_a_disk_that_is_full_when_the_output_is_written_is_a_sentence(
    here, capsys, monkeypatch, words
):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = contents(here)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        code = ptinv_(*words, "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, usual)
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1, said
    assert f"{words[-1]} cannot be written (" in said and "; choose another place" in said
    assert contents(here) == before


@pytest.mark.parametrize("network", ["unet", "vae"])
@pytest.mark.parametrize("words", [EDIT, [*EDIT, "--method", "ddim-edit"], GENERATE])
def test_numbers_that_are_not_finite_are_noticed_with_a_hint_at_the_precision(
    here, capsys, small_folder, tmp_path_factory, network, words
):
    model = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(small_folder, model)
    file = model / network / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    (name,) = weights.keys() & {"conv_out.bias", "decoder.conv_out.bias"}
    weights[name][:] = torch.nan
    save_file(weights, file)
    before = contents(here)
    assert ptinv_(*words, "--quiet", "--model", model, "-o", "new.png") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    assert "NaN" in said and "--dtype" in said
    assert contents(here) == before


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("unable to mmap 21759048 bytes from file <a>: Cannot allocate memory (12)"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    MemoryError(),
]


@pytest.mark.parametrize("error", FULL)
def test_memory_that_is_full_is_a_sentence(here, monkeypatch, capsys, error):
    def full(args):
        raise error

    monkeypatch.setattr("ptinv.cli.commands.generate", full)
    assert ptinv_(*GENERATE, "-o", "out.png") == 1
    assert capsys.readouterr().err == (
        "ptinv: the memory is full; use --fast, --dtype bfloat16 or --device cpu\n"
    )


@pytest.mark.slow
def test_memory_that_is_really_full_is_a_sentence(here, small_folder):
    """The process may take 100 MB more than it has; the edit needs some 400."""
    code = """
        import resource
        from ptinv.cli import main

        edit = ["edit", "picture.png", "a car", "--quiet", "--no-mask", "--method", "pti"]
        edit += ["-o", "out.png"]
        assert main([*edit, "--steps", "1"]) == 0
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 10**8, -1))
        raise SystemExit(main([*edit, "--size", "2048", "-o", "large.png"]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith("ptinv: the memory is full; ") and done.stderr.count("\n") == 1
    assert not (here / "large.png").exists()


# Where it is started


def started(surroundings: str) -> tuple[int, str]:
    """The exit code and stderr of a command that a shell starts after it has changed something."""
    script = f'{surroundings}; exec "$0" -m ptinv "$@" --quiet -o a.png'
    command = ["sh", "-c", script, sys.executable, *GENERATE]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "surroundings",
    [
        "exec <&- >&- 2>&-",
        "export HOME=/there/is/none",
        "unset HOME; export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
    ],
)
def test_a_command_works_without_streams_a_home_or_a_locale(here, surroundings):
    code, said = started(surroundings)
    assert (code, (here / "a.png").exists()) == (0, True), said


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit, code, sentence",
    [
        ("-v 300000", 1, "the memory is full; use --fast, --dtype bfloat16 or --device cpu"),
        ("-f 1", 2, "a.png cannot be written (File too large); choose another place"),
    ],
)
def test_a_limit_of_the_shell_s_is_a_sentence(here, limit, code, sentence):
    before = contents(here)
    ended, said = started(f"ulimit {limit}")
    assert (ended, said.splitlines()[-1:]) == (code, [f"ptinv: {sentence}"])
    assert "Traceback" not in said and contents(here) == before
