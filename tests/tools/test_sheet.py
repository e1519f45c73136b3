"""The contact sheet: which edits it shows, which rows, and what its figures measure."""

import math
from itertools import islice

import numpy as np
import pytest
import sheet
from PIL import Image
from world import scenes
from world.cells import Cell, Way
from world.edits import EDITS, Edit, edit_of
from world.edits import edits as benchmark

from ptinv.errors import InputError
from ptinv.methods.table import METHODS
from ptinv.storage.pictures import open_picture


def things(edit: Edit) -> int:
    """The number of things in the picture."""
    return sum(scenes.read(edit.caption).groups.values())


def test_two_edits_of_each_kind_and_several_with_more_than_one_thing():
    for seed in range(3):
        edits = sheet.chosen(seed)
        assert [edit.kind for edit in edits] == [kind for kind in EDITS for _ in "12"]
        assert [things(edit) for edit in edits] == [1, 2, 1, 2, 1, 2, 2, 3]
        assert len({edit.picture.tobytes() for edit in edits}) == 8


def test_they_are_the_benchmarks_first_of_the_test_split():
    edits = sheet.chosen(0)
    assert edits == sheet.chosen(0) != sheet.chosen(1)
    listed = [edit_of(*edit) for edit in islice(benchmark("test", 0), 40)]
    for edit in edits:
        alike = [other for other in listed if other.kind == edit.kind]
        assert edit == next(other for other in alike if things(other) == things(edit))


def test_every_method_has_a_row_and_its_variants_follow(monkeypatch):
    ways = sheet.ways_of(METHODS)
    own = [way for way in ways if way not in sheet.VARIANTS]
    assert [way.label for way in own] == list(METHODS)
    assert all(ways.count(variant) == 1 for variant in sheet.VARIANTS)
    assert len({way.label for way in ways}) == len(ways)
    for way, before in zip(ways[1:], ways, strict=False):
        assert way not in sheet.VARIANTS or before.method == way.method
    assert {way.label: way.told for way in own} == {
        name: method.needs_source for name, method in METHODS.items()
    }
    monkeypatch.setitem(METHODS, "later", METHODS["npi"])
    *others, later = sheet.ways_of(METHODS)
    assert others == ways and later == Way("later", "later", told=True)
    with pytest.raises(InputError, match="no method 'magic'"):
        sheet.ways_of(["pti", "magic"])


def test_all_rows_take_the_steps_that_are_asked_for():
    for plain, quick in zip(sheet.ways_of(METHODS), sheet.ways_of(METHODS, 7), strict=True):
        assert quick.options == plain.options | {"steps": 7}


@pytest.mark.parametrize("edit", sheet.chosen(0), ids=lambda edit: edit.target)
def test_figures_are_infinite_exactly_where_nothing_is_amiss(edit):
    inside = np.asarray(edit.mask) == 255
    to_truth, to_input, seconds = sheet.figures([edit], [Cell(edit.truth, 3.0)])
    assert to_truth == to_input == math.inf and seconds == 3.0
    to_truth, to_input, _ = sheet.figures([edit], [Cell(edit.picture, 0.0)])
    assert to_truth < 40 and to_input == math.inf
    pixels = np.array(edit.picture)
    y, x = np.argwhere(~inside)[0]
    pixels[y, x, 0] ^= 16  # one level of one channel of one pixel is off by 16
    amiss = sheet.psnr_outside(Image.fromarray(pixels), edit)
    mse = 16**2 / ((~inside).sum() * 3)
    assert amiss == pytest.approx(10 * math.log10(255**2 / mse))


def test_figures_are_means_over_the_edits():
    edits = sheet.chosen(0)[:2]
    swapped = [Cell(edit.picture, seconds) for edit, seconds in zip(edits, (1.0, 2.0), strict=True)]
    each = [sheet.figures([edit], [cell])[0] for edit, cell in zip(edits, swapped, strict=True)]
    assert sheet.figures(edits, swapped) == [sum(each) / 2, math.inf, 1.5]


def test_the_words_that_stand_out_are_the_new_ones():
    said = {edit.target: sheet.emphasised(edit) for edit in sheet.chosen(0)}
    assert said["a red car in a room"] == {"red"}
    assert said["a blue tree by the sea"] == {"tree"}
    assert said["a red house and a pink dog by the sea"] == {"by", "sea"}
    assert said["two orange cars in a room"] == {"cars"}


@pytest.mark.slow
def test_the_command_writes_a_sheet_and_prints_its_figures(small_folder, tmp_path, capsys):
    out, folder = tmp_path / "sheet.webp", tmp_path / "cells"
    arguments = [str(out), "--model", str(small_folder), "--work", str(folder), "--steps", "2"]
    assert sheet.main([*arguments, "--methods", "diffedit,sdedit"]) == 0
    rows = capsys.readouterr().out.splitlines()
    labels = ["diffedit", "diffedit with the source text", "sdedit"]
    assert [row.split(" | ")[0] for row in rows[4:]] == [f"| {label}" for label in labels]
    assert len(list(folder.iterdir())) == 8 * len(labels)
    with Image.open(out) as page:
        assert page.width > 8 * 128 and 5 * 128 < page.height < 6 * 128 + 100
    whole = open_picture(out)
    assert sheet.main([*arguments, "--methods", "diffedit,sdedit"]) == 0  # from the cells alone
    assert open_picture(out).tobytes() == whole.tobytes()
    assert capsys.readouterr().out.splitlines() == rows


def test_a_sheet_loses_the_quality_that_the_limit_asks_for(tmp_path, monkeypatch):
    g = np.random.default_rng(0)
    page = Image.fromarray(g.integers(0, 256, (200, 200, 3), np.uint8))
    for name in ("a.webp", "a.jpg", "a.png"):
        sheet.save(page, tmp_path / name)
    best = (tmp_path / "a.webp").stat().st_size
    monkeypatch.setattr(sheet, "LIMIT", best * 3 // 4)
    for name in ("b.webp", "b.png"):
        sheet.save(page, tmp_path / name)
    assert (tmp_path / "b.webp").stat().st_size <= best * 3 // 4
    for name in ("a.png", "b.png"):
        assert open_picture(tmp_path / name).tobytes() == page.tobytes()
    open_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "arguments",
    [
        ("sheet.gif",),
        ("missing/sheet.webp",),
        ("sheet.webp", "--methods", "pti,magic"),
        ("sheet.webp", "--seed", "-1"),
        ("sheet.webp", "--steps", "0"),
        ("sheet.webp", "--model", "nowhere"),
        ("sheet.webp", "--work", "taken"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("kept")
    assert sheet.main(list(arguments)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
