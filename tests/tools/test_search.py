"""The search finds a planted optimum, on the tune split alone, and goes on where it was."""

import evaluate
import pytest
from evaluation import search
from evaluation.variants import parse

import ptinv


def planted(goal):
    """A score that is best where the options are the goal's, the nearer the better."""
    asked = []

    def score(row, whole):
        asked.append((row, whole))
        settings = parse(row).settings("a red dog")
        off = sum(settings[name] != value for name, value in goal.items())
        return 1 / (1 + off), 20.0

    return score, asked


@pytest.mark.parametrize(
    "method, goal",
    [
        ("pti", dict(guidance=4, encode_ratio=0.65, eta=1, lr=0.03, mask_threshold=0.5)),
        ("ddim-global", dict(guidance=3, steps=20)),
        ("npi-prox", dict(proximal="code-l0", proximal_quantile=0.85, self_replace=0.2)),
        ("ilvr", dict(low_pass=8, sampler="ddim")),
        ("diffedit", dict(mask=None, encode_ratio=0.5)),
    ],
)
def test_the_search_finds_a_planted_optimum(method, goal):
    score, asked = planted(goal)
    found = search.best_of(method, score)
    settings = parse(found.row).settings("a red dog")
    assert {name: settings[name] for name in goal} == goal
    assert found.best == (1.0, 20.0) > found.default
    assert found.rows == len({row for row, _ in asked}) < 60
    for row, whole in asked:
        assert whole or row != asked[0][0]


def test_a_default_that_nothing_beats_stays_as_it_is():
    found = search.best_of("diffedit", lambda row, whole: (0.5, 20.0))
    assert (found.row, found.best) == ("diffedit", found.default)


def test_fidelity_decides_between_settings_that_are_as_often_right():
    near = search.best_of(
        "ddim-global", lambda row, whole: (0.5, 21.0 if "guidance=2" in row else 20)
    )
    assert near.row == "ddim-global:guidance=2"


def test_methods_that_need_a_text_are_told_the_true_one_and_others_if_asked():
    assert search.best_of("direct", lambda *_: (0, 0)).row == "direct:source=@caption"
    assert search.best_of("pti", lambda *_: (0, 0), told=True).row == "pti:source=@caption"


def test_values_that_would_change_nothing_are_not_tried():
    assert search.values_of("ddim-global", {}, "mask_threshold") == []  # it has no mask
    assert search.values_of("diffedit", {}, "eta") == []
    assert {v["mask_threshold"] for v in search.values_of("pti", {}, "mask_threshold")} == {
        0.2, 0.35, 0.5
    }  # fmt: skip


def test_the_command_writes_rows_that_edits_can_be_measured_by(
    small_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(search, "TRIED", {"steps": (2, 3), "guidance": (2, 3)})
    steps = {"steps": 2} | ptinv.METHODS["ddim-global"].defaults
    method = ptinv.METHODS["ddim-global"]
    monkeypatch.setitem(ptinv.METHODS, "ddim-global", type(method)(method.title, defaults=steps))
    own = "--model", str(small_folder), "--device", "cpu"
    command = ["search", "--method", "ddim-global", "--count", "1", "--out", str(tmp_path), *own]
    assert evaluate.main(command) == 0
    assert "| ddim-global |" in capsys.readouterr().out
    lines = (tmp_path / "items-0.jsonl").read_text()
    assert "test, seed" not in lines and "tune, seed" in lines
    assert evaluate.main(command) == 0  # nothing is made again
    assert (tmp_path / "items-0.jsonl").read_text() == lines
    best = search.read(tmp_path / "best.json")["ddim-global"]
    out = "--out", str(tmp_path / "edits"), "--kinds", "colour", "--count", "1", "--than", "nothing"
    rows = "--row", "nothing", "--rows-from", str(tmp_path / "best.json")
    assert evaluate.main(["edits", *out, *rows, *own]) == 0
    assert f"| {best} |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["search", "--method", "magic"], "there is no method magic"),
        (["edits", "--rows-from", "none.json"], "none.json holds no rows"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(words) == 2
    assert said in capsys.readouterr().err


def test_the_test_split_cannot_be_asked_for(capsys):
    assert evaluate.main(["search", "--split", "test"]) == 2
