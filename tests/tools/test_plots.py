"""The trade-off plot: which rows a curve joins, in which order, and what is refused at once."""

import sys

import evaluate
import pytest
import torch
from evaluation import figures, networks, plots, tables
from PIL import Image

import ptinv


def row(preservation: float, success: float) -> list[tables.Item]:
    return [tables.Item(0, "colour", {"preservation": preservation, "success": success})]


def test_a_curve_joins_the_rows_that_differ_in_strength_only_from_the_weakest_on():
    rows = {
        "pti": row(0.2, 0.8),  # η is 0.9 by default
        "pti:eta=1": row(0, 1),
        "pti:eta=0.5": row(1, 0),
        "pti:eta=0.7,mask=none": row(0.3, 0.3),
        "pti, told": row(0.4, 0.4),
        "nothing": row(1, 0),
    }
    whole, unmasked, told, nothing = figures.tradeoff(rows)
    assert whole.label == "pti" and list(whole.notes) == ["eta=0.5", "", "eta=1"]
    assert (list(whole.x), list(whole.y)) == ([100, 20, 0], [0, 80, 100])
    assert [curve.label for curve in (unmasked, told)] == ["pti:eta=0.7,mask=none", "pti, told"]
    assert list(told.x) == [40] and not told.notes
    assert (nothing.label, list(nothing.x)) == ("nothing", [100])


def test_a_curve_s_name_is_what_its_rows_share_however_it_is_written():
    rows = {
        "ddim-edit:mask_dilate=1,guidance=3": row(0.5, 0.5),
        "ddim-edit:guidance=2,mask_dilate=1": row(0.7, 0.3),
    }
    (curve,) = figures.tradeoff(rows)
    assert curve.label == "ddim-edit:mask_dilate=1"
    assert list(curve.notes) == ["guidance=2", "guidance=3"]


def test_rows_that_nobody_judged_have_no_place_on_it():
    with pytest.raises(ptinv.InputError, match="'preservation' was not measured"):
        figures.tradeoff({"pti": [tables.Item(0, "colour", {"psnr": 20.0})]})


def costing(right: bool, forward: int, backward: int) -> list[tables.Item]:
    result = {"right": right, "forward": forward, "backward": backward}
    return [tables.Item(0, "colour", result)]


def test_the_frontier_is_what_is_right_by_the_rows_it_takes_cheapest_first():
    rows = {
        "auto:steps=20": costing(True, 100, 0),
        "auto:steps=10": costing(False, 50, 0),
        "pti": costing(True, 240, 40),
        "nothing": costing(False, 0, 0),
    }
    auto, pti, nothing = figures.frontier(rows)
    assert (list(auto.x), list(auto.y)) == ([50, 100], [0, 100])
    assert list(auto.notes) == ["steps=10", "steps=20"]
    assert (pti.label, list(pti.x), pti.notes) == ("pti", [280], ())
    assert (nothing.label, list(nothing.x)) == ("nothing", [0])


def test_edits_are_drawn_where_the_command_says(small_folder, tmp_path):
    pytest.importorskip("matplotlib")
    rows = [word for w in (2, 3) for word in ("--row", f"ddim-global:steps=3,guidance={w}")]
    plot, out = tmp_path / "plot.png", tmp_path / "out"
    words = ["edits", "--kinds", "colour", "--count", "2", *rows, "--row", "nothing"]
    words += ["--than", "nothing", "--plot", plot, "--out", out]
    words += ["--model", small_folder, "--device", "cpu"]
    assert evaluate.main([str(word) for word in words]) == 0
    with Image.open(plot) as drawn:
        assert drawn.size == (880, 660)


@pytest.mark.parametrize("name, said", [("plot.tiff", "name it plot.png"), ("a.png", "[plots]")])
def test_what_cannot_be_drawn_is_said_before_anything_is_made(
    name, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plot, out = tmp_path / name, tmp_path / "out"
    assert evaluate.main(["edits", "--plot", str(plot), "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_drawing_has_every_curve_s_points(tmp_path):
    pytest.importorskip("matplotlib")

    def inked(*curves: plots.Curve) -> int:
        plots.draw(tmp_path / "plot.png", curves, "x", "y")
        with Image.open(tmp_path / "plot.png") as drawn:
            counts = drawn.convert("L").histogram()
        return sum(counts[:250])

    one = plots.Curve("one", [0, 1, 2], [0, 1, 4], ["a", "b", "c"])
    two = plots.Curve("two", [0, 1, 2], [4, 1, 0])
    assert inked(one) < inked(one, two)


def test_a_point_of_classes_is_the_mean_lpips_and_the_distance_of_their_means():
    def edit(lpips: float, target: int, *features: float) -> tables.Item:
        kept = networks.packed(torch.tensor(features))
        figures_ = {"lpips": lpips, "features": kept, "classes": [0, target]}
        return tables.Item(0, "class", figures_)

    edits = [edit(0.1, 1, 1.0, 0.0), edit(0.2, 1, 3.0, 2.0), edit(0.6, 2, 5.0, 5.0)]
    means = {1: torch.tensor([2.0, 0.0]), 2: torch.tensor([5.0, 8.0])}
    lpips, csfid = figures.point(edits, means)
    assert lpips == pytest.approx(0.3)
    assert csfid == pytest.approx((1 + 9) / 2)  # (2, 1) is 1 from (2, 0), and (5, 5) 3 from (5, 8)
