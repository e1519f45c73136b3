"""What people give and do by mistake, each answered in a sentence with nothing written.

One row for each kind of refusal; the modules that refuse have all their rows in tests of their own.
"""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import torch
from commands import contents, ptinv_
from PIL import Image
from safetensors.torch import load_file, save_file
from small import PROMPT

pytestmark = pytest.mark.usefixtures("here")
STEPS = ["--steps", "3"]
EDIT = ["edit", "picture.png", PROMPT, "--method", "pti", *STEPS]
RECONSTRUCT = ["reconstruct", "picture.png", PROMPT, *STEPS]
GENERATE = ["generate", PROMPT, *STEPS]


def answer(capsys, *words) -> str:
    """The one line on stderr of a command that is refused; nothing is on stdout."""
    assert ptinv_(*words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("ptinv")
    return said.err


# Words, numbers and files


NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
REFUSED = [
    (["edit", "picture.png", ""], "the prompt is empty"),
    # a setting, by its flag
    ([*EDIT, "--eta", "1.5"], "--eta must be a number from 0 to 1, not 1.5"),
    ([*EDIT, "--eta", "much"], "--eta"),
    ([*EDIT, "--steps", "0"], "--steps must be a whole number from 1 to 500, not 0"),
    ([*EDIT, "--steps", "2.5"], "--steps"),
    ([*EDIT, "--encode-ratio", "0.1"], "--encode-ratio 0.1 leaves none of the 3 steps"),
    ([*GENERATE, "--guidance", "1000"], "--guidance must be"),
    ([*EDIT, "--self-replace=0.5:0.4"], "--self-replace must be a share of the steps"),
    ([*EDIT, "--reweight", "yellow=-1"], "the weight of 'yellow' must be"),
    ([*EDIT, "--subtract", " "], "--subtract is empty"),
    ([*EDIT, "--init-embedding", "random"], "--init-embedding"),
    ([*EDIT, "--init-embedding", "source"], "needs a source text"),
    # an option that cannot be read
    ([*EDIT, "--reweight", "yellow=much"], "WORD=FACTOR"),
    ([*EDIT, "--reweight", "=2"], "WORD=FACTOR"),
    ([*EDIT, "--self-replace", "0.1:0.2:0.3"], "a share of the steps from 0 to 1, or two in order"),
    ([*EDIT, "--cross-replace", "car=soon"], "is not a share of the steps, or FROM:TO"),
    ([*EDIT, "--cross-replace=--"], "is not a share of the steps, or FROM:TO"),
    ([*EDIT, "--model=--"], "--model is empty"),
    ([*EDIT, "--dtype", "int8"], "--dtype"),
    ([*EDIT, "--strength", "1"], "--strength"),
    (["improve", "picture.png"], "improve"),
    # a method
    ([*EDIT, "--method", "magic"], "there is no method 'magic'; there are pti, auto"),
    ([*EDIT, "--method", "vae"], "there is no method 'vae'"),
    ([*RECONSTRUCT, "--method", "magic"], "pti-p2p, ddim, vae"),
    ([*EDIT, "--method", "p2p", "--source", "  "], "--source is missing"),
    ([*EDIT, "--sampler", "ancestral"], "--sampler must be ddim here"),
    # words that the texts do not hold
    ([*EDIT, "--focus", "boat"], '"boat" is not in the prompt; its words are: a, yellow, car'),
    ([*EDIT, "--reweight", "boat=2"], '"boat" is not in the prompt'),
    ([*EDIT, "--subtract", "boat"], '"boat" is not in the prompt'),
    ([*EDIT, "--method", "p2p", "--source", "a car", "--align", "replace"], "as many words"),
    # masks
    ([*EDIT, "--mask", "notes.txt"], "notes.txt"),
    ([*EDIT, "--mask", "black.png"], "all black"),
    ([*EDIT, "--mask", "other.png"], "32 × 48"),
    ([*EDIT, "--mask", "mask.png", "--no-mask"], "not allowed with"),
    ([*EDIT, "--mask", "mask.png", "--mask-from", "attention"], "--mask-from leaves out the file"),
    # generating
    ([*GENERATE, "--focus", "car"], "--focus is for an edit of another prompt's picture"),
    ([*GENERATE, "--show-source", "s.png"], "there is no source's picture to show"),
    # the model and its device
    ([*EDIT, "--model", ""], "--model is empty"),
    ([*EDIT, "--model", "nowhere"], "nowhere"),
    ([*EDIT, "--tokenizer", "folder"], "no tokenizer"),
    ([*EDIT, "--device", "abacus"], "no device abacus here"),
    ([*EDIT, "--device", "mps"], "no device mps here"),
    ([*EDIT, "--device", "cpu:1"], "no device cpu:1 here"),
    pytest.param([*EDIT, "--device", "cuda"], "no device cuda here, only cpu", marks=NO_CUDA),
]


@pytest.mark.parametrize("words, reason", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_line_and_nothing_is_written(
    here, capsys, words, reason
):
    before = contents(here)
    for out in ("new.png", "old.png"):
        assert reason in answer(capsys, *words, "-o", out)
    assert contents(here) == before


@pytest.mark.parametrize("index", ["2", "256", "99999999999999999999"])  # 256 is 0 to torch
def test_a_gpu_that_is_not_there_is_refused(here, capsys, monkeypatch, index):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    said = answer(capsys, *GENERATE, "--device", f"cuda:{index}", "-o", "new.png")
    assert said.startswith("ptinv: there is no device c")
    assert not (here / "new.png").exists()


@pytest.mark.parametrize(
    "words, out",
    [
        (["generate"], "a.png"),
        (["invert", "picture.png"], "a.safetensors"),
    ],
)
def test_an_empty_prompt(here, capsys, words, out):
    before = contents(here)
    assert "the prompt is empty" in answer(capsys, *words, "  ", "-o", out)
    assert contents(here) == before


def test_a_prompt_in_bytes_that_are_no_characters(here, capsys):
    before = contents(here)
    for flags in ([b"\xff"], [b"a car", "--focus", b"\xff"], [b"a car", "--source", b"\xff"]):
        words = [os.fsdecode(word) for word in flags]
        assert "no characters" in answer(capsys, "edit", "picture.png", *words, "-o", "a.png")
    assert contents(here) == before


@pytest.mark.parametrize("words", [[], EDIT, ["edit", "picture.png", "-o", "new.png"]])
def test_an_incomplete_command_is_answered_in_a_line(words, capsys):
    answer(capsys, *words)


def test_an_inversion_is_not_inverted_again(here, capsys):
    assert ptinv_("invert", "picture.png", *STEPS, "--quiet", "-o", "kept.safetensors") == 0
    capsys.readouterr()
    said = answer(capsys, "invert", "kept.safetensors", PROMPT, "-o", "new.safetensors")
    assert "this is an inversion already; give it to edit or reconstruct" in said


@pytest.mark.parametrize(
    "words",
    [
        [*EDIT, "--eta", "2"],
        [*EDIT, "--mask", "other.png"],
        [*RECONSTRUCT, "--method", "magic"],
        [*GENERATE, "--focus", "car"],
    ],
)
def test_settings_and_masks_are_refused_before_the_model_is_opened(capsys, words):
    assert "checkpoint" not in answer(capsys, *words, "--model", "nowhere", "-o", "new.png")


# Where the output goes


NO_PROC = pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")


@pytest.mark.parametrize(
    "words, out",
    [
        (EDIT, "out.gif"),
        (EDIT, "out"),
        (EDIT, "folder"),
        (EDIT, "nowhere/out.png"),
        pytest.param(EDIT, "/proc/out.png", marks=NO_PROC),
        (RECONSTRUCT, "out.gif"),
        (GENERATE, "out.gif"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_opened(
    here, capsys, words, out
):
    before = contents(here)
    said = answer(capsys, *words, "--model", "nowhere", "-o", out)
    assert out in said and "checkpoint" not in said
    assert contents(here) == before


def test_two_pictures_do_not_go_to_one_file(capsys):
    for flags in (["--show-source", "a.png"], ["--show-source", "./a.png"]):
        said = answer(capsys, *GENERATE, "--source", "a car", *flags, "-o", "a.png")
        assert "name another" in said
    for spelt in ("a.png", "./a.png", "../" + Path.cwd().name + "/a.png"):
        assert "name another" in answer(capsys, *EDIT, "--show-mask", spelt, "-o", "a.png")


# Pictures


def enormous() -> bytes:
    """A PNG's header of a million pixels squared."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\x35\xaf\x06\x1e"


def bad_picture(name: str, picture: Image.Image) -> None:
    match name:
        case "empty.png":
            open(name, "w").close()
        case "truncated.jpg":
            picture.save("whole.jpg")
            with open("whole.jpg", "rb") as whole, open(name, "wb") as file:
                file.write(whole.read()[:700])
            os.unlink("whole.jpg")
        case "pixel.png":
            Image.new("RGB", (1, 1)).save(name)
        case "enormous.png":
            with open(name, "wb") as file:
                file.write(enormous())
        case "long.png":
            Image.new("RGB", (16, 4000)).save(name)


PICTURES = {
    "missing.png": "no regular file",
    "empty.png": "is empty",
    "truncated.jpg": "truncated or damaged",
    "notes.txt": "not a picture",
    "folder": "a folder",
    "pixel.png": "too small",
    "enormous.png": "million pixels",
    "long.png": "too elongated",
}
COMMANDS = ["reconstruct", "invert"]


@pytest.mark.parametrize(
    "command, name",
    [*(("edit", name) for name in PICTURES), *((command, "notes.txt") for command in COMMANDS)],
)
def test_a_picture_that_cannot_be_used(here, capsys, picture, command, name):
    bad_picture(name, picture)
    before = contents(here)
    out = "new.safetensors" if command == "invert" else "new.png"
    said = answer(capsys, command, name, PROMPT, "--model", "nowhere", "-o", out)
    assert name in said and PICTURES[name] in said
    assert contents(here) == before


# Checkpoints


def spoilt(folder, kind):
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    config = folder / "unet/config.json"
    match kind:
        case "truncated":
            unet.write_bytes(unet.read_bytes()[:-1000])
        case "partial":
            weights = load_file(unet)
            del weights["conv_in.weight"]
            save_file(weights, unet)
        case "without its vae":
            shutil.rmtree(folder / "vae")
        case "pickle":
            unet.rename(unet.with_suffix(".bin"))
        case "stable diffusion 2":
            config.write_text(json.dumps(json.loads(config.read_text()) | SD_2))
        case "nonsense":
            config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_num_groups": 7}))
        case "not json":
            config.write_text("{")


SD_2 = {"cross_attention_dim": 1024}
CHECKPOINTS = {
    "truncated": "not a whole safetensors file",
    "partial": "missing: unet.conv_in.weight",
    "without its vae": "lacks the subfolder vae",
    "pickle": "tools/convert_checkpoint.py",
    "stable diffusion 2": "only Stable Diffusion v1",
    "nonsense": "unet/config.json: norm_num_groups must be a divisor",
    "not json": "is not a JSON object",
}


@pytest.mark.parametrize(
    "command, kind",
    [*(("edit", kind) for kind in CHECKPOINTS), ("generate", "partial"), ("invert", "partial")],
)
def test_a_checkpoint_that_cannot_be_used(here, capsys, small_folder, command, kind):
    shutil.copytree(small_folder, here / "model")
    spoilt(here / "model", kind)
    before = contents(here)
    picture = [] if command == "generate" else ["picture.png"]
    out = "new.safetensors" if command == "invert" else "new.png"
    said = answer(capsys, command, *picture, PROMPT, "--model", "model", "-o", out)
    assert CHECKPOINTS[kind] in said
    assert contents(here) == before


@pytest.mark.parametrize(
    "words",
    [
        ["edit", "x" * 50_000, PROMPT],
        ["edit", "\x1b[2J.png", PROMPT],
        ["edit", "picture.png", "x" * 50_000],
        [*EDIT, "--method", "x\x1b[2J" * 9000],
        [*EDIT, "--eta", "\x1b[2J" * 9000],
        [*EDIT, "--mask-from", "~" * 50_000],
        [*EDIT, "--mask-from", "x+" * 4000],
        [*EDIT, "--focus", "x " * 4000],
        [*EDIT, "--model", "x" * 50_000],
        [*EDIT, "--tokenizer", "x" * 300],
    ],
)
def test_a_sentence_stays_one_whatever_it_quotes(here, capsys, words):
    before = contents(here)
    said = answer(capsys, *words, "-o", "new.png")
    assert len(said) < 700 and said[:-1].isprintable()
    assert contents(here) == before


@pytest.mark.parametrize("spelt", ["{}", "model/../{}", "link.safetensors"])
def test_the_model_s_weights_are_no_output(here, capsys, small_folder, spelt):
    shutil.copytree(small_folder, here / "model")
    weights = here / "model/unet/diffusion_pytorch_model.safetensors"
    (here / "link.safetensors").symlink_to(weights)
    out = spelt.format(weights.relative_to(here))
    before = weights.read_bytes()
    said = answer(capsys, "invert", "picture.png", "--model", "model", "-o", out)
    assert "would overwrite what it is made from" in said
    assert weights.read_bytes() == before
