"""Stages: a stage's key holds every setting and text that its tensors depend on, and no other.

That is what lets a stored part serve another edit. So each setting is changed alone, on a latent of
a few cells, and the tensors are compared to the bit.
"""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from small import OTHER_PROMPT, PROMPT

from ptinv.errors import InputError
from ptinv.methods import stages
from ptinv.methods.request import Request
from ptinv.methods.run import prepare
from ptinv.methods.stages import silent
from ptinv.methods.table import METHODS
from ptinv.settings import NAMES, OF_AN_INVERSION, Settings

SOURCE, OTHER_SOURCE = "a red car on the grass", "a blue dog in the snow"
LATENT_SIZE = (4, 6)
TRAJECTORIES = (stages.INVERTED, stages.NOISED_ONCE, stages.NOISED_EACH)
EXTRAS = {  # with the trajectory that each is made of
    stages.TUNED: stages.INVERTED,
    stages.NULL_TUNED: stages.INVERTED,
    stages.OFFSETS: stages.INVERTED,
    stages.NOISE_MAPS: stages.NOISED_EACH,
}

# two tuning steps at each of two timesteps: the fewest for which each setting of the tuning matters
USUAL = dict(steps=2, encode_ratio=1.0, inner_steps=2, source=SOURCE)
CASES = {
    "usual": {},
    "guided up": dict(inversion_guidance=2.0),
    "guided up by the prompt": dict(inversion_guidance=2.0, source=None),
    "tuned from null": dict(init_embedding="null"),
    "tuned from the source": dict(init_embedding="source"),
}
CHANGES = {
    "steps": 3,
    "encode_ratio": 0.5,
    "size": 64,
    "inversion_guidance": 3.0,
    "inner_steps": 1,
    "lr": 0.05,
    "lr_decay": 0.5,
    "stop_below": 1000.0,
    "guidance": 3.0,
    "guidance_gate": 0.5,
    "negative": "a boat",
    "init_embedding": "null",
    "source": OTHER_SOURCE,
    "seed": 1,
    "prompt": OTHER_PROMPT,
}
OF_AN_EDIT = {
    "eta": 0.5,
    "sampler": "ancestral",
    "among": "boat car",
    "low_pass": 2,
    "mask": Image.new("L", (48, 32), "white"),
    "mask_from": "attention",
    "mask_threshold": 0.6,
    "mask_relative_to": "object",
    "mask_dilate": 1,
    "mask_feather": 1,
    "mask_draws": 2,
    "mask_clamp": 2.0,
    "focus": "car",
    "source_focus": "car",
    "subtract": "grass",
    "reweight": {"car": 2.0},
    "cross_replace": 0.5,
    "self_replace": 0.2,
    "self_cells": 8,
    "align": "refine",
    "proximal": "l1",
    "proximal_quantile": 0.7,
    "paste_back": True,
    "reuse_tuning": True,
}


def changes(case):
    """By name, the options that change one setting or text alone."""
    for name, value in CHANGES.items():
        if name == "size":  # of the latent, which is given here
            continue
        yield name, {name: "target" if case.get(name) == value else value}
    for name, value in OF_AN_EDIT.items() if case == {} else ():
        mask = {"mask_from": "attention"} if name == "paste_back" else {}
        yield name, {name: value} | mask


@torch.no_grad()
def made(model, stage, trajectory=None, prompt=PROMPT, **options):
    """(tensors, key) of a stage, for a small latent instead of a picture's."""
    settings = Settings(**{**USUAL, **options})
    request = Request("edit", METHODS["pti"], None, None, prompt, settings, ("target",), {})
    z0 = torch.randn(1, 4, *LATENT_SIZE, generator=torch.Generator().manual_seed(0))
    edit = replace(prepare(model, request), z0=z0, latent_size=LATENT_SIZE)
    if trajectory is not None:
        edit = replace(edit, made={"trajectory": trajectory})
    return stage.make(edit, silent), stage.key(settings, prompt)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_every_setting_is_changed_here_and_every_stage_of_the_table_looked_at():
    assert set(CHANGES) == {*OF_AN_INVERSION, "prompt"}
    assert set(OF_AN_EDIT) == set(NAMES) - set(OF_AN_INVERSION)
    assert {row.trajectory for row in METHODS.values()} == set(TRAJECTORIES)
    of_the_table = {(row.extra, row.trajectory) for row in METHODS.values() if row.extra}
    assert of_the_table == set(EXTRAS.items())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("stage", TRAJECTORIES, ids=lambda stage: stage.title)
def test_a_trajectory_is_another_where_its_key_is_and_nowhere_else(small_model, stage, case):
    tensors, key = made(small_model, stage, **case)
    assert tensors["trajectory"].shape == (3, 1, 4, *LATENT_SIZE)
    for name, change in changes(case):
        others, other_key = made(small_model, stage, **{**case, **change})
        assert equal(tensors, others) == (key == other_key), name


def is_needless(stage, case, name):
    """True where a key holds more than matters: what guidance is about while ω leaves it out.

    Without a source the residuals are of steps between equal texts, whatever ω is; at ω = 0 no
    text has a share in the noise maps.
    """
    if stage is stages.OFFSETS:
        return name == "guidance" and not {**USUAL, **case}["source"]
    if stage is stages.NOISE_MAPS and name == "inversion_guidance":
        return not {**USUAL, **case}["source"]
    return stage is stages.NOISE_MAPS and name == "source" and "inversion_guidance" not in case


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage, case",
    [
        pytest.param(
            stage,
            case,
            marks=pytest.mark.slow if name == "usual" and "tune" in stage.title else (),
            id=f"{stage.title}, {name}",
        )
        for stage in EXTRAS
        for name, case in CASES.items()
    ],
)
def test_an_extra_is_another_where_its_key_is_and_nowhere_else(small_model, stage, case):
    """Made of one trajectory, whose own key has to be the same first."""
    made_of, trajectory_key = made(small_model, EXTRAS[stage], **case)
    tensors, key = made(small_model, stage, made_of["trajectory"], **case)
    assert all(tensor.shape[:2] == (2, 1) for tensor in tensors.values())
    for name, change in changes(case):
        options = {**case, **change}
        if name in ("steps", "encode_ratio"):  # another number of steps
            assert made(small_model, EXTRAS[stage], **options)[1] != trajectory_key
            continue
        others, other_key = made(small_model, stage, made_of["trajectory"], **options)
        if is_needless(stage, case, name):
            assert equal(tensors, others) and key != other_key, name
        else:
            assert equal(tensors, others) == (key == other_key), name


def test_a_key_names_what_a_user_would_give():
    settings = Settings(**USUAL, inversion_guidance=1.0)
    for stage in (*TRAJECTORIES, *EXTRAS):
        assert set(stage.key(settings, PROMPT)) <= {*OF_AN_INVERSION, "prompt"}
    assert stages.INVERTED.key(settings, PROMPT) == dict(
        steps=2, encode_ratio=1.0, size=None, inversion_guidance=1.0, source=SOURCE
    )
    assert stages.NOISE_MAPS.key(settings, PROMPT) == dict(
        inversion_guidance=1.0, source=SOURCE, negative=""
    )


def test_a_prompt_in_the_source_s_place_is_the_same_text(small_model):
    """It is the text that counts, not the option that it was given by."""
    by_prompt, key = made(small_model, stages.INVERTED, inversion_guidance=2.0, source=None)
    by_source, same_key = made(
        small_model, stages.INVERTED, inversion_guidance=2.0, source=PROMPT, prompt=OTHER_PROMPT
    )
    assert key == same_key and equal(by_prompt, by_source)


@pytest.mark.parametrize("prompt", [None, ""])
def test_a_guided_inversion_needs_a_text_and_an_unguided_one_does_not(prompt):
    assert stages.INVERTED.key(Settings(), prompt)["source"] == ""
    with pytest.raises(InputError, match="inversion_guidance above 0 needs a text"):
        stages.INVERTED.key(Settings(inversion_guidance=1.0), prompt)


@pytest.mark.parametrize("prompt", [None, ""])
def test_without_a_prompt_the_tuning_starts_at_the_empty_text(prompt):
    assert stages.TUNED.key(Settings(), prompt)["prompt"] == ""
    assert "prompt" not in stages.TUNED.key(Settings(init_embedding="null"), PROMPT)
    of_source = Settings(init_embedding="source", source=SOURCE)
    assert stages.TUNED.key(of_source, PROMPT)["source"] == SOURCE
