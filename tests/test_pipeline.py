"""The verbs, from pictures to pictures, on a model that was never trained: what holds to the bit,
what is kept and used again, and what is refused before any work is done."""

import logging
import math

import pytest
import torch
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv import pipeline
from ptinv.errors import InputError
from ptinv.inverting import settings_of
from ptinv.settings import Settings
from ptinv.unet import UNet

STEPS = dict(steps=4)


@pytest.fixture(scope="module")
def inversion(small_model, picture):
    return ptinv.invert(small_model, picture, PROMPT, **STEPS)


@pytest.fixture
def asked(monkeypatch):
    """The timesteps at which the UNet is asked, as it happens."""
    forward, timesteps = UNet.forward, []

    def noted(self, z, t, *rest):
        timesteps.append(t)
        return forward(self, z, t, *rest)

    monkeypatch.setattr(UNet, "forward", noted)
    return timesteps


def latent(model, picture, prompt=PROMPT, method="pti", **options):
    """z_0 of an edit, before decoding hides anything."""
    settings = settings_of(picture, method, **{**STEPS, **options})
    return pipeline.run(model, picture, prompt, method, settings).z0


def same(a, b):
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


# The ends of η and β


def test_eta_1_is_ddim_edit_to_the_bit(small_model, picture):
    assert torch.equal(
        latent(small_model, picture, eta=1.0), latent(small_model, picture, method="ddim-edit")
    )


def test_eta_0_is_the_reconstruction_to_the_bit(small_model, picture):
    edited = ptinv.edit(small_model, picture, PROMPT, eta=0.0, mask=None, **STEPS)
    assert same(edited, ptinv.reconstruct(small_model, picture, PROMPT, **STEPS))


@pytest.mark.parametrize("eta", [0.0, 0.4, 0.9])
def test_beta_0_is_ddim_edit_to_the_bit_whatever_eta(small_model, picture, eta):
    untuned = latent(small_model, picture, lr=0.0, inner_steps=2, eta=eta)
    assert torch.equal(untuned, latent(small_model, picture, method="ddim-edit"))


def test_between_the_ends_an_edit_is_neither(small_model, picture):
    tuned, half, target = (latent(small_model, picture, eta=eta) for eta in (0.0, 0.5, 1.0))
    assert not torch.equal(half, tuned)
    assert not torch.equal(half, target)


def test_a_null_embedding_left_untuned_reconstructs_without_guidance(small_model, picture):
    options = dict(init_embedding="null", inner_steps=0, eta=0.0, mask=None)
    free = latent(small_model, picture, **options)
    unguided = latent(small_model, picture, method="ddim-global", guidance=0.0)
    torch.testing.assert_close(free, unguided, rtol=1e-4, atol=1e-4)


def test_tuning_longer_reconstructs_better(small_model, picture):
    z0 = small_model.encode(picture)
    untuned, tuned = (
        (latent(small_model, picture, eta=0.0, mask=None, lr=0.03, inner_steps=n) - z0).square()
        for n in (0, 10)
    )
    assert tuned.mean() < untuned.mean() / 2


# Pictures of any kind


@pytest.mark.parametrize("size", [(48, 32), (33, 57), (128, 16), (17, 100), (16, 16), (200, 150)])
def test_an_edit_has_the_picture_s_own_size(small_model, picture, size):
    assert ptinv.edit(small_model, picture.resize(size), PROMPT, **STEPS).size == size


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_a_picture_of_any_mode_is_edited_to_rgb(small_model, picture, mode):
    given = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
    edited = ptinv.edit(small_model, given, PROMPT, method="ddim-edit", **STEPS)
    assert (edited.mode, edited.size) == ("RGB", picture.size)


def test_a_picture_is_turned_upright_first(small_model, picture):
    lying = picture.transpose(Image.Transpose.ROTATE_90)
    lying.getexif()[0x0112] = 6  # to be shown a quarter turn clockwise
    assert torch.equal(small_model.encode(lying), small_model.encode(picture))
    for method in ("vae", "ddim"):
        assert same(
            ptinv.reconstruct(small_model, lying, method=method, **STEPS),
            ptinv.reconstruct(small_model, picture, method=method, **STEPS),
        )


# The same again


def test_the_same_inputs_give_the_same_bytes(small_model, picture):
    one, two = (ptinv.edit(small_model, picture, PROMPT, **STEPS) for _ in range(2))
    assert same(one, two)


def test_a_seed_makes_a_picture_and_another_seed_another(small_model):
    one, two, other = (ptinv.generate(small_model, PROMPT, seed, steps=3) for seed in (1, 1, 2))
    assert one.size == (32, 32)
    assert same(one, two)
    assert not same(one, other)


def test_nothing_that_is_given_is_changed(small_model, picture):
    pixels, reweight = picture.tobytes(), {"yellow": 2.0}
    mask = Image.new("L", picture.size, "white")
    ptinv.edit(small_model, picture, PROMPT, mask=mask, reweight=reweight, **STEPS)
    assert picture.tobytes() == pixels
    assert mask.getextrema() == (255, 255)
    assert reweight == {"yellow": 2.0}


# Inversions, kept


def test_an_inversion_serves_as_well_as_its_picture(small_model, picture, inversion):
    again = ptinv.edit(small_model, inversion, PROMPT)
    assert same(again, ptinv.edit(small_model, picture, PROMPT, **STEPS))


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_an_inversion_serves_every_eta_without_being_tuned_again(
    small_model, inversion, asked, eta
):
    ptinv.edit(small_model, inversion, PROMPT, eta=eta)
    assert asked == [501, 251, 1]  # the walk down, and nothing else


def test_words_that_only_shape_the_mask_do_not_tune_again(small_model, inversion, asked):
    ptinv.edit(small_model, inversion, PROMPT, source="a red car on the grass")
    ptinv.edit(small_model, inversion, PROMPT, focus="car", mask_threshold=0.5)
    assert asked == 2 * [501, 251, 1]


@pytest.mark.parametrize(
    "prompt, options",
    [
        (OTHER_PROMPT, {}),
        (PROMPT, dict(guidance=3.0)),
        (PROMPT, dict(lr=0.01)),
        (PROMPT, dict(inner_steps=2)),
        (PROMPT, dict(init_embedding="null")),
    ],
)
def test_another_prompt_or_tuning_is_tuned_again_and_says_so(
    small_model, picture, inversion, caplog, prompt, options
):
    caplog.set_level(logging.INFO, "ptinv")
    again = ptinv.edit(small_model, inversion, prompt, **options)
    assert any("again, tune c_t" in message for message in caplog.messages)
    assert same(again, ptinv.edit(small_model, picture, prompt, **STEPS, **options))


def test_a_bare_trajectory_is_tuned_when_a_method_needs_it(small_model, picture, inversion):
    bare = ptinv.invert(small_model, picture, method="ddim-edit", **STEPS)
    assert bare.embeddings is None
    assert torch.equal(bare.trajectory, inversion.trajectory)
    tuned = ptinv.edit(small_model, bare, PROMPT, method="pti")
    assert same(tuned, ptinv.edit(small_model, inversion, PROMPT))
    assert not same(tuned, ptinv.edit(small_model, bare, PROMPT))  # by what made it


def test_the_tuning_is_kept_where_it_is_asked_for(small_model, inversion, asked):
    kept = ptinv.edit(small_model, inversion, OTHER_PROMPT, guidance=3.0, reuse_tuning=True)
    assert asked == [501, 251, 1]
    assert not same(kept, ptinv.edit(small_model, inversion, OTHER_PROMPT, guidance=3.0))


def test_a_tuning_that_there_is_not_is_not_kept(small_model, picture, asked):
    bare = ptinv.invert(small_model, picture, **STEPS)
    asked.clear()
    for given in (picture, bare):
        with pytest.raises(InputError, match="^reuse_tuning "):
            ptinv.edit(small_model, given, PROMPT, reuse_tuning=True)
    assert asked == []


def test_without_a_prompt_nothing_is_tuned_until_an_edit_needs_it(small_model, picture):
    bare = ptinv.invert(small_model, picture, lr=0.05, **STEPS)
    assert bare.embeddings is None
    assert same(
        ptinv.edit(small_model, bare, PROMPT),
        ptinv.edit(small_model, picture, PROMPT, lr=0.05, **STEPS),
    )


@pytest.mark.parametrize("options", [dict(steps=5), dict(encode_ratio=0.5)])
def test_another_trajectory_has_to_be_inverted_anew(small_model, inversion, asked, options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name}.*invert the picture anew"):
        ptinv.edit(small_model, inversion, PROMPT, **options)
    assert asked == []


def test_an_inversion_reconstructs_with_its_own_prompt(small_model, picture, inversion):
    assert same(
        ptinv.reconstruct(small_model, inversion),
        ptinv.reconstruct(small_model, picture, PROMPT, **STEPS),
    )
    assert same(
        ptinv.reconstruct(small_model, inversion, method="vae"),
        ptinv.reconstruct(small_model, picture, method="vae"),
    )


def test_an_inversion_that_is_saved_and_loaded_is_the_same(
    small_model, picture, inversion, tmp_path
):
    inversion.save(tmp_path / "x.safetensors")
    loaded = ptinv.Inversion.load(tmp_path / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    assert loaded.settings == inversion.settings
    assert same(loaded.picture, picture)
    for name in ("pixels", "trajectory", "embeddings", "losses"):
        assert torch.equal(getattr(loaded, name), getattr(inversion, name))
    assert same(ptinv.edit(small_model, loaded, PROMPT), ptinv.edit(small_model, inversion, PROMPT))


def test_an_inversion_without_embeddings_can_be_saved_too(small_model, picture, tmp_path):
    ptinv.invert(small_model, picture, method="ddim-edit", **STEPS).save(tmp_path / "x")
    loaded = ptinv.Inversion.load(tmp_path / "x")
    assert loaded.embeddings is None and loaded.losses is None


def test_saving_that_fails_leaves_the_old_file(inversion, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        inversion.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert path.read_bytes() == b"old"


# What is refused


NOT_NUMBERS = [math.nan, math.inf, -math.inf, True, "1", None]
OUT_OF_RANGE = {
    "steps": [0, -1, 501, 2.5],
    "encode_ratio": [-0.1, 1.1],
    "inner_steps": [-1, 10_001, 1.5],
    "lr": [-0.1],
    "guidance": [-0.1, 101],
    "eta": [-0.1, 1.5],
    "mask_threshold": [-0.1, 1.1],
    "seed": [-1, 2**63, 0.5],
}
REFUSED = [(name, value) for name, bad in OUT_OF_RANGE.items() for value in bad + NOT_NUMBERS]
REFUSED += [("init_embedding", value) for value in ("random", "source", None)]
REFUSED += [("source", 5), ("focus", b"car"), ("focus", "\udcff"), ("reweight", ["car"])]
REFUSED += [("reuse_tuning", "yes")]
REFUSED += [("mask", value) for value in ("mask.png", 0.5)]


@pytest.mark.parametrize("name, value", REFUSED)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"^{name} "):
        Settings(**{name: value})


@pytest.mark.parametrize("factor", [-1, 1001, *NOT_NUMBERS])
def test_a_weight_out_of_range_is_named_by_its_word(factor):
    with pytest.raises(InputError, match="weight of 'yellow'"):
        Settings(reweight={"yellow": factor})


@pytest.mark.parametrize("verb", [ptinv.invert, ptinv.edit, ptinv.reconstruct])
def test_an_option_that_there_is_not_is_a_type_error(small_model, picture, verb, asked):
    for method in ("pti", "ddim-edit"):
        with pytest.raises(TypeError, match="strength"):
            verb(small_model, picture, PROMPT, method, strength=0.5)
    assert asked == []


@pytest.mark.parametrize("verb", [ptinv.invert, ptinv.edit, ptinv.reconstruct])
def test_a_method_that_there_is_not_is_answered_with_those_there_are(small_model, picture, verb):
    with pytest.raises(InputError, match="'magic'; there are pti, ddim-edit, ddim-global"):
        verb(small_model, picture, PROMPT, "magic")


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_edit_needs_a_prompt_and_a_reconstruction_does_not(small_model, picture, prompt, asked):
    with pytest.raises(InputError, match="the prompt is empty"):
        ptinv.edit(small_model, picture, prompt, **STEPS)
    assert asked == []
    assert ptinv.reconstruct(small_model, picture, prompt, **STEPS).size == picture.size


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(focus="boat"), '"boat" is not in the prompt; its words are: a, yellow, car'),
        (dict(reweight={"boat": 2}), '"boat" is not in the prompt'),
        (dict(mask=Image.new("L", (48, 32), "black")), "all black"),
        (dict(mask=Image.new("L", (32, 48), "white")), "32 × 48 pixels but the picture is 48 × 32"),
    ],
)
def test_words_and_masks_are_refused_before_the_network_is_asked(
    small_model, picture, inversion, asked, options, reason
):
    for given in (picture, inversion):
        with pytest.raises(InputError, match=reason):
            ptinv.edit(small_model, given, PROMPT, **options)
    assert asked == []


# Which words an edit is about


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "yellow car"),
        (dict(source="a red car on the grass"), "yellow"),
        (dict(source=PROMPT), "yellow car"),
        (dict(focus="grass", source="a red car"), "grass"),
    ],
)
def test_the_words_are_those_given_or_those_that_the_source_lacks_or_a_guess(
    small_model, picture, caplog, options, words
):
    caplog.set_level(logging.INFO, "ptinv")
    ptinv.edit(small_model, picture, PROMPT, "ddim-edit", **STEPS, **options)
    assert f"the edit is about: {words}" in caplog.messages


def test_reweighting_by_1_is_no_reweighting_and_by_2_is(small_model, picture):
    plain, one, two = (
        latent(small_model, picture, mask=None, reweight=weights)
        for weights in ({}, {"yellow": 1}, {"yellow": 2})
    )
    torch.testing.assert_close(one, plain, rtol=1e-3, atol=1e-3)
    assert (two - plain).abs().max() > 10 * (one - plain).abs().max()


# Progress


def test_each_long_loop_is_told_to_the_progress(small_model, picture):
    loops = []

    def progress(loop, label):
        loops.append((label, len(loop)))
        return loop

    ptinv.edit(small_model, picture, PROMPT, progress=progress, **STEPS)
    assert loops == [("inverting", 3), ("tuning", 3), ("sampling", 3)]
