"""The command line, end to end: what each command leaves and prints.

Most tests call the command in this process; a few start it as a user does.
"""

import gc
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import contents, pixels, ptinv_, remarks
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv import cli
from ptinv.cli.options import COMMANDS
from ptinv.methods.table import METHODS

pytestmark = pytest.mark.usefixtures("here")

STEPS = ["--steps", "3"]
EDIT = ["edit", "picture.png", PROMPT, "--method", "pti", *STEPS]
RECONSTRUCT = ["reconstruct", "picture.png", PROMPT, *STEPS]
GENERATE = ["generate", PROMPT, *STEPS]


# What the commands do


def test_edit_writes_the_edited_picture_in_its_own_size(small_model, picture, capsys):
    assert ptinv_(*EDIT, "-o", "out.png") == 0
    edited = ptinv.edit(small_model, picture, PROMPT, "pti", steps=3)
    assert pixels("out.png") == ((48, 32), edited.tobytes())
    assert capsys.readouterr().out == ""


@pytest.mark.slow
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
    edited = ptinv.edit(small_model, picture, PROMPT, **{"method": "pti", "steps": 3, **options})
    assert pixels("out.png")[1] == edited.tobytes()


def test_generate_with_a_source_edits_what_that_makes_of_the_same_noise(small_model):
    words = [*GENERATE, "--source", "a red car", "--seed", "5", "-o", "edited.png"]
    assert ptinv_(*words, "--show-source", "source.png") == 0
    edited = ptinv.generate(small_model, PROMPT, source="a red car", seed=5, steps=3)
    assert pixels("edited.png")[1] == edited.tobytes()
    alone = ptinv.generate(small_model, "a red car", seed=5, steps=3)
    made = np.asarray(Image.open("source.png"), np.int16)
    assert np.abs(made - np.asarray(alone, np.int16)).max() <= 1  # a batch of one, or of two


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_networks_run_in_the_precision_that_is_asked_for(dtype):
    assert ptinv_(*EDIT, "--dtype", dtype, "-o", "out.png") == 0
    assert pixels("out.png")[0] == (48, 32)


@pytest.mark.parametrize("name", ["out.jpg", "out.webp", "old.png"])
def test_a_picture_is_written_as_its_name_says_and_an_old_one_replaced(name):
    assert ptinv_(*EDIT, "-o", name) == 0
    assert pixels(name)[0] == (48, 32)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddim", "vae", *METHODS])
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
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ptinv {ptinv.__version__}\n"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_says_how_each_command_is_used(command, capsys):
    assert ptinv_(*command, "--help") == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: ptinv", *command]))


def test_a_word_that_the_model_does_not_know_is_named_and_the_edit_is_made(capsys):
    words = [
        "edit",
        "picture.png",
        "a grey zebra",
        "--method",
        "pti",
        *STEPS,
        "--quiet",
        "-o",
        "out.png",
    ]
    assert ptinv_(*words) == 0
    assert remarks(capsys) == ["the model does not know: grey, zebra"]


def test_another_prompt_makes_another_picture(here):
    for prompt, name in [(PROMPT, "a.png"), (OTHER_PROMPT, "b.png")]:
        assert ptinv_("edit", "picture.png", prompt, "--method", "pti", *STEPS, "-o", name) == 0
    assert contents(here)["a.png"] != contents(here)["b.png"]


# Which model


def test_the_model_that_is_given_goes_before_the_environment_s(small_folder, monkeypatch):
    monkeypatch.setenv("PTINV_MODEL", "nowhere")
    assert ptinv_(*GENERATE, "-o", "out.png") == 2
    assert ptinv_(*GENERATE, "--model", small_folder, "-o", "out.png") == 0


def test_without_either_the_embedded_model_serves_and_says_what_it_is(
    small_folder, monkeypatch, capsys
):
    monkeypatch.delenv("PTINV_MODEL")
    monkeypatch.setattr("ptinv.storage.checkpoint.EMBEDDED", small_folder)
    assert ptinv_(*GENERATE, "-o", "out.png") == 0
    (remark,) = remarks(capsys)
    assert "embedded tiny model" in remark
    assert "python tools/download_weights.py" in remark


# As a user starts it


def started(*words):
    command = [sys.executable, "-m", "ptinv", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_a_command_says_on_stderr_what_the_edit_is_about_and_how_far_it_is():
    done = started(*EDIT, "-o", "out.png")
    assert done.returncode == 0 and done.stdout == ""
    assert "ptinv: the edit is about: yellow car\n" in done.stderr
    for loop in ("inverting", "tuning", "sampling"):
        assert re.search(rf"{loop} *: 100%", done.stderr)
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_a_quiet_command_prints_only_results(capsys):
    assert ptinv_(*RECONSTRUCT, "--quiet", "-o", "out.png") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("pti: ")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii:strict"])
@pytest.mark.parametrize("words", ["edit --help", "methods", "edit picture.png 猫 -o a.png"])
def test_a_terminal_without_a_letter_gets_another_in_its_place(encoding, words):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PTINV_MODEL": "missing"}
    command = [sys.executable, "-m", "ptinv", *words.split()]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == (2 if "picture.png" in words else 0)
    assert b"Traceback" not in done.stderr
    assert done.stderr if "picture.png" in words else b"?" in done.stdout or words == "methods"


@pytest.mark.parametrize("words", [EDIT, RECONSTRUCT, GENERATE])
def test_no_record_is_written_where_none_is_wanted(words, capsys):
    assert ptinv_(*words, "-o", "a.png") == 0
    assert ptinv_(*words, "-o", "b.png", "--no-record") == 0
    assert pixels("a.png") == pixels("b.png")
    with Image.open("a.png") as recorded, Image.open("b.png") as bare:
        assert recorded.text["prompt"] == PROMPT and bare.text == {}


def test_colours_are_the_picture_s_own_where_it_is_pasted_back(wild, birds):
    words = [wild / "p3-birds.png", PROMPT, *STEPS, "--paste-back"]
    mask = Image.new("L", birds.size)
    mask.paste(255, (0, 0, 16, 16))
    mask.save("mask.png")
    assert ptinv_("edit", *words, "--mask", "mask.png", "-o", "a.png") == 0
    made = np.asarray(Image.open("a.png").convert("RGB")).astype(int)
    assert np.abs(made - np.asarray(birds))[64:, 64:].max() <= 2
    stored = np.asarray(Image.open(wild / "p3-birds.png").convert("RGB")).astype(int)
    assert np.abs(made - stored)[64:, 64:].max() > 12


def test_the_version_waits_for_no_heavy_import():
    code = (
        "import sys; from ptinv.cli import main; main(['--version']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["False"]


@pytest.mark.slow
def test_a_command_imports_what_stays_without_looking_for_garbage_in_it():
    code = """
import gc, sys
from ptinv.cli import main
seen = []
gc.callbacks.append(lambda phase, info: seen.append("torch" in sys.modules))
sys.argv = ["ptinv", "methods"]
main()
gc.callbacks.clear()
print(any(seen), gc.isenabled(), gc.get_freeze_count() > 100_000)
unneeded = "diffusers torchvision matplotlib scipy sklearn transformers.trainer"
print([name for name in unneeded.split() if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["False True True", "[]"]


def test_a_command_within_another_program_leaves_its_garbage_collector_alone():
    frozen = gc.get_freeze_count()
    assert ptinv_("methods") == 0
    assert gc.isenabled() and gc.get_freeze_count() == frozen
