"""What people give and do by mistake, each answered in a sentence with nothing written; and the odd
pictures that do work. All of it through the command line, to the end."""

import json
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from commands import contents, interrupted_at, pixels, ptinv_
from PIL import Image
from safetensors.torch import load_file, save_file
from small import PROMPT

pytestmark = pytest.mark.usefixtures("here")
STEPS = ["--steps", "3"]


def answer(capsys, *words) -> str:
    """What is said of a command that is refused; nothing may have been written."""
    assert ptinv_(*words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("ptinv: ")
    return said.err


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


def test_an_inversion_is_not_inverted_again(here, capsys):
    assert ptinv_("invert", "picture.png", *STEPS, "--quiet", "-o", "kept.safetensors") == 0
    capsys.readouterr()
    said = answer(capsys, "invert", "kept.safetensors", PROMPT, "-o", "new.safetensors")
    assert "kept.safetensors is an inversion already" in said


def test_a_mask_that_would_not_be_used(here, capsys, picture):
    picture.save("mask.png")
    masks = ["--mask", "mask.png", "--mask-from", "attention"]
    said = answer(capsys, "edit", "picture.png", PROMPT, *masks, "-o", "new.png")
    assert "--mask-from leaves out the file" in said


def test_a_model_without_a_name(here, capsys):
    said = answer(capsys, "edit", "picture.png", PROMPT, "--model", "", "-o", "new.png")
    assert "--model is empty" in said


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("command", ["edit", "reconstruct", "invert", "attention"])
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
    "partial": "missing: conv_in.weight",
    "without its vae": "lacks the subfolder vae",
    "pickle": "tools/convert_checkpoint.py",
    "stable diffusion 2": "only Stable Diffusion v1",
    "nonsense": "unet/config.json: norm_num_groups must be a divisor",
    "not json": "is not JSON",
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("command", ["edit", "generate", "invert"])
def test_a_checkpoint_that_cannot_be_used(here, capsys, small_folder, command, kind):
    shutil.copytree(small_folder, here / "model")
    spoilt(here / "model", kind)
    before = contents(here)
    picture = [] if command == "generate" else ["picture.png"]
    out = "new.safetensors" if command == "invert" else "new.png"
    said = answer(capsys, command, *picture, PROMPT, "--model", "model", "-o", out)
    assert CHECKPOINTS[kind] in said
    assert contents(here) == before


# Words and numbers


@pytest.mark.parametrize("prompt", ["", "  "])
@pytest.mark.parametrize(
    "words, out",
    [
        (["edit", "picture.png"], "a.png"),
        (["generate"], "a.png"),
        (["invert", "picture.png"], "a.safetensors"),
    ],
)
def test_an_empty_prompt(here, capsys, words, out, prompt):
    before = contents(here)
    assert "the prompt is empty" in answer(capsys, *words, prompt, "-o", out)
    assert contents(here) == before


def test_a_prompt_in_bytes_that_are_no_characters(here, capsys):
    before = contents(here)
    for flags in ([b"\xff"], [b"a car", "--focus", b"\xff"], [b"a car", "--source", b"\xff"]):
        words = [os.fsdecode(word) for word in flags]
        assert "no characters" in answer(capsys, "edit", "picture.png", *words, "-o", "a.png")
    assert contents(here) == before


NUMBERS = [
    ("--steps", ["0", "501", "-1"]),
    ("--encode-ratio", ["0", "1.01", "-0.1"]),
    ("--inner-steps", ["-1", "10001"]),
    ("--lr", ["-0.1", "1001"]),
    ("--guidance", ["-0.1", "101"]),
    ("--eta", ["-0.1", "1.01"]),
    ("--mask-threshold", ["-0.1", "1.01"]),
    ("--seed", ["-1", str(2**63)]),
    ("--lr-decay", ["-0.1", "1.01"]),
    ("--stop-below", ["-0.1", "1001"]),
    ("--proximal-quantile", ["-0.1", "1.01"]),
    ("--self-cells", ["0", "1001"]),
    ("--self-replace", ["-0.1", "1.01", "0.5:0.4", "0:1.1"]),
    ("--cross-replace", ["-0.1", "1.01", "0.5:0.4", "car=2"]),
    ("--reweight", ["car=-1", "car=1001", "car=nan"]),
]
WHOLE = ("--steps", "--inner-steps", "--self-cells", "--seed", "--reweight")


@pytest.mark.parametrize("flag, values", NUMBERS)
def test_a_number_out_of_range(here, capsys, flag, values):
    values = values + ([] if flag in WHOLE else ["nan", "inf", "-inf"])
    before = contents(here)
    for value in values:
        said = answer(
            capsys,
            *[
                "edit",
                "picture.png",
                PROMPT,
                f"{flag}={value}",
                "-o",
                "a.png",
                "--model",
                "nowhere",
            ],
        )
        assert "must be" in said or "leaves none" in said, value
        assert flag in said or flag == "--reweight"
    assert contents(here) == before


# Ctrl-C, as it is pressed


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
    words = ["edit", "picture.png", PROMPT, "--method", "ddim-edit", "-o", "old.png"]
    code, said = interrupted_at(moment, *words, flags=flags)
    assert code == 130, said[-500:]
    assert said.endswith("ptinv: interrupted; no part of the output is left\n")
    assert "Traceback" not in said
    assert contents(here) == before


@pytest.mark.parametrize(
    "words",
    [
        ["edit", "picture.png", PROMPT, *STEPS, "-o", "old.png"],
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


# Odd pictures


def odd(kind: str, picture: Image.Image) -> str:
    """Writes a picture of a kind; its name."""
    grey = picture.convert("L")
    match kind:
        case "turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.transpose(Image.Transpose.ROTATE_90).save("odd.png", exif=exif)
        case "alpha":
            picture.putalpha(grey)
            picture.save("odd.png")
        case "16-bit":
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save("odd.png")
        case "palette":
            picture.quantize(16).save("odd.png")
        case "CMYK":
            picture.convert("CMYK").save("odd.jpg")
            return "odd.jpg"
        case "grey":
            grey.save("odd.png")
        case "animated":
            picture.save("odd.gif", save_all=True, append_images=[picture.rotate(180)])
            return "odd.gif"
        case "portrait":
            picture.resize((32, 80)).save("odd.png")
        case "panorama":
            picture.resize((160, 32)).save("odd.png")
    return "odd.png"


SIZES = {"portrait": (32, 80), "panorama": (160, 32)}


@pytest.mark.parametrize(
    "kind",
    "turned alpha 16-bit palette CMYK grey animated portrait panorama".split(),
)
def test_an_odd_picture_is_edited_in_its_own_size(picture, caplog, kind):
    name = odd(kind, picture.copy())
    assert ptinv_("invert", name, *STEPS, "-o", "x.safetensors") == 0
    assert ptinv_("edit", "x.safetensors", PROMPT, "-o", "a.png") == 0
    assert ptinv_("edit", name, PROMPT, *STEPS, "-o", "b.png") == 0
    assert pixels("a.png") == pixels("b.png")
    assert pixels("a.png")[0] == SIZES.get(kind, (48, 32))
    said = f"{name} holds 2 frames; only the first is used"
    assert caplog.messages.count(said) == (2 if kind == "animated" else 0)
    if kind == "turned":
        assert ptinv_("edit", "picture.png", PROMPT, *STEPS, "-o", "c.png") == 0
        assert pixels("a.png") == pixels("c.png")
