"""Stored inversions in the place of a picture, across the methods' table."""

from functools import cache, partial

import pytest
import torch
from edits import SOURCE, latent
from small import PROMPT

import ptinv
from ptinv.errors import InputError
from ptinv.methods.request import settings_for
from ptinv.methods.table import METHODS


@pytest.mark.parametrize("method", [pytest.param("null-text", marks=pytest.mark.slow), "direct"])
def test_extras_that_need_no_prompt_are_stored_without_one_and_serve_every_prompt(
    small_model, picture, method, tmp_path, remarks
):
    stored = ptinv.invert(small_model, picture, method=method, steps=6, source=SOURCE)
    assert stored.extras
    stored.save(tmp_path / "x.safetensors")
    opened = ptinv.Inversion.load(tmp_path / "x.safetensors")
    for prompt in (PROMPT, "a blue boat on the grass"):
        edited = latent(small_model, opened, method, prompt)
        assert torch.equal(edited, latent(small_model, picture, method, prompt))
    assert "again" not in "".join(remarks.messages)


GIVEN = dict(source=SOURCE, inner_steps=1)


def kind(method):
    """What decides how an inversion serves a method: its stages, and their settings."""
    own = settings_for(None, method, source=SOURCE)
    keys = own.encode_ratio, own.inversion_guidance, own.init_embedding
    return METHODS[method].trajectory, METHODS[method].extra, *keys


FIRST = {}  # the first method of each kind
for name in METHODS:
    FIRST.setdefault(kind(name), name)


def is_looked_at(made, used):
    """Pairs of all kinds, and each method with itself and with PTI."""
    return made == used or "pti" in (made, used) or {made, used} <= set(FIRST.values())


METHOD_PAIRS = [
    (made, used)
    for made, of in METHODS.items()
    for used, row in METHODS.items()
    if row.trajectory is of.trajectory and is_looked_at(made, used)
]


@pytest.fixture(scope="module")
def stored(small_model, picture):
    """An inversion by every method, for the prompt; all are given the source text."""
    return {
        method: ptinv.invert(small_model, picture, PROMPT, method=method, steps=6, **GIVEN)
        for method in METHODS
    }


@pytest.fixture(scope="module")
def fresh(small_model, picture):
    """Edits of the picture itself; those of the same method and settings are made once."""
    return cache(partial(latent, small_model, picture, **GIVEN))


@pytest.mark.slow
@pytest.mark.parametrize("made, used", METHOD_PAIRS)
def test_an_inversion_serves_another_method_as_the_picture_does_or_a_difference_is_logged(
    small_model, picture, stored, fresh, made, used, remarks
):
    """The trajectory may be another than the method's own, which is said; nothing else may."""
    served = latent(small_model, stored[made], used, **GIVEN)
    kept = {n: stored[made].settings[n] for n in ("encode_ratio", "inversion_guidance")}
    own = settings_for(picture, used, steps=6, **GIVEN)
    differs = any(getattr(own, name) != value for name, value in kept.items())
    guided = METHODS[used].trajectory is METHODS["pti"].trajectory
    if not guided:  # noise has no guidance on the way up
        kept.pop("inversion_guidance")
        differs = own.encode_ratio != kept["encode_ratio"]
    assert ("walks the inversion's trajectory" in "".join(remarks.messages)) == differs
    assert torch.equal(served, fresh(used, **kept))


def test_a_stored_inversion_is_edited_by_the_method_that_made_it_if_none_is_named(
    small_model, picture, stored
):
    for made in ("null-text", "direct", "pti-p2p"):
        unnamed = ptinv.edit(small_model, stored[made], PROMPT)
        assert unnamed.tobytes() == ptinv.edit(small_model, stored[made], PROMPT, made).tobytes()


def test_a_stored_inversion_is_reconstructed_for_its_source_and_no_other(small_model, stored):
    ptinv.reconstruct(small_model, stored["null-text"])
    ptinv.reconstruct(small_model, stored["null-text"], SOURCE)
    with pytest.raises(InputError, match="^source must be 'a red car on the grass'"):
        ptinv.reconstruct(small_model, stored["null-text"], "a blue boat")


def test_the_source_text_is_kept_for_a_method_that_needs_it(small_model, picture):
    unguided = dict(method="npi", source=SOURCE, inversion_guidance=0.0, steps=4)
    inversion = ptinv.invert(small_model, picture, **unguided)
    assert ptinv.edit(small_model, inversion, PROMPT).size == picture.size
    assert ptinv.reconstruct(small_model, inversion).size == picture.size
    assert ptinv.attention_maps(small_model, inversion, PROMPT).steps == 4
