"""The contact sheet: which edits it shows, which rows, and what its figures measure."""

import math
from itertools import islice

import numpy as np
import pytest
import sheet
from evaluation.variants import CAPTION, Variant
from PIL import Image
from world import scenes
from world.edits import EDITS, Edit, edit_of
from world.edits import edits as benchmark

from ptinv.errors import InputError
from ptinv.methods.table import METHODS
from ptinv.storage.pictures import open_picture


def chosen(seed: int) -> list[Edit]:
    return [case.open() for case in sheet.chosen(seed)]


def things(edit: Edit) -> int:
    """The number of things in the picture."""
    return sum(scenes.read(edit.caption).groups.values())


def test_two_edits_of_each_kind_and_several_with_more_than_one_thing():
    for seed in range(3):
        edits = chosen(seed)
        assert [edit.kind for edit in edits] == [kind for kind in EDITS for _ in "12"]
        assert [things(edit) for edit in edits] == [1, 2, 1, 2, 1, 2, 2, 3]
        assert len({edit.picture.tobytes() for edit in edits}) == 8


def test_they_are_the_benchmarks_first_of_the_test_split():
    edits = chosen(0)
    assert edits == chosen(0) != chosen(1)
    listed = [edit_of(*edit) for edit in islice(benchmark("test", 0), 40)]
    for edit, case in zip(edits, sheet.chosen(0), strict=True):
        alike = [other for other in listed if other.kind == edit.kind]
        assert edit == next(other for other in alike if things(other) == things(edit))
        assert edit == listed[case.about["index"]]  # as `evaluate.py edits` counts them


def test_every_method_has_a_row_and_its_variants_follow(monkeypatch):
    rows = sheet.rows_of(METHODS)
    own = [row for row in rows if row not in sheet.VARIANTS]
    assert [row.label for row in own] == list(METHODS)
    assert all(rows.count(variant) == 1 for variant in sheet.VARIANTS)
    assert len({row.label for row in rows}) == len(rows)
    for row, before in zip(rows[1:], rows, strict=False):
        assert row not in sheet.VARIANTS or before.method == row.method
    assert {row.label: row.options == {"source": CAPTION} for row in own} == {
        name: method.needs_source for name, method in METHODS.items()
    }
    monkeypatch.setitem(METHODS, "later", METHODS["npi"])
    *others, later = sheet.rows_of(METHODS)
    assert others == rows and later == Variant("later", "later", {"source": CAPTION})
    with pytest.raises(InputError, match="no method 'magic'"):
        sheet.rows_of(["pti", "magic"])


def test_all_rows_take_the_steps_that_are_asked_for():
    for plain, quick in zip(sheet.rows_of(METHODS), sheet.rows_of(METHODS, 7), strict=True):
        assert quick.options == plain.options | {"steps": 7}


def test_figures_are_means_over_the_edits(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    results = [dict(psnr=p, psnr_outside=o, seconds=s, file="a.png")
               for p, o, s in ((20.0, math.inf, 1.0), (22.0, 30.0, 2.0))]  # fmt: skip
    made = sheet.of_row(results, tmp_path)
    assert made.figures == [21.0, math.inf, 1.5] and len(made.pictures) == 2


def test_the_words_that_stand_out_are_the_new_ones():
    said = {edit.target: sheet.emphasised(edit) for edit in chosen(0)}
    assert said["a red car in a room"] == {"red"}
    assert said["a blue tree by the sea"] == {"tree"}
    assert said["a red house and a pink dog by the sea"] == {"by", "sea"}
    assert said["two orange cars in a room"] == {"cars"}


@pytest.mark.slow
def test_the_command_writes_a_sheet_and_prints_its_figures(small_folder, tmp_path, capsys):
    out, folder = tmp_path / "sheet.webp", tmp_path / "made"
    arguments = [str(out), "--model", str(small_folder), "--work", str(folder), "--steps", "2"]
    assert sheet.main([*arguments, "--methods", "diffedit,sdedit"]) == 0
    rows = capsys.readouterr().out.splitlines()
    labels = ["diffedit", "diffedit with the source text", "sdedit"]
    assert [row.split(" | ")[0] for row in rows[4:]] == [f"| {label}" for label in labels]
    assert len(list(folder.glob("*.png"))) == 8 * (2 + len(labels))
    with Image.open(out) as page:
        assert page.width > 8 * 128 and 5 * 128 < page.height < 6 * 128 + 100
    whole = open_picture(out)
    lines = (folder / "items-0.jsonl").read_text()
    assert sheet.main([*arguments, "--methods", "diffedit,sdedit"]) == 0  # from the folder alone
    assert (folder / "items-0.jsonl").read_text() == lines
    assert open_picture(out).tobytes() == whole.tobytes()
    assert capsys.readouterr().out.splitlines() == rows
    next(folder.glob("*.png")).unlink()
    assert sheet.main([*arguments, "--methods", "diffedit,sdedit"]) == 0  # the missing one alone
    added = (folder / "items-0.jsonl").read_text().removeprefix(lines)
    assert len(added.splitlines()) == 1 and open_picture(out).tobytes() == whole.tobytes()


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
