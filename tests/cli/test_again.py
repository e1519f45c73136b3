"""Invert once and edit many, and make an edit again from its PNG: through the command line."""

import json
import shutil

import pytest
import torch
from commands import contents, pixels, ptinv_, remarks
from PIL import Image
from records import DAMAGED, GENERATED, retold
from safetensors.torch import load_file, save_file
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.storage.provenance import model_hash

pytestmark = pytest.mark.usefixtures("here")
STEPS = ["--steps", "3"]


@pytest.fixture
def stored(here):
    assert ptinv_("invert", "picture.png", PROMPT, *STEPS, "-o", "x.safetensors") == 0
    return here / "x.safetensors"


@pytest.fixture
def other_model(small_folder, tmp_path_factory):
    folder = shutil.copytree(small_folder, tmp_path_factory.mktemp("other") / "model")
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_out.bias"] += 0.01
    save_file(weights, file)
    return folder


def text(path):
    with Image.open(path) as image:
        return dict(image.text)


def refused(capsys, *words):
    assert ptinv_(*words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("ptinv: ")
    return said.err


# Invert once


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [[], [PROMPT], [OTHER_PROMPT]])
@pytest.mark.parametrize(
    "edit", ["", "--guidance 3", "--method ddim-edit", "--no-mask --eta 0.5", "--inner-steps 2"]
)
def test_an_inversion_gives_the_same_file_as_its_picture(here, prompt, edit):
    assert ptinv_("invert", "picture.png", *prompt, *STEPS, "-o", "x.safetensors") == 0
    assert ptinv_("edit", "x.safetensors", PROMPT, *edit.split(), "-o", "a.png") == 0
    assert (
        ptinv_(
            "edit", "picture.png", PROMPT, "--method", "pti", *STEPS, *edit.split(), "-o", "b.png"
        )
        == 0
    )
    assert pixels("a.png") == pixels("b.png")
    same = [{k: v for k, v in text(path).items() if k != "cost"} for path in ("a.png", "b.png")]
    assert same[0] == same[1] and text("a.png")["cost"] != text("b.png")["cost"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pti", "ddim", "vae"])
def test_an_inversion_is_reconstructed_as_its_picture(here, stored, capsys, method):
    for picture, out in [(["x.safetensors"], "a.png"), (["picture.png", PROMPT, *STEPS], "b.png")]:
        assert ptinv_("reconstruct", *picture, "--method", method, "-o", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == said[2:]
    assert pixels("a.png") == pixels("b.png")


def test_tuning_again_is_said_and_reuse_tuning_spares_it(stored, capsys):
    assert ptinv_("edit", stored, OTHER_PROMPT, "-o", "a.png") == 0
    assert "the inversion has another prompt: again, tune c_t" in remarks(capsys)
    capsys.readouterr()
    assert ptinv_("edit", stored, OTHER_PROMPT, "--reuse-tuning", "-o", "b.png") == 0
    assert not any("tuning" in message for message in remarks(capsys))
    assert pixels("a.png") != pixels("b.png")


def test_an_inversion_is_refused_in_a_line(here, stored, capsys, other_model):
    before = contents(here)
    edit = ["edit", stored, PROMPT, "-o", "new.png"]
    assert "another model" in refused(capsys, *edit, "--model", other_model)
    assert "--steps must be 3, the inversion's; give that" in refused(capsys, *edit, "--steps", "5")
    assert "--encode-ratio must be 0.8" in refused(capsys, *edit, "--encode-ratio", "1")
    assert "must end in .safetensors" in refused(capsys, "invert", "picture.png", "-o", "x.png")
    assert "the prompt is empty" in refused(capsys, "invert", "picture.png", "", "-o", stored)
    kept = ["edit", "picture.png", PROMPT, "--method", "pti", "--reuse-tuning", "-o", "new.png"]
    assert "--reuse-tuning needs an inversion" in refused(capsys, *kept)
    for name in ("damaged.safetensors", "foreign.safetensors", "missing.safetensors"):
        if name[0] == "d":
            (here / name).write_bytes(stored.read_bytes()[:5000])
        if name[0] == "f":
            save_file({"weight": torch.zeros(3)}, here / name)
        for command in ("edit", "reconstruct"):
            assert name in refused(capsys, command, name, PROMPT, "-o", "new.png")
        (here / name).unlink(missing_ok=True)
    assert contents(here) == before


def test_an_inversion_guided_by_its_own_prompt_asks_for_it_as_the_source(here, capsys):
    guided = ["--inversion-guidance", "1"]
    assert ptinv_("invert", "picture.png", PROMPT, *STEPS, *guided, "-o", "x.safetensors") == 0
    other = ["x.safetensors", OTHER_PROMPT, "--quiet"]
    capsys.readouterr()
    for command in ("edit", "reconstruct"):
        said = refused(capsys, command, *other, "--model", "nowhere", "-o", "a.png")
        assert f"--source must be {PROMPT!r}, the text that guided the inversion; give that" in said
        assert OTHER_PROMPT not in said
    assert ptinv_("edit", *other, "--source", PROMPT, "-o", "a.png") == 0
    assert ptinv_("edit", "x.safetensors", PROMPT, "-o", "b.png") == 0


# And again


EDITS = [
    ["edit", "picture.png", PROMPT, "--method", "pti"],
    ["edit", "picture.png", PROMPT, "--method", "ddim-edit", "--focus", "car", "--guidance", "3.3"],
    [
        "edit",
        "picture.png",
        PROMPT,
        "--method",
        "pti",
        "--no-mask",
        "--reweight",
        "yellow=2",
        "--seed",
        "7",
    ],
    [
        "edit",
        "picture.png",
        PROMPT,
        "--method",
        "pti",
        "--init-embedding",
        "source",
        "--source",
        "une été ✓",
    ],
    ["edit", "picture.png", PROMPT, "--method", "pti", "--dtype", "bfloat16"],
    ["reconstruct", "picture.png", PROMPT],
    ["reconstruct", "picture.png", "--method", "ddim"],
    ["reconstruct", "picture.png", "--method", "vae"],
]


@pytest.mark.slow
@pytest.mark.parametrize("words", EDITS)
def test_an_edit_is_made_again_from_its_png(here, capsys, words):
    assert ptinv_(*words, *STEPS, "-o", "a.png") == 0
    capsys.readouterr()
    assert ptinv_("again", "a.png", "picture.png") == 0
    assert "a-again.png has the same pixels as a.png" in remarks(capsys)
    made = contents(here)
    assert made["a.png"] == made["a-again.png"]


def test_a_png_says_in_text_how_it_was_made(small_model):
    prompt = "a yellow car — 黄色"
    assert (
        ptinv_(
            "edit", "picture.png", prompt, "--method", "pti", *STEPS, "--seed", "5", "-o", "a.png"
        )
        == 0
    )
    said = text("a.png")
    assert (said["prompt"], said["method"], said["seed"]) == (prompt, "pti", "5")
    assert (said["model"], said["model_hash"]) == (small_model.name, model_hash(small_model))
    assert (said["version"], said["dtype"]) == (ptinv.__version__, "float32")
    assert json.loads(said["settings"])["steps"] == 3
    assert ptinv_("generate", prompt, *STEPS, "--seed", "6", "-o", "b.png") == 0
    said = text("b.png")
    assert (said["command"], said["prompt"], said["seed"]) == ("generate", prompt, "6")
    assert GENERATED.items() <= json.loads(said["settings"]).items()
    assert said["model_hash"] == model_hash(small_model)


def test_an_edit_with_a_mask_asks_for_it_and_checks_it(here, capsys):
    mask = ["--mask", "mask.png"]
    assert (
        ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, *mask, "-o", "a.png") == 0
    )
    again = ["again", "a.png", "picture.png", "-o", "b.png"]
    capsys.readouterr()
    assert "give that one with --mask" in refused(capsys, *again)
    Image.new("L", (48, 32), "white").save("white.png")
    assert "a mask of yours; give that one" in refused(capsys, *again, "--mask", "white.png")
    assert not (here / "b.png").exists()
    Image.open("mask.png").save("copy.bmp")
    assert ptinv_(*again, "--mask", "copy.bmp") == 0
    assert pixels("a.png") == pixels("b.png")
    joined = [*mask, "--mask-from", "file*attention"]
    assert (
        ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, *joined, "-o", "d.png")
        == 0
    )
    assert ptinv_("again", "d.png", "picture.png", *mask) == 0
    assert pixels("d.png") == pixels("d-again.png")
    assert ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", "c.png") == 0
    capsys.readouterr()
    assert "leave --mask out" in refused(capsys, "again", "c.png", "picture.png", *mask)


def test_a_reconstruction_made_again_is_not_doubted(capsys):
    assert ptinv_("reconstruct", "picture.png", PROMPT, *STEPS, "-o", "a.png") == 0
    assert ptinv_("again", "a.png", "picture.png") == 0
    assert not any("change nothing" in remark for remark in remarks(capsys))


def test_an_edit_with_a_kept_tuning_is_made_again_from_the_inversion(stored, capsys):
    assert ptinv_("edit", stored, OTHER_PROMPT, "--reuse-tuning", "-o", "a.png") == 0
    capsys.readouterr()
    assert "needs an inversion" in refused(capsys, "again", "a.png", "picture.png")
    assert ptinv_("again", "a.png", stored) == 0
    assert pixels("a.png") == pixels("a-again.png")
    assert ptinv_("invert", "picture.png", "a red boat", *STEPS, "-o", "y.safetensors") == 0
    assert ptinv_("again", "a.png", "y.safetensors", "-o", "b.png") == 0
    assert any("y.safetensors is not what a.png was made of" in m for m in remarks(capsys))


def test_another_picture_is_edited_in_the_same_way_and_it_is_said(picture, capsys):
    picture.rotate(180).save("turned.png")
    assert ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", "a.png") == 0
    assert ptinv_("again", "a.png", "turned.png", "-o", "b.png") == 0
    assert "turned.png is not what a.png was made of: making the same of it" in remarks(capsys)
    assert ptinv_("edit", "turned.png", PROMPT, "--method", "pti", *STEPS, "-o", "c.png") == 0
    assert pixels("b.png") == pixels("c.png")


def test_nothing_is_overwritten_that_was_not_named(here, capsys):
    assert ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", "a.png") == 0
    (here / "a-again.png").write_bytes(b"work")
    before = contents(here)
    capsys.readouterr()
    assert "exists already" in refused(capsys, "again", "a.png", "picture.png")
    for out in ("a.png", "picture.png"):
        assert "overwrite" in refused(capsys, "again", "a.png", "picture.png", "-o", out)
    assert "overwrite" in refused(
        capsys, "edit", "picture.png", PROMPT, "--method", "pti", "-o", "picture.png"
    )
    assert contents(here) == before


WRONG = [  # whole, but for something that is not there or does not fit
    ({"prompt": ""}, "the prompt is empty"),
    ({"model_hash": "0" * 64}, "another model"),
    ({"command": "generate"}, "use ptinv generate"),
    ({"method": "magic"}, "no method 'magic'"),
    ({"device": "abacus"}, "no device abacus here"),
    ({"dtype": "int8"}, "dtype must be auto or one of"),
]


def test_a_png_that_lacks_or_garbles_its_chunks_is_refused_in_a_line(here, capsys):
    assert ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", "whole.png") == 0
    capsys.readouterr()
    for changed, reason in [*DAMAGED, *WRONG]:
        shutil.copy("whole.png", "a.png")
        retold("a.png", **changed)
        before = contents(here)
        assert reason in refused(capsys, "again", "a.png", "picture.png"), changed
        assert contents(here) == before


@pytest.mark.parametrize(
    "name", ["picture.png", "a.jpg", "damaged.png", "missing.png", "notes.txt"]
)
def test_a_picture_that_cannot_say_is_refused_in_a_line(here, capsys, picture, name):
    picture.save("a.jpg")
    before = contents(here)
    assert name in refused(capsys, "again", name, "picture.png", "-o", "new.png")
    assert contents(here) == before


def test_another_model_is_refused_by_its_hash(here, capsys, other_model):
    assert ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", "a.png") == 0
    before = contents(here)
    capsys.readouterr()
    said = refused(capsys, "again", "a.png", "picture.png", "--model", other_model)
    assert "a.png was made with another model" in said
    assert contents(here) == before


def test_jpeg_and_webp_are_written_without_text_and_help_says_so(capsys):
    for out in ("a.jpg", "a.webp"):
        assert ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", out) == 0
        capsys.readouterr()
        assert "JPEG and WebP cannot" in refused(capsys, "again", out, "picture.png")
    assert ptinv_("again", "--help") == 0
    assert "JPEG and WebP cannot" in " ".join(capsys.readouterr().out.split())
