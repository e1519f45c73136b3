"""The evaluation's command: what it refuses, and that shared and stopped runs report the same."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import evaluate
import pytest
from evaluation import runner

ROOT = Path(__file__).parents[2]
ROWS = ("pti:steps=3", "ddim-edit:steps=3,guidance=2", "nothing")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["edits", "{folder}"], "write one with python tools/scenes.py"),
        (["edits", "--row", "magic"], "there is no method 'magic'"),
        (["edits", "--row", "pti:etta=1"], "there is no option etta"),
        (["edits", "--row", "pti:eta=2"], "eta must be a number from 0 to 1"),
        (["edits", "--row", "ddim-edit:eta=0.5"], "eta would change nothing"),
        (["edits", "--row", "p2p:source=none"], "source is missing"),
        (["edits", "--row", "nothing:eta=1"], "nothing takes no options"),
        (["edits", "--kinds", "colour,size"], "there is no kind size"),
        (["report", "{folder}"], "there are no results in"),
        (["reconstruction", "{folder}"], "write one with python tools/scenes.py"),
        (["judge", "--model", "{folder}/none"], "there is no checkpoint at"),
    ],
)
def test_what_it_cannot_do_is_a_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([word.format(folder=tmp_path) for word in arguments]) == 2
    output = capsys.readouterr()
    assert said in output.err and len(output.err.splitlines()) == 1
    assert output.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["judge", "--count", "0"], "must be a whole number from 1"),
        (["model", "--inverted", "-1"], "must be a whole number from 1"),
        (["model", "--seed", "-1"], "must be a whole number from 0"),
        (["edits", "--count", "1.5"], "must be a whole number from 1"),
        (["edits", "--split", "train"], "invalid choice"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, said, capsys):
    assert evaluate.main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("line", ['{"image": 1', "[]", '{"image": "a.png"}'])
def test_a_manifest_of_something_else_is_named(line, tmp_path, capsys):
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    assert evaluate.main(["edits", str(tmp_path)]) == 2
    assert "manifest.jsonl is not what scenes.py writes" in capsys.readouterr().err


def command(out: Path, model: Path) -> list[str]:
    rows = [word for row in ROWS for word in ("--row", row)]
    return ["edits", "--count", "2", "--model", str(model), "--out", str(out), *rows,
            "--device", "cpu", "--dtype", "float32", "--than", ROWS[0]]  # fmt: skip


def start(arguments: list[str], rank: int) -> subprocess.Popen:
    about = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, ROOT / "tools" / "evaluate.py", *arguments]
    return subprocess.Popen(words, env=about, stdout=subprocess.PIPE, text=True)


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_report_what_one_does(small_folder, tmp_path, capsys):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert evaluate.main(command(whole, small_folder)) == 0
    printed = capsys.readouterr().out
    first = start(command(shared, small_folder), 1)
    while not runner.results(shared):
        assert first.poll() is None
        time.sleep(0.005)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    made = len(runner.results(shared))
    assert 0 < made < len(ROWS) * 4, "it was killed too late"
    for rank in (1, 0):
        process = start(command(shared, small_folder), rank)
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert bool(out) == (rank == 0)  # the tables come once everything is there
    assert len(list(runner.lines(shared))) == len(ROWS) * 8  # and nothing was made twice
    assert out.splitlines()[:5] == printed.splitlines()[:5]
    for one, two in zip(table(whole), table(shared), strict=True):
        for name in one:
            if not name.startswith("seconds"):
                alike = one[name] == two[name]
                assert alike or float(one[name]) == pytest.approx(float(two[name]), rel=1e-3), name


def test_another_model_and_other_rows_are_made_anew(small_folder, tmp_path, capsys):
    words = ["edits", "--count", "1", "--kinds", "colour", "--out", str(tmp_path)]
    words += ["--device", "cpu", "--model", str(small_folder)]

    def made(*more: str) -> int:
        before = len(list(runner.lines(tmp_path)))
        assert evaluate.main([*words, *more]) == 0
        return len(list(runner.lines(tmp_path))) - before

    row = "ddim-global:steps=2"
    assert made("--row", row) == 1
    assert made("--row", row) == 0
    assert made("--row", row, "--also", "nothing") == 1
    assert made("--row", row + ",guidance=2") == 1
    assert made("--row", "ddim-global:guidance=7.5,steps=2") == 0  # the same, otherwise written
    assert made("--row", row, "--seed", "1") == 1
    assert made("--row", row, "--split", "tune") == 1
    assert made("--row", row, "--dtype", "bfloat16") == 1
    capsys.readouterr()
    assert evaluate.main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n\n| right, % |") == 4
