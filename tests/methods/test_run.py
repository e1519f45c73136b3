"""Running a row: what of a stored inversion serves again, and which words an edit is about."""

from dataclasses import replace

import pytest
import torch
from edits import same
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.errors import InputError
from ptinv.methods import stages

STEPS = dict(steps=4)


# Inversions that serve again


def test_an_inversion_serves_as_well_as_its_picture(small_model, picture, inversion):
    again = ptinv.edit(small_model, inversion, PROMPT)
    assert same(again, ptinv.edit(small_model, picture, PROMPT, "pti", **STEPS))


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_an_inversion_serves_every_eta_without_being_tuned_again(
    small_model, inversion, unet_calls, eta
):
    ptinv.edit(small_model, inversion, PROMPT, eta=eta)
    assert unet_calls == [501, 251, 1]  # sampling alone


def test_words_that_only_shape_the_mask_do_not_tune_again(small_model, inversion, unet_calls):
    ptinv.edit(small_model, inversion, PROMPT, source="a red car on the grass")
    ptinv.edit(small_model, inversion, PROMPT, focus="car", mask_threshold=0.5)
    assert unet_calls == 2 * [501, 251, 1]


@pytest.mark.slow
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
    small_model, picture, inversion, remarks, prompt, options
):
    again = ptinv.edit(small_model, inversion, prompt, **options)
    assert any("again, tune c_t" in message for message in remarks.messages)
    assert same(again, ptinv.edit(small_model, picture, prompt, "pti", **STEPS, **options))


def test_a_bare_trajectory_is_tuned_when_a_method_needs_it(small_model, picture, inversion):
    bare = ptinv.invert(small_model, picture, method="ddim-edit", **STEPS)
    assert bare.embeddings is None
    assert torch.equal(bare.trajectory, inversion.trajectory)
    tuned = ptinv.edit(small_model, bare, PROMPT, method="pti")
    assert same(tuned, ptinv.edit(small_model, inversion, PROMPT))
    assert not same(tuned, ptinv.edit(small_model, bare, PROMPT))  # by what made it


def test_a_tuning_is_kept_where_reuse_tuning_says_so(small_model, inversion, unet_calls):
    kept = ptinv.edit(small_model, inversion, OTHER_PROMPT, guidance=3.0, reuse_tuning=True)
    assert unet_calls == [501, 251, 1]
    assert not same(kept, ptinv.edit(small_model, inversion, OTHER_PROMPT, guidance=3.0))


@pytest.mark.parametrize("kept", [["losses"], ["residuals"]])
def test_an_inversion_that_lacks_its_embeddings_is_tuned_again(
    small_model, picture, inversion, tmp_path, kept
):
    extras = inversion.extras | {"residuals": torch.zeros_like(inversion.trajectory[1:])}
    lacking = replace(inversion, extras={name: extras[name] for name in kept})
    lacking.save(tmp_path / "a.safetensors")
    for stored in (lacking, tmp_path / "a.safetensors"):
        edited = ptinv.edit(small_model, stored, PROMPT)
        assert edited.tobytes() == ptinv.edit(small_model, inversion, PROMPT).tobytes()
        with pytest.raises(InputError, match="^reuse_tuning finds no tuning"):
            ptinv.edit(small_model, stored, PROMPT, reuse_tuning=True)


def test_a_tuning_that_is_missing_cannot_be_kept(small_model, picture, unet_calls):
    bare = ptinv.invert(small_model, picture, **STEPS)
    unet_calls.clear()
    for given in (picture, bare):
        with pytest.raises(InputError, match="^reuse_tuning "):
            ptinv.edit(small_model, given, PROMPT, reuse_tuning=True)
    assert unet_calls == []


def test_without_a_prompt_nothing_is_tuned_until_an_edit_needs_it(small_model, picture):
    bare = ptinv.invert(small_model, picture, lr=0.05, **STEPS)
    assert bare.embeddings is None
    assert same(
        ptinv.edit(small_model, bare, PROMPT),
        ptinv.edit(small_model, picture, PROMPT, "pti", lr=0.05, **STEPS),
    )


@pytest.mark.parametrize("options", [dict(steps=5), dict(encode_ratio=0.5)])
def test_another_trajectory_has_to_be_inverted_anew(small_model, inversion, unet_calls, options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name}.*invert the picture anew"):
        ptinv.edit(small_model, inversion, PROMPT, **options)
    assert unet_calls == []


def test_an_inversion_reconstructs_with_its_own_prompt(small_model, picture, inversion):
    assert same(
        ptinv.reconstruct(small_model, inversion),
        ptinv.reconstruct(small_model, picture, PROMPT, **STEPS),
    )
    assert same(
        ptinv.reconstruct(small_model, inversion, method="vae"),
        ptinv.reconstruct(small_model, picture, method="vae"),
    )


# In files


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


# Words


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
    small_model, picture, remarks, options, words
):
    ptinv.edit(small_model, picture, PROMPT, "ddim-edit", **STEPS, **options)
    assert f"the edit is about: {words}" in remarks.messages


# The size at which a picture is edited


def test_a_picture_is_edited_at_the_size_that_is_asked_for(small_model, picture, tmp_path):
    result = ptinv.result(small_model, picture, PROMPT, "pti", steps=2, size=96)
    cells = result.latent.shape[2] * result.latent.shape[3]
    assert cells == pytest.approx((96 / small_model.pixels_per_cell) ** 2, rel=0.2)
    assert result.picture.size == picture.size
    result.inversion.save(tmp_path / "x.safetensors")
    stored = ptinv.Inversion.load(tmp_path / "x.safetensors")
    assert stored.made_by.size == (96, 96)
    assert same(ptinv.edit(small_model, stored, PROMPT), result.picture)
    ptinv.attention_maps(small_model, stored, PROMPT)
    with pytest.raises(InputError, match=r"size must be \(96, 96\), the inversion's"):
        ptinv.edit(small_model, stored, PROMPT, size=64)


# Memory


def test_a_tuning_that_does_not_fit_is_made_anew_in_less_memory(
    small_model, picture, remarks, monkeypatch
):
    plain, tried = stages.tune, []

    def full(model, *rest, **how):
        tried.append(model.checkpointing)
        if not model.checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(model, *rest, **how)

    usual = ptinv.invert(small_model, picture, PROMPT, steps=3)
    monkeypatch.setattr(stages, "tune", full)
    made = ptinv.invert(small_model, picture, PROMPT, steps=3)
    assert tried == [False, True]
    assert torch.allclose(made.embeddings, usual.embeddings, atol=1e-3)
    assert any("tuning anew in less of it" in message for message in remarks.messages)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("?")])
def test_what_less_memory_does_not_mend_is_raised(small_model, picture, monkeypatch, error):
    def broken(*rest, **how):
        raise error

    monkeypatch.setattr(stages, "tune", broken)
    with pytest.raises(type(error)):
        ptinv.invert(small_model, picture, PROMPT, steps=3)
