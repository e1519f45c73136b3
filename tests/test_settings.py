"""Settings: every field described once, what is refused, and what follows from the fields."""

import math
import subprocess
import sys
from dataclasses import fields

import pytest
from PIL import Image

from ptinv.errors import InputError
from ptinv.settings import (
    ATTENTION,
    EDIT,
    INVERSION,
    NAMES,
    OF_AN_INVERSION,
    Settings,
    bounds,
    names_of,
    of_an_inversion,
)

MASK = Image.new("L", (4, 4), "white")

# What the fields carry


def test_every_setting_has_a_meaning_a_group_and_a_check():
    for setting in fields(Settings):
        about = setting.metadata
        assert about["meaning"] and callable(about["check"])
        assert about["group"] in (INVERSION, ATTENTION, EDIT)


def test_an_inversion_depends_on_the_settings_of_its_group():
    assert OF_AN_INVERSION == names_of(INVERSION)
    kept = of_an_inversion(Settings(steps=7, source="a car", negative="blur", guidance_gate=0.5))
    assert tuple(kept) == OF_AN_INVERSION and kept["steps"] == 7 and kept["source"] == "a car"


def test_the_defaults_are_the_paper_s():
    usual = Settings()
    assert (usual.steps, usual.encode_ratio, usual.guidance) == (50, 0.8, 7.5)
    assert (usual.inner_steps, usual.lr, usual.eta, usual.mask_threshold) == (1, 0.1, 0.9, 0.3)
    assert (usual.negative, usual.guidance_gate) == ("", (0.0, 1.0))
    assert len(NAMES) == 38


def test_two_settings_do_not_share_their_weights():
    first, second = Settings(), Settings()
    first.reweight["car"] = 2.0
    assert second.reweight == {} and Settings().reweight == {}


def test_the_settings_import_no_torch():
    code = "import sys, ptinv.settings; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


# What is refused


NOT_NUMBERS = [math.nan, math.inf, -math.inf, True, "1", None]
OUT_OF_RANGE = {
    "steps": [0, -1, 501, 2.5],
    "encode_ratio": [-0.1, 1.01],
    "inversion_guidance": [-0.1, 101],
    "inner_steps": [-1, 10_001, 1.5],
    "lr": [-0.1, 1001],
    "lr_decay": [-0.1, 1.01],
    "stop_below": [-0.1, 1001],
    "guidance": [-0.1, 101],
    "eta": [-0.1, 1.01, 1.5],
    "low_pass": [0, 1001, 1.5],
    "mask_threshold": [-0.1, 1.01],
    "mask_dilate": [-1, 65, 1.5],
    "mask_feather": [-1, 65, 1.5],
    "mask_draws": [0, 1001, 1.5],
    "mask_clamp": [-0.1, 101],
    "self_cells": [0, 1001, 2.5],
    "proximal_quantile": [-0.1, 1.01],
    "seed": [-1, 2**63, 0.5],
}
GATES = [-0.1, 1.01, (0.5, 0.4), (0, 1.1), (0.1, 0.2, 0.3), "0.5", None, math.nan, (0, math.nan)]
REFUSED = [(name, value) for name, bad in OUT_OF_RANGE.items() for value in bad + NOT_NUMBERS]
REFUSED += [("init_embedding", value) for value in ("random", "source", None)]
REFUSED += [("sampler", "ddpm"), ("mask_relative_to", "all"), ("align", None), ("proximal", "l2")]
REFUSED += [("source", 5), ("focus", b"car"), ("focus", "\udcff"), ("reweight", ["car"])]
REFUSED += [(name, " ") for name in ("focus", "source_focus", "subtract")]
REFUSED += [("reuse_tuning", "yes"), ("paste_back", 1)]
REFUSED += [("mask", value) for value in ("mask.png", 0.5)]
REFUSED += [("mask_from", value) for value in (5, "", "attention+", "cloud", "file")]
REFUSED += [(name, gate) for name in ("self_replace", "guidance_gate") for gate in GATES]
REFUSED += [("cross_replace", gate) for gate in [*GATES, {"car": 2}, {"car": (0.5, 0.4)}]]


@pytest.mark.parametrize("name, value", REFUSED)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"^{name} "):
        Settings(**{name: value})


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_the_ends_of_a_range_are_in_it(name):
    with pytest.raises(InputError) as refused:
        Settings(**{name: -1})
    low, high = (
        float(end) for end in str(refused.value).split(" from ")[1].split(",")[0].split(" to ")
    )
    whole = "whole" in str(refused.value)
    for end in (low, min(high, 2**62)):
        Settings(**{name: int(end) if whole else end})


@pytest.mark.parametrize("factor", [-1, 1001, *NOT_NUMBERS])
def test_a_weight_out_of_range_is_named_by_its_word(factor):
    with pytest.raises(InputError, match="weight of 'yellow'"):
        Settings(reweight={"yellow": factor})


def test_a_word_to_weigh_is_a_text():
    with pytest.raises(InputError, match="the word to weigh must be a text"):
        Settings(reweight={5: 1.0})


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(eta=1.5), "eta must be a number from 0 to 1, not 1.5"),
        (dict(steps=2.5), "steps must be a whole number from 1 to 500, not 2.5"),
        (dict(align="near"), "align must be auto or replace or refine, not 'near'"),
        (dict(reuse_tuning=1), "reuse_tuning must be true or false, not 1"),
        (dict(source=5), "source must be a text, not 5"),
        (
            dict(source="\udcff"),
            "source holds bytes that are no characters; type it anew",
        ),
        (dict(focus=" "), "focus is empty; name words, or leave it out"),
        (
            dict(self_replace=2),
            "self_replace must be a share of the steps from 0 to 1, or two in order, not 2",
        ),
        (
            dict(init_embedding="source"),
            "init_embedding 'source' needs a source text; give one",
        ),
        (dict(mask="a.png"), "mask must be a picture, 'auto' or None, not 'a.png'"),
        (
            dict(mask_from="cloud"),
            "mask_from names cloud; join attention, difference, file with + (either), * (both) "
            "and ~ (not)",
        ),
        (dict(mask_from="file"), "mask_from names a file; give it as the mask"),
        (
            dict(paste_back=True, mask_from=None),
            "paste_back needs a mask, and nothing masks this edit; give a mask",
        ),
    ],
)
def test_a_refusal_is_a_sentence(options, sentence):
    with pytest.raises(InputError) as refused:
        Settings(**options)
    assert str(refused.value) == sentence


# What follows from the fields


@pytest.mark.parametrize(
    "options, expression, names",
    [
        (dict(), "attention", {"attention"}),
        (dict(mask_from=None), None, set()),
        (dict(mask=None, mask_from="attention"), None, set()),
        (dict(mask=MASK), "file", {"file"}),
        (dict(mask=MASK, mask_from="attention"), "file", {"file"}),
        (dict(mask_from="attention + ~difference"), "attention + ~difference", None),
        (dict(mask=MASK, mask_from="attention*~file"), "attention*~file", {"attention", "file"}),
    ],
)
def test_a_picture_is_the_mask_unless_the_expression_joins_it(options, expression, names):
    settings = Settings(**options)
    assert settings.mask_expression == expression
    assert settings.mask_names == ({"attention", "difference"} if names is None else names)


@pytest.mark.parametrize(
    "gate, pair", [(0.8, (0.0, 0.8)), ((0.2, 0.6), (0.2, 0.6)), ([0.2, 0.6], (0.2, 0.6))]
)
def test_a_gate_is_a_span_of_the_steps(gate, pair):
    assert bounds("self_replace", gate) == pair
