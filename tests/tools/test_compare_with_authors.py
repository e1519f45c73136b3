"""The comparison with the authors' code, on a repository that the test writes."""

from pathlib import Path

import compare_with_authors
import pytest
import torch
from authors.stage import difference, modules
from compare_with_authors import Comparison


def written(folder: Path, factor: float) -> Path:
    """A repository whose code doubles a latent, if the factor is 2."""
    (folder / "fake" / "utils").mkdir(parents=True)
    (folder / "fake" / "utils" / "double.py").write_text(f"def double(z): return {factor} * z\n")
    return folder


def differ(stage, repository: Path) -> float:
    z = torch.tensor([1.0, -4.0])
    with modules(repository, "utils.double") as (code,):
        return difference(2 * z, code.double(z))


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    rows = (
        Comparison("doubled", "somebody/fake", "utils/double.py: double", differ, "none"),
        Comparison("absent", "somebody/elsewhere", "a.py: a", differ, "none"),
    )
    monkeypatch.setattr(compare_with_authors, "COMPARISONS", rows)


@pytest.mark.parametrize(("factor", "shown"), [(2.0, "0.0e+00"), (2.5, "2.0e-01")])
def test_code_is_imported_from_the_folder_and_a_planted_difference_shows(
    factor, shown, tmp_path, capsys
):
    assert compare_with_authors.main([str(written(tmp_path, factor))]) == 0
    out, err = capsys.readouterr()
    expected = f"| doubled | somebody/fake, utils/double.py: double | {shown} | none |"
    assert out.splitlines()[2:] == [expected]
    assert f"git clone https://github.com/somebody/elsewhere {tmp_path / 'elsewhere'}" in err


def test_modules_are_forgotten_so_that_two_repositories_may_name_theirs_alike(tmp_path):
    one, two = (written(tmp_path / str(factor), factor) / "fake" for factor in (2.0, 3.0))
    assert [differ(None, one), differ(None, two)] == [0.0, pytest.approx(1 / 3)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder"),
        (["."], "none of the repositories"),
        ([".", "--only", "x"], "nothing is compared for 'x'; there are doubled, absent"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compare_with_authors.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_clone_that_lacks_a_file_is_said(tmp_path, capsys):
    (tmp_path / "fake").mkdir()
    assert compare_with_authors.main([str(tmp_path), "--only", "doubled"]) == 2
    assert "cannot be imported" in capsys.readouterr().err
