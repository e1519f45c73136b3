"""The sheet of methods: each cell is what `ptinv edit` makes, or says why there is none."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import compare
import numpy as np
import pytest
from commands import contents, pixels
from evaluation import cells
from PIL import Image
from small import PROMPT

import ptinv

ROOT = Path(__file__).parents[2]
SOURCE = "a red car on the grass"
FEW = ["--steps", "3"]
ALL = ["--methods", "auto,pti,diffedit,direct", *FEW]


@pytest.fixture
def compare_(here, capsys):
    """Runs the program on the small model; returns its code and what it printed."""

    def run(*words):
        code = compare.main([*map(str, words)])
        return code, capsys.readouterr()

    return run


def carried(path):
    """What a sheet's PNG tells of its cells."""
    with Image.open(path) as sheet:
        return json.loads(sheet.text["cells"])


@pytest.mark.parametrize("told", [pytest.param([], marks=pytest.mark.slow), ["--source", SOURCE]])
def test_each_cell_is_the_edit_that_ptinv_makes(compare_, here, small_model, picture, told):
    code, said = compare_("picture.png", PROMPT, *ALL, *told, "-o", "s.png", "--cells", "cells")
    assert code == 0 and [line.split(":")[0] for line in said.out.splitlines()] == [
        *("auto", "pti", "diffedit", "direct")
    ]
    for cell in carried("s.png"):
        given = {"source": SOURCE} if told else {}
        alone = ptinv.result(small_model, picture, PROMPT, cell["method"], steps=3, **given)
        (kept,) = Path("cells").glob(f"{cell['name']}-*.png")
        assert pixels(kept)[1] == alone.picture.tobytes()
        alone.save("alone.png")
        with Image.open(kept) as one, Image.open("alone.png") as other:
            assert one.text | {"cost": ""} == other.text | {"cost": ""}
            assert cell["settings"] == json.loads(other.text["settings"])
        assert cell["forward"] == alone.rows.forward and cell["backward"] == alone.rows.backward
        assert cell["seconds"] > 0


def test_inversions_are_shared(compare_, unet_calls):
    """Three steps at a ratio of 0.8 are two up, and two down."""
    up, down = 2, 2
    assert compare_("picture.png", PROMPT, "--methods", "ddim-global,ddim-edit,latent", *FEW,
                    "-o", "s.png")[0] == 0  # fmt: skip
    assert len(unet_calls) == up + 3 * down
    del unet_calls[:]
    said = ["--methods", "npi,p2p", "--source", SOURCE, *FEW, "-o", "s.png"]
    assert compare_("picture.png", PROMPT, *said)[0] == 0
    assert len(unet_calls) == 3 + 2 * 3


@pytest.mark.slow
def test_what_the_picture_shows_is_read_once(compare_, unet_calls):
    def calls(names):
        del unet_calls[:]
        assert compare_("picture.png", PROMPT, "--methods", names, *FEW, "-o", "s.png")[0] == 0
        return len(unet_calls)

    up, down = 3, 3
    assert calls("p2p,npi") == calls("p2p") + down
    assert calls("p2p") > 30 + up + down  # most of it is reading


def test_a_method_that_fails_is_a_cell_that_says_why(compare_, here):
    out = ["-o", "s.png", "--sampler", "ancestral", *FEW]
    code, said = compare_("picture.png", PROMPT, "--methods", "sdedit,pti", *out)
    assert code == 2 and "pti: sampler must be ddim here" in said.err
    made, failed = carried("s.png")
    assert made["method"] == "sdedit" and "error" not in made
    assert "sampler must be ddim here" in failed["error"]


def test_the_reason_stands_in_the_cell_whole():
    empty = cells.why("the numbers overflowed", (64, 64))
    assert empty.width == 128 and empty.getpixel((3, 3)) == (255, 255, 255)
    assert np.asarray(empty.crop((8, 8, 120, 120)).convert("L")).min() < 130
    longer = cells.why(30 * "the numbers overflowed ", (64, 64))
    assert longer.height > 4 * empty.height


def test_a_failure_while_it_is_made_says_why_too(compare_, here, monkeypatch):
    result_of = cells.result_of

    def failing(model, picture, prompt, name, *rest):
        if name == "pti":
            raise FloatingPointError("the tuning is not finite")
        return result_of(model, picture, prompt, name, *rest)

    monkeypatch.setattr(cells, "result_of", failing)
    args = ["picture.png", PROMPT, "--methods", "pti,diffedit", *FEW, "-o", "s.png"]
    assert compare_(*args)[0] == 2
    assert [cell.get("error") for cell in carried("s.png")] == ["the tuning is not finite", None]


def test_an_interrupted_run_goes_on_where_it_was(compare_, here, unet_calls, monkeypatch):
    args = ["picture.png", PROMPT, "--methods", "ddim-global,pti", *FEW, "-o", "s.png"]
    args += ["--cells", "cells"]
    with monkeypatch.context() as patch:
        result_of = cells.result_of

        def stopped(model, picture, prompt, name, *rest):
            if name == "pti":
                raise KeyboardInterrupt
            return result_of(model, picture, prompt, name, *rest)

        patch.setattr(cells, "result_of", stopped)
        code, said = compare_(*args)
        assert code == 130 and "interrupted; what is finished is kept in cells" in said.err
        assert not Path("s.png").exists()
    before = {name: data for name, data in contents(Path("cells")).items() if "png" in name}
    assert len(before) == 1
    del unet_calls[:]
    assert compare_(*args)[0] == 0
    assert len(unet_calls) == 2 + 2 * 3 + 2  # pti alone
    assert before.items() <= contents(Path("cells")).items()
    whole = Path("s.png").read_bytes()
    del unet_calls[:]
    assert compare_(*args)[0] == 0 and not unet_calls
    assert Path("s.png").read_bytes() == whole
    assert compare_("picture.png", "a boat", *args[2:])[0] == 0 and unet_calls


def test_quiet_says_nothing_and_without_a_record_nothing_is_carried(compare_, here):
    args = ["picture.png", PROMPT, "--methods", "pti,diffedit", *FEW, "-o", "s.png", "--quiet"]
    assert compare_(*args) == (0, ("", ""))
    assert compare_(*args, "--no-record", "--cells", "c")[0] == 0
    for path in ("s.png", *Path("c").glob("*.png")):
        with Image.open(path) as image:
            assert not {"cells", "prompt", "settings"} & image.text.keys()


REFUSED = [
    (["picture.png", " ", *ALL], "the prompt is empty"),
    (["notes.txt", PROMPT, *ALL], "notes.txt"),
    (["damaged.png", PROMPT, *ALL], "damaged.png"),
    (["none.png", PROMPT, *ALL], "none.png"),
    (["x.safetensors", PROMPT, *ALL], "name the picture itself"),
    (["picture.png", PROMPT, "--methods", "pti,magic"], "there is no method 'magic'"),
    (["picture.png", PROMPT, *ALL, "--eta", "2"], "eta must be"),
    (["picture.png", PROMPT, *ALL, "--low-pass", "2"], "low_pass would change nothing by auto"),
    (["picture.png", PROMPT, *ALL, "--encode-ratio", "0.1"], "leaves none of the 3 steps"),
    (["picture.png", PROMPT, *ALL, "--focus", "cat"], '"cat" is not in the prompt'),
    (["picture.png", PROMPT, *ALL, "--mask", "other.png"], "the mask is 32 × 48 pixels"),
    (["picture.png", PROMPT, *ALL, "--mask", "black.png"], "black"),
    (["picture.png", PROMPT, *ALL, "--model", "nowhere"], "nowhere"),
    (["picture.png", PROMPT, *ALL, "--cells", "notes.txt"], "notes.txt"),
    (["picture.png", PROMPT, *ALL, "--reuse-tuning"], "--reuse-tuning"),
    (["picture.png", PROMPT], "--methods"),
]


@pytest.mark.parametrize("words, reason", REFUSED)
def test_what_cannot_be_done_is_refused_in_a_line_and_nothing_is_written(
    here, compare_, words, reason
):
    before = contents(here)
    code, said = compare_(*words, "-o", "old.png", "--quiet")
    assert code == 2 and said.out == "" and reason in said.err and "Traceback" not in said.err
    assert len(said.err.splitlines()) <= 1 and contents(here) == before


def test_the_output_s_name_is_checked(here, compare_):
    for name in ("s.gif", "picture.png", "mask.png", "nowhere/s.png", "folder"):
        code, said = compare_("picture.png", PROMPT, *ALL, "--mask", "mask.png", "-o", name)
        assert code == 2 and name in said.err


@pytest.mark.slow
def test_ctrl_c_ends_it_with_a_line(here):
    command = [sys.executable, ROOT / "tools" / "compare.py", "picture.png", PROMPT]
    command += ["--methods", "pti", "--steps", "500", "-o", "s.png"]
    about = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*map(str, command)], env=about, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    said = b""
    while b"0/1" not in said:
        assert (piece := os.read(process.stderr.fileno(), 4096))
        said += piece
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=60)[1]
    assert process.returncode == 130 and b"interrupted; no part of the output is left" in said
    assert b"Traceback" not in said and not Path("s.png").exists()
