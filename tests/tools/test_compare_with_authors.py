"""The comparison runs code from clones, on this project's networks, and a difference shows."""

import importlib.util

import compare_with_authors as tool
import pytest
import torch
from authors.facade import Controlled, Model, layers_of, schedule_of

import ptinv

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="needs the extra peers"
)
RESIZER = """
import torch
import torch.nn.functional as F


class Resizer:
    def __init__(self, shape, scale):
        self.size = [round(side * scale) for side in shape[2:]]

    def __call__(self, x):
        return F.interpolate(x, self.size, mode="bicubic", antialias=True){more}
"""


def clone(folder, more=""):
    """A stand-in for ILVR's repository."""
    (folder / "ilvr_adm").mkdir(parents=True)
    (folder / "ilvr_adm" / "resizer.py").write_text(RESIZER.format(more=more))


@pytest.fixture(autouse=True)
def fresh_modules(monkeypatch):
    """Each test imports its own clone."""
    monkeypatch.setattr(tool.sys, "path", list(tool.sys.path))
    monkeypatch.delitem(tool.sys.modules, "resizer", raising=False)
    yield
    tool.sys.modules.pop("resizer", None)


@pytest.mark.parametrize("more, equal", [("", True), (" + 0.01 * x.mean()", False)])
def test_a_clone_s_code_is_run_and_a_planted_difference_shows(more, equal, tmp_path, capsys):
    clone(tmp_path, more)
    assert tool.main([str(tmp_path), "--only", "ilvr, its filter"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split("|")
    assert row[2].strip() == "jychoi118/ilvr_adm, resizer.py"
    assert (float(row[3]) < 1e-5) == equal


def test_what_is_not_there_is_named_with_the_command_that_fetches_it(tmp_path, capsys):
    assert tool.main([str(tmp_path), "--only", "p2p", "--only", "edit-friendly"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 2
    wanted = f"git clone https://github.com/cure-lab/PnPInversion {tmp_path / 'PnPInversion'}"
    assert wanted in output.err


@needs_diffusers
def test_the_facade_predicts_what_the_model_does(small_model):
    from diffusers import DDIMScheduler

    theirs = Model(small_model, schedule_of(DDIMScheduler), 5, 16)
    assert theirs.scheduler.timesteps.tolist() == [801, 601, 401, 201, 1]
    z, text = torch.randn(2, 4, 16, 16), small_model.embed("a dog")
    eps = small_model.predict_noise(z, 201, text.expand(2, -1, -1))
    found = theirs.unet(z, torch.tensor(201), encoder_hidden_states=text)
    assert torch.equal(found["sample"], eps) and torch.equal(found.sample, eps)
    ids = small_model.tokenizer.ids(["a dog"])
    torch.testing.assert_close(theirs.text_encoder(ids)[0], text)


def test_a_controller_is_called_in_every_attention_layer_with_heads_among_the_rows(small_model):
    calls = []

    def controller(attn, is_cross, place):
        calls.append((tuple(attn.shape), is_cross, place))
        attn[len(attn) // 2 :] = attn[: len(attn) // 2].clone()  # the second row as the first
        return attn

    z, text = torch.randn(1, 4, 16, 16).expand(2, -1, -1, -1), small_model.embed(["a dog", "a car"])
    eps = small_model.predict_noise(z, 201, text, Controlled(controller))
    heads = small_model.unet.config.heads
    assert len(calls) == layers_of(small_model)
    assert all(shape[0] == 2 * heads for shape, *_ in calls)
    assert {place for *_, place in calls} == {"down", "mid", "up"}
    assert eps.isfinite().all() and not torch.equal(eps, small_model.predict_noise(z, 201, text))


def test_every_comparison_is_of_a_method_of_the_table():
    named = {name.partition(",")[0] for name in tool.ROWS}
    assert named <= ptinv.METHODS.keys() and len(named) >= 8
