"""What an edit costs in rows of the UNet, and that nothing is computed twice."""

import re

import pytest
import torch
from commands import ptinv_, remarks
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.core.vae import VAE
from ptinv.cost import Rows, counted

SHARED = "a red car on the grass"  # PROMPT's picture, but for a modifier
# the paper's 50 steps at ratio 0.8: 40 up; 40 · 3 to tune, of which one goes back; 40 · 2 down
COSTS = {
    "pti": (40 + 120 + 80, 40),
    "auto": (16 + 32 + 20, 0),  # told: its mask is 10 noises for two texts
    "fast": (8 + 16 + 8, 0),
    "ddim-edit": (40 + 80, 0),
    "ddim-global": (40 + 80, 0),
    "diffedit": (40 + 80 + 20, 0),
    "diffedit-port": (40 + 80 + 2, 0),
    "latent": (40 + 80, 0),
    "noising": (40, 0),
    "sdedit": (76, 0),
    "ilvr": (100, 0),
    "edit-friendly": (128 + 128, 0),
    "p2p": (50 + 200, 0),
    "null-text": (50 + 600 + 200, 500),  # where no step's tuning ends early
    "npi": (50 + 200, 0),
    "npi-prox": (50 + 200, 0),
    "direct": (50 + 100 + 200, 0),
    "pti-p2p": (40 + 120 + 160, 40),
}


def test_every_method_is_costed():
    assert COSTS.keys() == ptinv.METHODS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("method", COSTS)
def test_a_method_s_defaults_cost_so_many_rows(small_model, picture, method):
    told = {"source": SHARED} if ptinv.METHODS[method].own("source") == "auto" else {}
    early = {"stop_below": 0.0} if method == "null-text" else {}
    result = ptinv.result(small_model, picture, PROMPT, method, **told, **early)
    assert (result.rows.forward, result.rows.backward) == COSTS[method]


@pytest.mark.slow
def test_fast_takes_at_most_a_hundred_rows_with_what_it_reads(birds):
    tiny = ptinv.load(device="cpu", dtype="float32")
    result = ptinv.result(tiny, birds, "two pink dogs in the snow", "fast")
    assert result.request.settings.source == "two pink birds in the snow"
    assert 32 < result.rows.forward <= 100


def test_an_inversion_that_is_given_costs_nothing_again(small_model, inversion):
    assert ptinv.result(small_model, inversion, PROMPT).rows == Rows(3 * 2, 0)
    retuned = ptinv.result(small_model, inversion, OTHER_PROMPT).rows
    assert retuned == Rows(3 * 2 + 3 * 3, 3)


def test_runs_do_not_count_each_other(small_model, picture):
    costs = [ptinv.result(small_model, picture, PROMPT, "pti", steps=4).rows for _ in range(2)]
    assert costs[0] == costs[1] == Rows(3 + 9 + 6, 3)


def test_rows_of_a_batch_are_counted_and_gradients_that_came_by(small_model):
    model, rows = counted(small_model)
    z, c = torch.zeros(3, 4, 16, 16), small_model.embed(PROMPT).expand(3, -1, -1)
    c = c.clone().requires_grad_()
    for _ in range(2):
        (model.predict_noise(z, 1, c).sum() + model.predict_noise(z, 1, c).sum()).backward()
    assert rows == Rows(12, 12)
    assert model.unet is small_model.unet and model.name == small_model.name


def test_no_latent_is_predicted_twice_under_one_text(small_model, picture):
    seen = []

    class Noted(type(small_model)):
        def predict_noise(self, z, t, context, control=None):
            rows = zip(z, context.expand(len(z), -1, -1), strict=True)
            seen.extend((t, hash((*a.flatten().tolist(),)), hash((*c.flatten().tolist(),)))
                        for a, c in rows)  # fmt: skip
            return super().predict_noise(z, t, context, control)

    model = Noted(**vars(small_model))
    how = dict(source=SHARED, steps=5, mask_draws=2)
    ptinv.edit(model, picture, PROMPT, "auto", **how)
    assert len(seen) == len(set(seen)) == 4 * 3 + 4


def test_texts_are_embedded_once_and_a_picture_is_encoded_once(
    small_model, picture, monkeypatch, here
):
    encoded, embedded = [], []
    encode, forward = VAE.encode, type(small_model.text_encoder).forward
    monkeypatch.setattr(VAE, "encode", lambda *args: encoded.append(1) or encode(*args))
    monkeypatch.setattr(
        type(small_model.text_encoder),
        "forward",
        lambda self, ids: embedded.extend(map(tuple, ids.tolist())) or forward(self, ids),
    )
    ptinv.edit(small_model, picture, PROMPT, "auto", steps=3)
    assert len(encoded) == 1
    reading, of_the_edit = embedded[:-3], embedded[-3:]
    assert len(set(reading)) == len(reading) > 3 and len(set(of_the_edit)) == 3
    encoded.clear()
    assert ptinv_("reconstruct", "picture.png", "--steps", "3", "-o", "out.png") == 0
    assert len(encoded) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["edit", "picture.png", PROMPT, "--method", "pti"],
        ["reconstruct", "picture.png", PROMPT],
        ["invert", "picture.png", PROMPT],
        ["generate", PROMPT],
    ],
)
def test_a_verbose_command_says_what_it_cost(here, capsys, command):
    out = "x.safetensors" if command[0] == "invert" else "out.png"
    assert ptinv_(*command, "--steps", "4", "--verbose", "-o", out) == 0
    rows = {"invert": "12 UNet rows forward, 3", "generate": "8 UNet rows forward, 0"}
    wanted = rows.get(command[0], "18 UNet rows forward, 3") + r" backward; \d+\.\d s, in float32"
    said = remarks(capsys)[-1]
    assert re.fullmatch(f"{wanted} on the cpu", said)
    if out == "out.png":
        assert said.startswith(Image.open(out).text["cost"])


def test_a_command_is_quiet_or_verbose(here, capsys):
    assert ptinv_("generate", PROMPT, "-o", "out.png", "--quiet", "--verbose") == 2
    assert ptinv_("generate", PROMPT, "--steps", "3", "-o", "out.png") == 0
    assert "rows" not in capsys.readouterr().err.split("--verbose")[-1]


def test_fast_is_a_method_by_a_shorter_name(here, capsys):
    said = ["picture.png", PROMPT, "--source", SHARED, "-o"]
    assert ptinv_("edit", *said, "a.png", "--fast") == 0
    assert ptinv_("edit", *said, "b.png", "--method", "fast") == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()
    assert ptinv_("edit", *said, "c.png", "--fast", "--method", "pti") == 2
    assert "not allowed with" in capsys.readouterr().err
