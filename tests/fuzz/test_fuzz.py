"""Bad and odd input, drawn from numbers: what comes is a whole result, or a sentence and nothing.

`python -m pytest tests/fuzz --cases 5000` is for a night. A case is drawn from its number alone.
"""

import re
import shutil
import sys

import pytest
from commands import ptinv_
from fuzz import cases, pictures, stored, words  # noqa: F401  each adds its kinds
from fuzz.known import KNOWN
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
def fault_of(place, tmp_path_factory):
    """What is wrong with how a case ends."""
    return lambda case: fault(case, place, tmp_path_factory.getbasetemp() / "said")


def test_a_case_ends_with_a_whole_result_or_a_sentence(place, number, fault_of, request):
    case = cases.draw(number, place)
    if not (wrong := fault_of(case)):
        shutil.rmtree(place)
        return
    for why, known in KNOWN.items():
        if re.search(known.sign, wrong, re.DOTALL):
            pytest.xfail(why)
    alone = f"python -m pytest '{request.node.nodeid}' --cases {number + 1}"
    pytest.fail(f"{spelt(case)}\nin {place}\n{wrong}\nalone: {alone}", pytrace=False)


@pytest.mark.xfail(strict=True, raises=AssertionError)
@pytest.mark.parametrize("why", KNOWN)
def test_what_is_known_is_not_mended_yet(place, why, fault_of):
    wrong = fault_of(KNOWN[why].example(place))
    if wrong and not re.search(KNOWN[why].sign, wrong, re.DOTALL):
        pytest.fail(f"another sign than {KNOWN[why].sign}: {wrong}")
    assert not wrong
