"""Messages: one line each, whatever they quote."""

import warnings

import pytest

from ptinv.errors import InputError, OutputError, Remark, because, line, remark


def test_a_message_is_one_line_without_what_a_terminal_would_obey():
    assert line("a\tb\nc  d") == "a b c d"
    assert line("a.png: \x1b[31mred\x07\u202e\x9b") == "a.png: [31mred"
    assert line("\udcff") == ""
    assert line("a yellow car, « très » 猫") == "a yellow car, « très » 猫"


@pytest.mark.parametrize("quoted", ["x" * 50_000, "a b " * 50_000, "\x1b" * 50_000, "[1, " * 9000])
def test_what_is_quoted_at_length_is_cut_and_the_sentence_stays(quoted):
    said = line(f"--focus must be a text, not {quoted}; leave it out")
    assert said.startswith("--focus must be a text, not ") and said.endswith("; leave it out")
    assert len(said) <= 600


def test_a_value_in_quotes_is_cut_to_some_80_characters_and_no_sentence_between_them():
    for sign in "'\"":
        said = line(f"there is no method {sign}{'a b ' * 100}{sign}; there are 'pti' and 'auto'")
        assert len(said) < 150 and said.endswith(f"{sign}; there are 'pti' and 'auto'")
    sentence = "the word 'a' is not in the prompt, which goes on for a while until it says 'b'" * 2
    assert line(sentence) == sentence


def test_errors_and_remarks_are_such_lines():
    assert str(InputError("\x1b[2J")) == "[2J"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Remark)
        remark("a\nb " + "c" * 1000)
    assert len(str(caught[0].message)) < 200 and "\n" not in str(caught[0].message)


def test_a_file_that_cannot_be_written_is_an_input_error_and_an_os_error():
    error = OutputError("a.png cannot be written")
    assert isinstance(error, InputError) and isinstance(error, OSError)
    assert str(error) == "a.png cannot be written"


def test_python_s_own_words_are_not_passed_on():
    assert because(InputError("it is empty")) == " (it is empty)"
    assert because(KeyError("steps")) == " ('steps')"
    assert because(AttributeError("'int' object has no attribute 'get'")) == ""
