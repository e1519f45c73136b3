"""The promised versions: read from pyproject.toml, each pair tried, and told in a table."""

import subprocess

import pytest
import try_versions
from try_versions import Row


def test_the_lowest_versions_are_those_of_pyproject():
    lowest = try_versions.lowest()
    assert {"torch", "transformers", "numpy", "pillow"} <= lowest.keys()
    assert all(version.replace(".", "").isdigit() for version in lowest.values())
    assert try_versions.lowest(["torch"]) == {n: v for n, v in lowest.items() if n != "torch"}


def test_a_dependency_without_a_lowest_version_is_noticed():
    about = (try_versions.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = about.partition("dependencies = [")[2].partition("]")[0]
    assert len(try_versions.lowest()) == listed.count('"') // 2


@pytest.fixture
def ran(monkeypatch):
    """The programs that would be run, each of which ends well."""
    words = []

    def run(command, check=False):
        words.append([str(word) for word in command])
        said = '[{"name": "torch", "version": "2.9.1"}]' if "list" in command else "3 passed in 1 s"
        return subprocess.CompletedProcess(command, 0, said, "")

    monkeypatch.setattr(try_versions, "run", run)
    return words


def test_each_pair_is_tried_in_an_environment_of_its_own(ran, capsys):
    assert try_versions.main(["--set", "lowest", "highest", "bare"]) == 0
    told = capsys.readouterr().out
    assert told.count("| 3 passed in 1 s |") == 3 and "| highest | torch 2.9.1 |" in told
    assert len({words[-1] for words in ran if "venv" in words}) == 3
    assert sum("not slow" in words for words in ran) == 2


def test_a_row_says_what_was_not_at_its_lowest(ran, capsys):
    try_versions.main(["--set", "lowest", "--but", "torch"])
    assert "| lowest but torch | torch 2.9.1 |" in capsys.readouterr().out


def test_what_cannot_be_had_or_fails_is_a_row_and_ends_with_2(monkeypatch, capsys):
    assert try_versions.main(["--python", "2.0", "--set", "bare"]) == 2
    assert "| 2.0 | bare |  | there is no Python 2.0 here |" in capsys.readouterr().out
    monkeypatch.setattr(
        try_versions, "tried", lambda *_: Row("3.11", "lowest", "", "1 failed", False)
    )
    assert try_versions.main(["--set", "lowest"]) == 2
    assert "1 failed" in capsys.readouterr().out


def test_a_package_that_is_no_dependency_is_refused(capsys):
    assert try_versions.main(["--but", "flask"]) == 2
    assert "--but names flask; the dependencies are torch," in capsys.readouterr().err
