"""The command line, end to end: what each command leaves, prints and returns, and what it refuses.

Most tests call the command in this process; a few start it as a user does.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import contents, pixels, ptinv_
from PIL import Image
from safetensors.torch import load_file, save_file
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.cli.commands import COMMANDS
from ptinv.methods import METHODS
from ptinv.unet import UNet

pytestmark = pytest.mark.usefixtures("here")

STEPS = ["--steps", "3"]
EDIT = ["edit", "picture.png", PROMPT, *STEPS]
RECONSTRUCT = ["reconstruct", "picture.png", PROMPT, *STEPS]
GENERATE = ["generate", PROMPT, *STEPS]


# What the commands do


def test_edit_writes_the_edited_picture_in_its_own_size(small_model, picture, capsys):
    assert ptinv_(*EDIT, "-o", "out.png") == 0
    edited = ptinv.edit(small_model, picture, PROMPT, steps=3)
    assert pixels("out.png") == ((48, 32), edited.tobytes())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "flags, options",
    [
        ("--method ddim-global", dict(method="ddim-global")),
        ("--eta 0.5 --inner-steps 2 --lr 0.05", dict(eta=0.5, inner_steps=2, lr=0.05)),
        ("--encode-ratio 1 --guidance 3", dict(encode_ratio=1.0, guidance=3.0)),
        ("--init-embedding null", dict(init_embedding="null")),
        ("--init-embedding source --source car", dict(init_embedding="source", source="car")),
        ("--focus grass --mask-threshold 0.6", dict(focus="grass", mask_threshold=0.6)),
        ("--no-mask", dict(mask=None)),
        ("--mask mask.png", dict(mask="mask.png")),
        (
            "--method null-text --source car --lr-decay 0.02 --stop-below 0.1",
            dict(method="null-text", source="car", lr_decay=0.02, stop_below=0.1),
        ),
        (
            "--method p2p --source car --cross-replace 0.5 --cross-replace yellow=0.2:0.6 "
            "--self-replace 0:0.7 --self-cells 8 --align refine",
            dict(
                method="p2p",
                source="car",
                cross_replace={"default": 0.5, "yellow": (0.2, 0.6)},
                self_replace=(0.0, 0.7),
                self_cells=8,
                align="refine",
            ),
        ),
        (
            "--method direct --source car --source-focus car --subtract grass",
            dict(method="direct", source="car", source_focus="car", subtract="grass"),
        ),
        (
            "--method npi-prox --source car --proximal l1 --proximal-quantile 0.6",
            dict(method="npi-prox", source="car", proximal="l1", proximal_quantile=0.6),
        ),
        (
            "--reweight yellow=2 --reweight grass=0.5 --no-mask",
            dict(reweight={"yellow": 2.0, "grass": 0.5}, mask=None),
        ),
    ],
)
def test_a_flag_means_what_the_option_means_in_python(small_model, picture, flags, options):
    assert ptinv_(*EDIT, *flags.split(), "-o", "out.png") == 0
    if options.get("mask"):
        options = options | dict(mask=Image.open(options["mask"]))
    edited = ptinv.edit(small_model, picture, PROMPT, steps=3, **options)
    assert pixels("out.png")[1] == edited.tobytes()


def test_generate_with_a_source_edits_what_that_makes_of_the_same_noise(small_model):
    words = [*GENERATE, "--source", "a red car", "--seed", "5", "-o", "edited.png"]
    assert ptinv_(*words, "--show-source", "source.png") == 0
    edited = ptinv.generate(small_model, PROMPT, source="a red car", seed=5, steps=3)
    assert pixels("edited.png")[1] == edited.tobytes()
    alone = ptinv.generate(small_model, "a red car", seed=5, steps=3)
    made = np.asarray(Image.open("source.png"), np.int16)
    assert np.abs(made - np.asarray(alone, np.int16)).max() <= 1  # a batch of one, or of two


def test_two_pictures_do_not_go_to_one_file(capsys):
    for flags in (["--show-source", "a.png"], ["--show-source", "./a.png"]):
        assert ptinv_(*GENERATE, "--source", "a car", *flags, "-o", "a.png") == 2
        assert "name another" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_networks_run_in_the_precision_that_is_asked_for(dtype):
    assert ptinv_(*EDIT, "--dtype", dtype, "-o", "out.png") == 0
    assert pixels("out.png")[0] == (48, 32)


@pytest.mark.parametrize("name", ["out.jpg", "out.webp", "old.png"])
def test_a_picture_is_written_as_its_name_says_and_an_old_one_replaced(name):
    assert ptinv_(*EDIT, "-o", name) == 0
    assert pixels(name)[0] == (48, 32)


@pytest.mark.parametrize("method", ["pti", "ddim", "vae", *METHODS])
def test_reconstruct_prints_how_near_it_comes_and_the_ceiling(method, capsys):
    assert ptinv_(*RECONSTRUCT, "--method", method, "-o", "out.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"-?\d+\.\d\d", "…", line) for line in lines] == [
        f"{method}: … dB",
        "vae: … dB (the ceiling)",
    ]
    if method == "vae":
        assert lines[1].startswith(lines[0])
    assert pixels("out.png")[0] == (48, 32)


def test_reconstruct_needs_no_prompt():
    assert ptinv_("reconstruct", "picture.png", *STEPS, "-o", "out.png") == 0


def test_generate_makes_the_same_picture_for_the_same_seed(here):
    for name, seed in [("a.png", 1), ("b.png", 1), ("c.png", 2)]:
        assert ptinv_(*GENERATE, "--seed", seed, "-o", name) == 0
    made = contents(here)
    assert made["a.png"] == made["b.png"] != made["c.png"]


def test_methods_lists_them_all_with_their_defaults(capsys):
    assert ptinv_("methods") == 0
    out = capsys.readouterr().out
    for name, row in METHODS.items():
        assert re.search(
            rf"^{name}\n    {re.escape(row.title)}\n    from {row.trajectory.title}", out, re.M
        )
    assert "--steps 50 --encode-ratio 0.8" in out
    assert "--inner-steps 1 --lr 0.1 --guidance 7.5" in out


def test_version_is_printed(capsys):
    assert ptinv_("--version") == 0
    assert capsys.readouterr().out == f"ptinv {ptinv.__version__}\n"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_says_how_each_command_is_used(command, capsys):
    assert ptinv_(*command, "--help") == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: ptinv", *command]))


# Which model


def test_the_model_that_is_given_goes_before_the_environment_s(small_folder, monkeypatch):
    monkeypatch.setenv("PTINV_MODEL", "nowhere")
    assert ptinv_(*GENERATE, "-o", "out.png") == 2
    assert ptinv_(*GENERATE, "--model", small_folder, "-o", "out.png") == 0


def test_without_either_the_embedded_model_serves_and_says_what_it_is(
    small_folder, monkeypatch, caplog
):
    monkeypatch.delenv("PTINV_MODEL")
    monkeypatch.setattr("ptinv.cli.given.TINY", small_folder)
    assert ptinv_(*GENERATE, "-o", "out.png") == 0
    (remark,) = caplog.messages
    assert "embedded tiny model" in remark
    assert "python tools/download_weights.py" in remark


# As a user starts it


def started(*words):
    command = [sys.executable, "-m", "ptinv", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_a_command_says_on_stderr_what_the_edit_is_about_and_how_far_it_is():
    done = started(*EDIT, "-o", "out.png")
    assert done.returncode == 0 and done.stdout == ""
    assert "ptinv: the edit is about: yellow car\n" in done.stderr
    for loop in ("inverting", "tuning", "sampling"):
        assert re.search(rf"{loop} *: 100%", done.stderr)
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_a_quiet_command_prints_only_results():
    done = started(*RECONSTRUCT, "--quiet", "-o", "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pti: ")


def test_the_version_waits_for_no_heavy_import():
    code = (
        "import sys; from ptinv.cli import main; main(['--version']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["False"]


# Where its output goes


def printed_to(output, word) -> tuple[int, str]:
    """The exit code and stderr of a command whose stdout goes somewhere, in one go at its end."""
    command = [sys.executable, "-m", "ptinv", word]
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=env)
    return done.returncode, done.stderr


@pytest.mark.parametrize("word", ["methods", "--version", "--help"])
def test_output_that_nobody_reads_any_more_ends_quietly(word):
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does
    assert printed_to(writer, word) == (1, "")
    os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("word", ["methods", "--version"])
def test_output_to_a_full_disk_is_answered_in_a_sentence(word):
    with open("/dev/full", "w") as full:
        assert printed_to(full, word) == (1, "ptinv: [Errno 28] No space left on device\n")


# What is refused


NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
REFUSED = [
    (["edit", "missing.png", PROMPT], "missing.png"),
    (["edit", "folder", PROMPT], "folder"),
    (["edit", "notes.txt", PROMPT], "notes.txt"),
    (["edit", "damaged.png", PROMPT], "damaged.png"),
    (["reconstruct", "notes.txt"], "notes.txt"),
    (["edit", "picture.png", ""], "the prompt is empty"),
    (["edit", "picture.png", " "], "the prompt is empty"),
    ([*EDIT, "--eta", "1.5"], "--eta must be a number from 0 to 1, not 1.5"),
    ([*EDIT, "--eta", "nan"], "--eta must be a number from 0 to 1, not nan"),
    ([*EDIT, "--eta", "much"], "--eta"),
    ([*EDIT, "--steps", "0"], "--steps must be a whole number from 1 to 500, not 0"),
    ([*EDIT, "--steps", "2.5"], "--steps"),
    ([*EDIT, "--lr", "inf"], "--lr must be a number from 0 to 1000, not inf"),
    ([*EDIT, "--lr", "-1"], "--lr must be a number from 0 to 1000, not -1"),
    ([*EDIT, "--encode-ratio", "0.1"], "--encode-ratio 0.1 leaves none of the 3 steps"),
    ([*EDIT, "--seed", "-1"], "--seed must be"),
    ([*GENERATE, "--guidance", "1000"], "--guidance must be"),
    ([*GENERATE, "--steps", "501"], "--steps must be"),
    ([*EDIT, "--method", "magic"], "there is no method 'magic'; there are pti, ddim-edit"),
    ([*EDIT, "--method", "vae"], "there is no method 'vae'"),
    ([*RECONSTRUCT, "--method", "magic"], "pti-p2p, ddim, vae"),
    ([*EDIT, "--focus", "boat"], '"boat" is not in the prompt; its words are: a, yellow, car'),
    ([*EDIT, "--mask", "missing.png"], "missing.png"),
    ([*EDIT, "--mask", "notes.txt"], "notes.txt"),
    ([*EDIT, "--mask", "black.png"], "all black"),
    ([*EDIT, "--mask", "other.png"], "32 × 48"),
    ([*EDIT, "--mask", "mask.png", "--no-mask"], "not allowed with"),
    ([*EDIT, "--reweight", "yellow"], "WORD=FACTOR"),
    ([*EDIT, "--reweight", "yellow=much"], "WORD=FACTOR"),
    ([*EDIT, "--reweight", "=2"], "WORD=FACTOR"),
    ([*EDIT, "--reweight", "yellow=-1"], "the weight of 'yellow' must be"),
    ([*EDIT, "--reweight", "boat=2"], '"boat" is not in the prompt'),
    ([*EDIT, "--init-embedding", "source"], "needs a source text"),
    ([*EDIT, "--method", "null-text"], "--source is missing: the method needs a text of what"),
    ([*EDIT, "--method", "pti-p2p"], "--source is missing: the method needs a text of what"),
    ([*EDIT, "--self-replace", "0.1:0.2:0.3"], "is not a share of the steps, or FROM:TO"),
    ([*EDIT, "--cross-replace", "car=soon"], "is not a share of the steps, or FROM:TO"),
    ([*EDIT, "--subtract", " "], "--subtract is empty"),
    ([*EDIT, "--subtract", "boat"], '"boat" is not in the prompt'),
    ([*EDIT, "--method", "p2p", "--source", "a car", "--align", "replace"], "as many words"),
    (
        [*EDIT, "--method", "p2p", "--source", "a car", "--cross-replace", "boat=0.5"],
        '"boat" is not in the prompt',
    ),
    ([*EDIT, "--method", "p2p", "--source", "  "], "--source is missing"),
    ([*EDIT, "--sampler", "ancestral"], "--sampler must be ddim here"),
    ([*GENERATE, "--focus", "car"], "--focus is for an edit of another prompt's picture"),
    ([*GENERATE, "--show-source", "s.png"], "there is no source's picture to show"),
    ([*EDIT, "--init-embedding", "random"], "--init-embedding"),
    ([*EDIT, "--model", "nowhere"], "nowhere"),
    ([*EDIT, "--model", "notes.txt"], "notes.txt"),
    ([*EDIT, "--tokenizer", "folder"], "no tokenizer"),
    ([*EDIT, "--device", "abacus"], "no device called 'abacus'"),
    ([*EDIT, "--device", "abacus:1"], "no device called 'abacus:1'"),
    ([*EDIT, "--device", "mps"], "must be cuda or cpu, not mps"),
    ([*EDIT, "--device", "cpu:1"], "no device cpu:1; the last of its kind is cpu:0"),
    pytest.param([*EDIT, "--device", "cuda"], "no CUDA device", marks=NO_CUDA),
    ([*EDIT, "--dtype", "int8"], "--dtype"),
    ([*EDIT, "--strength", "1"], "--strength"),
    (["improve", "picture.png"], "improve"),
]


@pytest.mark.parametrize("out", ["new.png", "old.png"])
@pytest.mark.parametrize("words, reason", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_line_and_nothing_is_written(
    here, capsys, words, reason, out
):
    before = contents(here)
    assert ptinv_(*words, "-o", out) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("ptinv")
    assert reason in said.err
    assert contents(here) == before


@pytest.mark.parametrize("index", ["2", "256", "99999999999999999999"])  # 256 is 0 to torch
def test_a_gpu_that_is_not_there_is_refused(here, capsys, monkeypatch, index):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert ptinv_(*GENERATE, "--device", f"cuda:{index}", "-o", "new.png") == 2
    assert capsys.readouterr().err.startswith("ptinv: there is no device c")
    assert not (here / "new.png").exists()


NO_PROC = pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")


@pytest.mark.parametrize(
    "out",
    ["out.gif", "out", "folder", "nowhere/out.png", pytest.param("/proc/out.png", marks=NO_PROC)],
)
@pytest.mark.parametrize("words", [EDIT, RECONSTRUCT, GENERATE])
def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_opened(
    here, capsys, words, out
):
    before = contents(here)
    assert ptinv_(*words, "--model", "nowhere", "-o", out) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and out in said and "checkpoint" not in said
    assert contents(here) == before


@pytest.mark.parametrize("words", [[], EDIT, ["edit", "picture.png", "-o", "new.png"]])
def test_an_incomplete_command_says_what_is_missing(words, capsys):
    assert ptinv_(*words) == 2
    assert capsys.readouterr().err.count("\n") == 1


# What goes wrong on the way


@pytest.mark.parametrize("out", ["new.png", "old.png"])
def test_an_interrupted_command_returns_130_and_leaves_nothing(here, capsys, monkeypatch, out):
    forward, asked = UNet.forward, []

    def interrupted(self, *args):
        asked.append(args)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return forward(self, *args)

    monkeypatch.setattr(UNet, "forward", interrupted)
    before = contents(here)
    assert ptinv_(*EDIT, "-o", out) == 130
    assert capsys.readouterr().err.endswith("ptinv: interrupted; no part of the output is left\n")
    assert contents(here) == before


def test_an_interruption_while_the_picture_is_written_leaves_the_old_one(here, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = contents(here)
    monkeypatch.setattr("os.replace", interrupted)
    assert ptinv_(*GENERATE, "-o", "old.png") == 130
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


def test_a_word_that_the_model_does_not_know_is_named_and_the_edit_is_made(caplog):
    words = ["edit", "picture.png", "a grey zebra", *STEPS, "--quiet", "-o", "out.png"]
    assert ptinv_(*words) == 0
    assert caplog.messages == ["the model does not know: grey, zebra"]


def test_another_prompt_makes_another_picture(here):
    for prompt, name in [(PROMPT, "a.png"), (OTHER_PROMPT, "b.png")]:
        assert ptinv_("edit", "picture.png", prompt, *STEPS, "-o", name) == 0
    assert contents(here)["a.png"] != contents(here)["b.png"]


def test_a_device_whose_memory_is_full_is_a_sentence(here, monkeypatch, capsys):
    def full(args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setitem(COMMANDS, "generate", full)
    assert ptinv_(*GENERATE, "-o", "out.png") == 1
    assert capsys.readouterr().err == (
        "ptinv: the device's memory is full; use --dtype float16 or --device cpu\n"
    )
