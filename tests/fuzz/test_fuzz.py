"""Bad and odd input, drawn from numbers: what comes is a whole result, or a sentence and nothing.

`python -m pytest tests/fuzz --cases 5000` is for a night. A case is drawn from its number alone.
"""

import shutil
import sys

import pytest
from commands import ptinv_
from fuzz import cases, pictures, stored, words  # noqa: F401  each adds its kinds
from fuzz.found import FOUND
from fuzz.running import fault, spelt
from small import PROMPT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's processes and pipes"),
    pytest.mark.filterwarnings("default"),  # as in a user's process, where none is an error
]


@pytest.fixture(scope="session")
def made(small_folder, tmp_path_factory, picture):
    """A folder with an inversion and an edit, to be spoilt."""
    folder = tmp_path_factory.mktemp("made")
    picture.save(folder / "picture.png")
    how = [PROMPT, "--quiet", "--model", small_folder, "--steps", "2", "--inner-steps", "1"]
    kept, edited = folder / "kept.safetensors", folder / "edited.png"
    assert ptinv_("invert", folder / "picture.png", *how, "-o", kept) == 0
    assert ptinv_("edit", folder / "picture.png", *how, "--method", "pti", "-o", edited) == 0
    return folder


@pytest.fixture
def place(here, made):
    """A folder with the files that cases start from; it is emptied where a case ends well."""
    for name in ("kept.safetensors", "edited.png"):
        shutil.copyfile(made / name, here / name)
    return here


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        numbers = range(metafunc.config.getoption("cases"))
        metafunc.parametrize("number", numbers, ids=map(cases.name_of, numbers))


@pytest.fixture
def end(place, tmp_path_factory, request):
    """Runs a case, and fails with all that it takes to run it alone."""
    said = tmp_path_factory.getbasetemp() / "said"

    def run(case, *options):
        if wrong := fault(case, place, said):
            alone = " ".join(("python -m pytest", f"'{request.node.nodeid}'", *options))
            pytest.fail(f"{spelt(case)}\nin {place}\n{wrong}\nalone: {alone}", pytrace=False)
        shutil.rmtree(place)

    return run


def test_a_case_ends_with_a_whole_result_or_a_sentence(place, end, number):
    end(cases.draw(number, place), "--cases", str(number + 1))


@pytest.mark.parametrize("name", FOUND)
def test_what_once_ended_badly_does_not_any_more(place, end, name):
    end(FOUND[name](place))
