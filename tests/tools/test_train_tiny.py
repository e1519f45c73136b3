"""The trainer's own parts: its tokenizer, and a run that is stopped and goes on."""

import argparse

import pytest
import torch
import train_tiny
from torch import nn
from world import scenes, tiny, train_judge, trainer
from world.tokenizer import merge, write_tokenizer

from ptinv.core.text import Tokenizer
from ptinv.methods.words import words_of


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path)
    return Tokenizer(tmp_path)


def test_every_word_of_the_scenes_is_one_token(tokenizer):
    for word in words_of(tokenizer, " ".join(scenes.WORDS)):
        assert len(word.positions) == 1
    assert [word.text for word in words_of(tokenizer, " ".join(scenes.WORDS))] == list(scenes.WORDS)


def test_other_words_fall_into_pieces_and_none_is_lost(tokenizer):
    zebra = words_of(tokenizer, "a grey zebra")[-1]
    assert zebra.text == "zebra"
    assert len(zebra.positions) > 1


def test_joining_pairs_leaves_other_pieces_alone():
    assert merge(list("abcab"), ("a", "b")) == ["ab", "c", "ab"]
    assert merge(list("aaa"), ("a", "a")) == ["aa", "a"]


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 10)

    def run(work, stop_at=None):
        torch.manual_seed(0)
        network = nn.Linear(3, 2)

        def loss_at(step):
            if step == stop_at:
                raise KeyboardInterrupt
            g = torch.Generator().manual_seed(step)
            return network(torch.randn(4, 3, generator=g)).square().mean()

        args = argparse.Namespace(work=work, device="cpu")
        work.mkdir(exist_ok=True)
        return trainer.fit("linear", network, loss_at, 25, 0.01, 0.9, args)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop_at=17)
    resumed = run(tmp_path / "stopped")
    assert torch.equal(resumed.weight, whole.weight)


class Reached(Exception):
    """The training began, and made a checkpoint."""


@pytest.mark.parametrize("tool", [train_tiny, train_judge])
def test_a_run_goes_on_with_its_own_arguments_only(tmp_path, monkeypatch, capsys, tool):
    def train(*given):
        network, args = nn.Linear(3, 2), given[-1]
        trainer.fit("any", network, lambda step: network.weight.mean(), 1, 0.01, 0.9, args)
        raise Reached

    place, training = (tiny, "train_vae") if tool is train_tiny else (train_judge, "train")
    monkeypatch.setattr(place, training, train)
    words = [str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--device", "cpu"]
    steps = "--vae-steps" if tool is train_tiny else "--steps"
    elsewhere = [str(tmp_path / "elsewhere"), *words[1:], steps, "7"]
    for same in (words, words, elsewhere):
        with pytest.raises(Reached):
            tool.main(same)
    before = (tmp_path / "work" / "any.pt").read_bytes()
    with pytest.raises(SystemExit) as caught:
        tool.main([*words, "--seed", "5"])
    said = capsys.readouterr().err.splitlines()[-1]
    seed = 0 if tool is train_tiny else 1000
    assert caught.value.code == 2
    assert f"any.pt was made with --seed {seed}, not 5; give the same, or another --work" in said
    assert (tmp_path / "work" / "any.pt").read_bytes() == before
    torch.save({"step": 1}, tmp_path / "work" / "any.pt")
    with pytest.raises(SystemExit):
        tool.main(words)
    assert f"--seed unknown, not {seed}" in capsys.readouterr().err


@pytest.mark.parametrize("tool", [train_tiny, train_judge])
@pytest.mark.parametrize("left", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named(tmp_path, capsys, tool, left):
    work = tmp_path / "work"
    work.mkdir()
    (work / "any.pt").write_bytes(left)
    with pytest.raises(SystemExit) as caught:
        tool.main([str(tmp_path / "out"), "--work", str(work), "--device", "cpu"])
    assert caught.value.code == 2
    assert "any.pt is damaged; remove it, or give another --work" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_to_start_from_that_is_not_there_is_named(tmp_path, capsys):
    missing = tmp_path / "missing"
    with pytest.raises(SystemExit) as caught:
        train_tiny.main([str(tmp_path / "out"), "--start", str(missing), "--device", "cpu"])
    assert caught.value.code == 2
    assert str(missing) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
