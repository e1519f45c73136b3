"""The grid of settings: every combination once, in its place, with the least work."""

import json
from pathlib import Path

import pytest
import sweep
from commands import contents, pixels
from PIL import Image
from small import PROMPT

import ptinv

FEW = ["--steps", "3", "--method", "pti"]  # two steps up, two down
UP, TUNED, DOWN = 2, 2 * 3, 2  # calls of the UNet; a step's tuning takes three


@pytest.fixture
def sweep_(here, capsys):
    """Runs the program on the small model and picture; returns its code and what it printed."""

    def run(*words, picture="picture.png", prompt=PROMPT):
        output = [] if "-o" in words else ["-o", "g.png"]
        code = sweep.main([picture, prompt, *map(str, words), *output])
        return code, capsys.readouterr()

    return run


def carried(path="g.png"):
    with Image.open(path) as page:
        return json.loads(page.text["cells"])


def swept(*words):
    """What is swept, as (setting, word, values), by some words of the command line."""
    return [(*knob,) for knob in sweep.knobs(sweep.parser().parse_args(
        ["p.png", "a car", "-o", "g.png", *words]))[1]]  # fmt: skip


def test_a_sweep_of_eta_makes_one_inversion_and_one_tuning(sweep_, unet_calls):
    assert sweep_("--eta", "0,0.3,0.6,0.9", *FEW)[0] == 0
    assert len(unet_calls) == UP + TUNED + 4 * DOWN


def test_a_sweep_of_guidance_makes_one_inversion_and_a_tuning_each(sweep_, unet_calls):
    assert sweep_("--guidance", "3,5", "--eta", "0.3,0.9", *FEW)[0] == 0
    assert len(unet_calls) == UP + 2 * TUNED + 4 * DOWN


@pytest.mark.slow
def test_a_sweep_by_auto_reads_the_picture_once(sweep_, unet_calls):
    few = "--steps", "3", "--mask-draws", "1"
    sweep_("--eta", "0.3,0.6", *few)
    two, (cell, _) = len(unet_calls), carried()
    del unet_calls[:]
    sweep_("--eta", "0.3,0.6,0.9,1", *few)
    masked = cell["settings"]["mask"] is not None
    assert len(unet_calls) == two + 2 * (3 + masked)  # a mask of one noise is one call


def test_each_cell_is_the_edit_of_its_settings_and_the_page_carries_them(
    sweep_, small_model, picture
):
    code, said = sweep_("--eta", "0.3,0.9", "--guidance", "3,5", *FEW, "--cells", "cells")
    assert code == 0 and said.out == "4 edits are on g.png, 0 failed\n"
    cells = carried()
    at = [(cell["settings"]["eta"], cell["settings"]["guidance"]) for cell in cells]
    assert at == [(0.3, 3.0), (0.9, 3.0), (0.3, 5.0), (0.9, 5.0)]
    for cell, (eta, guidance) in zip(cells, at, strict=True):
        made = ptinv.result(
            small_model, picture, PROMPT, "pti", steps=3, eta=eta, guidance=guidance
        )
        (kept,) = Path("cells").glob(f"eta={eta:g}-guidance={guidance:g}-*.png")
        assert pixels(kept)[1] == made.picture.tobytes()
        assert cell["prompt"] == PROMPT and cell["method"] == "pti" and cell["model_hash"]
        everything = vars(made.request.settings).keys() - {"seed"}
        assert cell["settings"].keys() == everything and cell["seed"] == "0"


def test_the_first_setting_goes_across_and_the_second_down(sweep_, monkeypatch):
    found = []
    monkeypatch.setattr(sweep.cells, "draw_sheet", lambda rows, footer: found.append((rows, footer))
                        or Image.new("RGB", (8, 8)))  # fmt: skip
    sweep_("--guidance", "3,5", "--eta", "0.1,0.5,0.9", *FEW)
    ((above, *rows), footer) = found.pop()
    assert len(above.tiles) == 1 and above.name == "the picture"
    assert [row.name for row in rows] == ["eta = 0.1", "eta = 0.5", "eta = 0.9"]
    assert [tile.label for tile in rows[0].tiles] == ["guidance = 3", "guidance = 5"]
    assert {tile.label for row in rows[1:] for tile in row.tiles} == {""}
    assert PROMPT in footer and "steps = 3" in footer and "method = pti" in footer
    sweep_("--eta", "0.1,0.9", *FEW)
    (((row,), _)) = found.pop()
    assert [tile.label for tile in row.tiles] == ["the picture", "eta = 0.1", "eta = 0.9"]


def test_a_third_setting_makes_pages(sweep_, here):
    code, _ = sweep_("--eta", "0,1", "--guidance", "1,5", "--seed", "0,1", *FEW)
    assert code == 0 and not Path("g.png").exists()
    for i in (0, 1):
        cells = carried(f"g-{i + 1}.png")
        assert len(cells) == 4 and {cell["seed"] for cell in cells} == {str(i)}


def test_any_setting_can_have_several_values():
    assert swept("--steps", "5,10", "--init-embedding", "null,target") == [
        ("steps", None, [5, 10]),
        ("init_embedding", None, ["null", "target"]),
    ]
    assert swept("--source", "a cat, asleep", "--source", "a dog") == [
        ("source", None, ["a cat, asleep", "a dog"])
    ]
    assert swept("--method", "pti, auto", "--fast") == [("method", None, ["pti", "auto", "fast"])]
    assert swept("--reweight", "car=1,2,4", "--reweight", "a=2") == [
        ("reweight", "car", [1.0, 2.0, 4.0])
    ]
    assert swept("--cross-replace", "0.2,0.4:0.6", "--eta", "0.5,0.5") == [
        ("cross_replace", "default", [0.2, (0.4, 0.6)])
    ]
    assert swept("--eta", "0.1", "--eta", "0.2", "--no-mask") == [("eta", None, [0.1, 0.2])]


def test_words_are_weighed_each_with_the_others(sweep_):
    words = "--reweight", "car=1,2", "--reweight", "grass=3", *FEW
    assert sweep_(*words)[0] == 0
    assert [cell["settings"]["reweight"] for cell in carried()] == [
        {"car": 1.0, "grass": 3.0},
        {"car": 2.0, "grass": 3.0},
    ]


def test_a_method_goes_without_what_it_does_not_use_and_is_made_once(sweep_, unet_calls):
    words = "--method", "ddim-global,pti", "--eta", "0.3,0.9", "--steps", "3"
    assert sweep_(*words)[0] == 0
    assert len(unet_calls) == UP + DOWN + TUNED + 2 * DOWN
    assert [cell["method"] for cell in carried()] == ["ddim-global", "pti"] * 2


def test_a_combination_that_fails_is_a_cell_that_says_why(sweep_, capsys):
    code, said = sweep_("--method", "pti,sdedit", "--sampler", "ddim,ancestral", "--steps", "3")
    assert code == 2 and said.out == "3 edits are on g.png, 1 failed\n"
    assert "method=pti sampler=ancestral: sampler must be ddim here" in said.err
    assert [bool(cell.get("error")) for cell in carried()] == [False, False, True, False]


def test_masks_are_swept_by_their_files(sweep_, here, small_model, picture):
    Image.new("L", picture.size, "white").save("white.png")
    words = "--mask", "mask.png", "--mask", "white.png", *FEW, "--cells", "cells"
    assert sweep_(*words)[0] == 0
    made = ptinv.edit(small_model, picture, PROMPT, "pti", steps=3, mask="mask.png")
    (kept,) = Path("cells").glob("mask=mask.png-*.png")
    assert pixels(kept)[1] == made.tobytes()


def test_a_sweep_goes_on_and_makes_what_is_new(sweep_, here, unet_calls):
    assert sweep_("--eta", "0.3,0.6", *FEW, "--cells", "cells")[0] == 0
    before = contents(Path("cells"))
    del unet_calls[:]
    assert sweep_("--eta", "0.3,0.6,0.9", *FEW, "--cells", "cells")[0] == 0
    assert len(unet_calls) == UP + TUNED + DOWN
    after = contents(Path("cells"))
    assert {n: d for n, d in before.items() if "png" in n}.items() <= after.items()
    next(Path("cells").glob("eta=0.6-*.png")).unlink()
    del unet_calls[:]
    assert sweep_("--eta", "0.3,0.6,0.9", *FEW, "--cells", "cells")[0] == 0
    assert len(unet_calls) == UP + TUNED + DOWN


def test_a_cell_has_a_file_whatever_it_is_called(sweep_, here):
    sources = "\U00020000" * 300, "a/b: c?"  # four bytes a letter
    words = [word for text in sources for word in ("--source", text)]
    assert sweep_(*words, "--method", "ddim-global", "--steps", "2", "--cells", "c")[0] == 0
    assert len([*Path("c").glob("*.png")]) == 2


REFUSED = [
    ([], "give a setting several values"),
    (["--eta", "0.3"], "give a setting several values"),
    (["--eta", "0.3,2"], "eta must be a number from 0 to 1, not 2.0"),
    (["--eta", "0.3,x"], "'0.3,x' is not numbers"),
    (["--eta", "0.3,,1"], "is not numbers"),
    (["--align", "auto,both"], "align must be"),
    (["--method", "pti,magic"], "there is no method 'magic'"),
    (["--method", "ddim-global", "--eta", "0.3,0.6"], "eta would change nothing by ddim-global"),
    (["--eta", "0,1", "--steps", "2,3", "--seed", "0,1", "--lr", "0,1"], "three settings can"),
    (["--eta", ",".join(str(i / 20) for i in range(14))], "eta has 14 values, and 13 go across"),
    (["--eta", "0,1", "--focus", "cat"], '"cat" is not in the prompt'),
    (["--eta", "0,1", "--mask", "mask.png", "--no-mask"], "not allowed with"),
    (["--eta", "0,1", "--model", "nowhere"], "nowhere"),
    (["--eta", "0,1", "--model", ""], "--model is empty"),
    (["--eta", "0,1", "-o", "g.gif"], "g.gif"),
    (["--eta", "0,1", "--mask", "mask.png", "-o", "mask.png"], "would overwrite"),
    (["--mask", "mask.png", "--mask", "other.png", "-o", "other.png"], "would overwrite"),
]


@pytest.mark.parametrize("words, reason", REFUSED)
def test_what_cannot_be_swept_is_refused_in_a_line_and_nothing_is_written(
    sweep_, here, words, reason
):
    before = contents(here)
    code, said = sweep_(*words, "--quiet")
    assert code == 2 and said.out == "" and reason in said.err and "Traceback" not in said.err
    assert len(said.err.splitlines()) == 1 and contents(here) == before
