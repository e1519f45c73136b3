"""How the programs end: a line for whatever it is, and a code."""

import argparse
import signal
import warnings
from pathlib import Path

import pytest
from evaluation.command_line import answer

import ptinv


@pytest.fixture
def ended(capsys):
    """The code and the lines of a program whose work is done by a function."""

    def run(work, *argv):
        top = argparse.ArgumentParser()
        top.add_argument("--quiet", action="store_true")
        top.add_argument("--cells", type=Path)
        return answer("program.py", work, top, list(argv)), capsys.readouterr().err.splitlines()

    return run


def raising(error):
    def work(args):
        raise error

    return work


@pytest.mark.parametrize(
    "error, code, said",
    [
        (ptinv.InputError("the prompt\nis empty"), 2, "the prompt is empty"),
        (OSError("no space"), 2, "no space"),
        (FloatingPointError("not finite"), 2, "not finite"),
        (MemoryError(), 1, "the memory is full; use --fast, --dtype bfloat16 or --device cpu"),
        (KeyboardInterrupt(), 130, "interrupted; no part of the output is left"),
    ],
)
def test_whatever_ends_it_is_a_line_and_a_code(ended, error, code, said):
    assert ended(raising(error)) == (code, [f"program.py: {said}"])


def test_an_interruption_says_where_finished_cells_are(ended):
    code, said = ended(raising(KeyboardInterrupt()), "--cells", "kept")
    assert (code, said) == (130, ["program.py: interrupted; what is finished is kept in kept"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_number_and_is_handled_no_more(ended, number):
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    try:
        code, said = ended(lambda args: signal.raise_signal(number))
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
    assert code == 128 + number
    assert said == ["program.py: interrupted; no part of the output is left"]


def test_a_mistake_of_the_program_s_own_is_not_hidden(ended):
    with pytest.raises(RuntimeError, match="shapes differ"):
        ended(raising(RuntimeError("shapes differ")))


def test_remarks_are_said_once_and_not_at_all_where_it_is_quiet(ended):
    def work(args):
        for _ in range(2):
            warnings.warn("the edit is about: dogs", ptinv.Remark, stacklevel=1)
        warnings.warn("eta will change nothing", ptinv.Doubt, stacklevel=1)

    doubt = "program.py: eta will change nothing"
    assert ended(work) == (0, ["program.py: the edit is about: dogs", doubt])
    assert ended(work, "--quiet") == (0, [doubt])
