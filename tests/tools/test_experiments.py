"""The paper's tables and figures and PIE-Bench, as commands on small data and few steps."""

import csv
import json
import sys
from dataclasses import replace

import evaluate
import numpy as np
import pytest
import torch
from evaluation import figures, paper, pie, published, tables
from evaluation.networks import Networks
from PIL import Image

import ptinv
from ptinv.core.pictures import resize
from ptinv.metrics import psnr


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    rows = {name: [quick(row) for row in table] for name, table in paper.TABLES.items()}
    monkeypatch.setattr(paper, "TABLES", rows)
    monkeypatch.setattr(paper, "FIG3", [quick(row) for row in paper.FIG3])
    for part in (figures.CURVES, figures.SHEETS):
        for name, figure in part.items():
            short = {curve: [few(row) for row in rows] for curve, rows in figure.rows.items()}
            monkeypatch.setitem(part, name, figure._replace(rows=short))


def quick(row):
    """A row of three steps."""
    if row.options["method"] == "vae":
        return row
    return replace(row, options=row.options | {"steps": 3})


def few(row: str) -> str:
    return row + ("," if ":" in row else ":") + "steps=3"


@pytest.fixture
def run(small_folder):
    """Runs a command of evaluate.py."""
    own = "--model", small_folder, "--device", "cpu"
    return lambda *words: evaluate.main([str(word) for word in (*words, *own)])


def table(path):
    with open(path / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines_in(path):
    return [json.loads(line) for line in (path / "items-0.jsonl").read_text().splitlines()]


def results_in(path):
    return [line["result"] for line in lines_in(path)]


def test_table_2_is_the_mean_psnr_of_reconstructions_beside_the_papers(run, tmp_path, capsys):
    assert run("table2", "--count", 2, "--out", tmp_path) == 0
    printed, rows = capsys.readouterr().out, table(tmp_path)
    assert [row["row"] for row in rows] == [row.label for row in paper.TABLES["table2"]]
    assert {row["row"]: row["paper"] for row in rows if row["paper"]} == {
        "DDIM, ω=0 up, 7.5 down": "13.64", "NTI, N=5, β=0.01": "24.45", "PTI, N=5, β=0.01": "25.71"
    }  # fmt: skip
    results = results_in(tmp_path)
    for row in rows:
        own = [result["psnr"] for result in results if result["row"] == row["row"]]
        assert len(own) == int(row["pictures"]) == 2
        assert float(row["psnr"]) == pytest.approx(np.mean(own))
        assert f"| {row['row']} | {np.mean(own):.2f}" in printed
    best = max(float(row["psnr"]) for row in rows)
    assert float(rows[0]["psnr"]) >= best - 0.5  # what the VAE loses, all lose
    assert "2 pictures" in printed and "25.71" in printed


PICTURE, CAPTION = Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 20).convert("RGB"), "a dog"


def test_a_row_s_figure_is_that_of_ptinv_reconstruct(small_model):
    for row in map(quick, paper.TABLES["table3"][:2]):
        result, _ = paper.reconstructed(small_model, PICTURE, CAPTION, row, {})
        plain = ptinv.reconstruct(small_model, PICTURE, CAPTION, **row.options)
        assert result.picture.tobytes() == plain.tobytes()
        found = paper.measured(result, PICTURE)
        wide = small_model.picture_size(PICTURE.size)
        assert found["psnr"] == psnr(result.decoded, resize(PICTURE, wide))
        assert found["loss"] > 0


@pytest.mark.parametrize("name, inversions", [("table1", 5), ("table2", 2)])
def test_rows_that_start_alike_share_an_inversion_and_come_out_as_on_their_own(
    name, inversions, small_model, unet_calls
):
    rows, starts = paper.TABLES[name], {}
    together = [paper.reconstructed(small_model, PICTURE, CAPTION, row, starts) for row in rows]
    calls = len(unet_calls)
    assert len(starts) == inversions
    for row, (result, cost) in zip(rows, together, strict=True):
        alone, own = paper.reconstructed(small_model, PICTURE, CAPTION, row, {})
        assert result.decoded.tobytes() == alone.decoded.tobytes(), row.label
        assert cost[1:] == own[1:], row.label  # the UNet's rows
    assert calls < len(unet_calls) - calls


def test_table_3_has_both_methods_at_every_n_and_rate_and_a_plot_of_losses(
    run, tmp_path, monkeypatch
):
    pytest.importorskip("matplotlib")
    short = [row for row in paper.TABLES["table3"] if row.options["inner_steps"] < 3]
    assert len(paper.TABLES["table3"]) == 2 * 5 * len(paper.BETAS)
    monkeypatch.setitem(paper.TABLES, "table3", short)
    assert run("table3", "--count", 1, "--out", tmp_path) == 0
    assert {row["row"] for row in table(tmp_path)} == {row.label for row in short}
    assert all(float(row["loss"]) > 0 for row in table(tmp_path))
    for name in ("figure.png", "losses.png"):
        with Image.open(tmp_path / name) as plot:
            assert plot.size == (880, 660)


def test_without_matplotlib_the_table_is_whole_and_one_sentence_says_what_to_install(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    short = [row for row in paper.TABLES["table3"] if row.options["inner_steps"] == 1]
    monkeypatch.setitem(paper.TABLES, "table3", short)
    assert run("table3", "--count", 1, "--out", tmp_path) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "evaluate.py" in line]
    assert said == ["evaluate.py: plots need an extra: pip install -e '.[plots]'"]
    assert len(table(tmp_path)) == len(short)
    assert not list(tmp_path.glob("*.png"))


def test_table_1_is_every_pair_of_both_scales_and_a_curve_for_each_on_the_way_up(run, tmp_path):
    pytest.importorskip("matplotlib")
    assert run("table1", "--count", 1, "--out", tmp_path) == 0
    pairs = {f"DDIM, ω={up:g} up, {down:g} down" for up in paper.SCALES for down in paper.SCALES}
    assert {row["row"] for row in table(tmp_path)} == pairs
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert not (tmp_path / "losses.png").exists()  # nothing is tuned
    rows = paper.TABLES["table1"]
    found = {row.label: [tables.Item(0, "scene", {"psnr": i})] for i, row in enumerate(rows)}
    second = paper.curves(rows, found, "psnr")[1]
    assert (second.label, second.x, second.y) == ("ω=1 up", [*paper.SCALES], [5, 6, 7, 8, 9])


def test_tables_are_made_of_coco_s_pictures_with_their_captions(run, tmp_path):
    Image.new("RGB", (40, 48), "green").save(tmp_path / "1.png")
    notes = {"images": [{"id": 1, "file_name": "1.png"}],
             "annotations": [{"id": 1, "image_id": 1, "caption": "a green wall"}]}  # fmt: skip
    (tmp_path / "captions.json").write_text(json.dumps(notes))
    where = "--data", "coco", "--images", tmp_path, "--annotations", tmp_path / "captions.json"
    assert run("table2", *where, "--out", tmp_path / "out") == 0
    assert {line["settings"]["caption"] for line in lines_in(tmp_path / "out")} == {"a green wall"}


def test_data_that_is_not_named_whole_is_a_sentence(run, tmp_path, capsys):
    assert run("table2", "--data", "coco", "--out", tmp_path) == 2
    assert "coco needs --images DIR and --annotations FILE" in capsys.readouterr().err


def test_fig_3_shows_the_reconstructions_below_their_pictures(run, tmp_path):
    assert run("fig3", "--count", 2, "--out", tmp_path) == 0
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.height > 128 * (1 + len(paper.FIG3))


@pytest.mark.parametrize("name", [pytest.param("fig5", marks=pytest.mark.slow), "fig7"])
def test_sheets_show_every_row_s_edits(name, run, tmp_path):
    assert run(name, "--count", 1, "--out", tmp_path) == 0
    rows = figures.SHEETS[name].labels
    edits = 1 if name == "fig7" else 4
    results = results_in(tmp_path)
    assert len({result["file"] for result in results}) == len(results) == edits * len(rows)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.height > 128 * (2 + len(rows))


@pytest.mark.parametrize("name, points", [("fig4", 2 + 2 + 2 + 1), ("fig6", 2 + 2 + 2)])
def test_a_curve_s_points_are_what_the_judge_saw(name, points, run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    figure = figures.CURVES[name]
    few_rows = {curve: rows[:2] for curve, rows in figure.rows.items()}
    monkeypatch.setitem(figures.CURVES, name, figure._replace(rows=few_rows))
    assert run(name, "--count", 1, "--out", tmp_path) == 0
    whole = {row["row"]: row for row in table(tmp_path) if row["kind"] == "all"}
    assert len(whole) == points
    results = results_in(tmp_path)
    for label, row in whole.items():
        own = [100 * result["success"] for result in results if result["row"] == label]
        assert float(row["success_mean"]) == pytest.approx(np.mean(own))
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_figures_that_will_not_be_measured_are_refused_before_an_edit_is_made(
    run, pie_folder, tmp_path, capsys
):
    means = tmp_path / "means.pt"
    torch.save({"classwise": {7: {"mean": torch.zeros(2048)}}}, means)
    pictures = "--data", "pie", "--images", pie_folder, "--count", 1
    networks = "--lpips", means, "--inception", means  # any files: none is opened
    out = tmp_path / "out"
    for words, said in (
        (pictures, "have no judge"),
        (("--class-means", means), "name --lpips, --inception"),
        (("--class-means", means, *networks), "only imagenet's have"),
    ):
        assert run("fig4", *words, "--out", out) == 2
        assert said in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.fixture
def pie_folder(tmp_path):
    (tmp_path / "annotation_images").mkdir()
    side = published.SIDE
    levels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(levels).save(tmp_path / "annotation_images" / "0.png")
    one = {"image_path": "0.png", "original_prompt": "a [red] dog", "editing_type_id": "1",
           "editing_prompt": "a [blue] dog", "blended_word": "dog dog",
           "mask": [side * 100, side * 50]}  # fmt: skip
    whole = one | {"blended_word": "", "mask": [0, side * side]}
    (tmp_path / "mapping_file.json").write_text(json.dumps({"0": one, "1": whole}))
    return tmp_path


def test_pie_bench_measures_the_background_on_pictures_times_1_minus_the_mask(pie_folder):
    first, second = (case.open() for case in published.pie(pie_folder, None, None))
    made = Image.new("RGB", first.picture.size, (7, 7, 7))
    found = pie.besides(Networks(), made, first)
    outside = np.asarray(first.mask) == 0
    x, y = (np.asarray(p, np.float64) * outside[..., None] / 255 for p in (made, first.picture))
    mse = ((x - y) ** 2).mean()
    assert found["pie_mse"] == pytest.approx(mse)
    assert found["pie_psnr"] == pytest.approx(-10 * np.log10(mse))
    assert pie.besides(Networks(), made, second) == {}  # the mask covers everything


def test_pie_bench_s_rows_have_its_own_settings(pie_folder):
    first, second = published.pie(pie_folder, None, None)
    told = {v.label: v.options for v in pie.variants(first)}
    for label in pie.ENGINES:
        assert told[label]["source"] == "a red dog" and told[label]["seed"] == 1234
        assert told[label]["reweight"] == {"dog": 2.0} and told[label]["self_cells"] == 32
    assert told["PTI"] == {"seed": 1234}
    without = {v.label: v.options for v in pie.variants(second)}
    assert without["Direct + P2P"]["mask"] is None


@pytest.mark.slow
def test_pie_bench_runs_and_prints_the_published_rows(run, pie_folder, monkeypatch, capsys):
    short = {n: replace(m, defaults=m.defaults | {"steps": 2}) for n, m in ptinv.METHODS.items()}
    for name in (*pie.ENGINES.values(), *pie.ALONE.values()):
        monkeypatch.setitem(ptinv.METHODS, name, short[name])
    monkeypatch.setattr(pie, "ALONE", {"PTI": "pti"})
    out = pie_folder / "out"
    assert run("pie", "--images", pie_folder, "--count", 1, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "| Direct + P2P, published | 11.65 | 27.22 |" in printed
    assert "transformers" in printed and "not measured" in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("| PTI |")]
    assert len(row.split("|")) == 2 + 1 + len(pie.COLUMNS)
    written = {line["row"]: line for line in table(out) if line["kind"] == "all"}
    assert [*written] == [*pie.ENGINES, *pie.ALONE]
    assert f"{float(written['PTI']['pie_psnr_mean']):.2f}" in row
