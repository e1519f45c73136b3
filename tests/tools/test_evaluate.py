"""Refusals of the evaluation, before it works for half an hour."""

import evaluate
import pytest


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["judge", "--count", "0"], "count must be a whole number from 1"),
        (["model", "--inverted", "-1"], "inverted must be a whole number from 1"),
        (["model", "--seed", "-1"], "seed must be a whole number from 0"),
        (["edits"], "edits needs a folder that scenes.py wrote"),
        (["edits", "{folder}"], "write one with python tools/scenes.py"),
        (["judge", "--model", "{folder}/none"], "there is no checkpoint at"),
    ],
)
def test_what_it_cannot_do_is_a_sentence(arguments, said, tmp_path, capsys):
    assert evaluate.main([word.format(folder=tmp_path) for word in arguments]) == 2
    output = capsys.readouterr()
    assert said in output.err and len(output.err.splitlines()) == 1
    assert output.out == ""


@pytest.mark.parametrize("line", ['{"image": 1', "[]", '{"image": "a.png"}'])
def test_a_manifest_of_something_else_is_named(line, tmp_path, capsys):
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    assert evaluate.main(["edits", str(tmp_path)]) == 2
    assert "manifest.jsonl is not what scenes.py writes" in capsys.readouterr().err
