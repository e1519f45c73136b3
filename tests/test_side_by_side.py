"""The methods that sample the source text beside the prompt, through the table."""

from dataclasses import replace

import pytest
import torch
from small import PROMPT
from test_methods import SOURCE, latent, result

import ptinv
from ptinv import pipeline
from ptinv.editing.conditions import constant
from ptinv.editing.controls import Record
from ptinv.errors import InputError
from ptinv.inversion.ddim import ddim_inversion
from ptinv.inverting import settings_of
from ptinv.methods import METHODS
from ptinv.sampling import Walk, last, walk_down

BOTH = [name for name, row in METHODS.items() if row.needs_source]
EXACT = 1e-4
ROUNDED = 1e-3  # where an untrained network's guidance carries rounding down six steps


def walked(model, picture, method, prompt=PROMPT, **options):
    """z_0 of both branches."""
    row = METHODS[method]
    settings = settings_of(picture, method, steps=6, **{"source": SOURCE, **options})
    task = pipeline.Task(model, picture, prompt, settings, row.branches)
    found = pipeline.inverted(task, method, prompt, pipeline.silent).on(model.device)
    return pipeline.walked(row, task, found, found["trajectory"][-1], pipeline.silent)


def test_the_table_has_them_all():
    assert BOTH == ["p2p", "null-text", "npi", "npi-prox", "direct", "pti-p2p"]


@pytest.mark.parametrize("method", [name for name in BOTH if name != "direct"])
@pytest.mark.parametrize("mask", [None, "auto"])
def test_with_the_source_s_prompt_the_edit_is_the_source_s_branch(
    small_model, picture, method, mask
):
    """At η = 0 for Eq. 9. (Direct inversion corrects its source's branch, and no other.)"""
    both = walked(small_model, picture, method, SOURCE, mask=mask, eta=0.0)
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=EXACT)


@pytest.mark.parametrize("method", ["null-text", "npi", "npi-prox", "direct"])
def test_and_that_one_is_the_picture_s_reconstruction(small_model, picture, method):
    alone = pipeline.unedited(
        small_model,
        picture,
        SOURCE,
        method,
        pipeline.settings_of_reconstruction(picture, SOURCE, method, steps=6),
    ).z0
    edited = walked(small_model, picture, method, SOURCE, mask=None)
    torch.testing.assert_close(edited[:1], alone, rtol=0, atol=ROUNDED)


@pytest.mark.parametrize("method", BOTH)
def test_gates_of_zero_length_are_the_walk_without_control(small_model, picture, method):
    shut = dict(cross_replace=0.0, self_replace=(0.5, 0.5), mask=None)
    free = replace(METHODS[method], control=lambda task: [])
    gated, plain = (
        latent(small_model, picture, row, source=SOURCE, **shut) for row in (method, free)
    )
    assert torch.equal(gated, plain)


@pytest.mark.parametrize("method", BOTH)
def test_an_edit_differs_from_the_source_and_from_one_without_shared_attention(
    small_model, picture, method
):
    open_, shut = (
        walked(small_model, picture, method, mask=None, cross_replace=gate, self_replace=gate)
        for gate in (1.0, 0.0)
    )
    assert (open_[1] - open_[0]).abs().max() > 100 * EXACT
    assert (open_[1] - shut[1]).abs().max() > 100 * EXACT
    # the source is untouched
    torch.testing.assert_close(open_[0], shut[0], rtol=0, atol=ROUNDED)


def test_direct_inversion_s_source_branch_is_the_trajectory_to_rounding(small_model, picture):
    z0 = small_model.encode(picture)
    for guidance in (1.0, 7.5):
        both = walked(small_model, picture, "direct", guidance=guidance)
        torch.testing.assert_close(both[:1], z0, rtol=0, atol=ROUNDED)
    missed = walked(small_model, picture, "p2p")[:1] - z0
    assert missed.abs().max() > 1000 * ROUNDED  # what the offsets make good


def test_null_text_inversion_with_no_iterations_is_ddim_from_the_same_pivot(small_model, picture):
    untuned = latent(small_model, picture, "null-text", inner_steps=0)
    assert torch.equal(untuned, latent(small_model, picture, "p2p"))


def test_null_text_inversion_holds_the_source_s_branch_to_the_picture(small_model, picture):
    z0 = small_model.encode(picture)
    tuned, untuned = (
        (walked(small_model, picture, method)[:1] - z0).square().mean()
        for method in ("null-text", "p2p")
    )
    assert tuned < untuned / 3


def test_negative_prompt_inversion_of_the_same_prompt_is_ddim_at_1(small_model, picture):
    null, text = small_model.embed(""), small_model.embed(SOURCE)
    inverted = result(small_model, picture, "npi", SOURCE, mask=None)
    start, rungs = inverted.inversion.on("cpu")["trajectory"][-1], inverted.inversion.rungs
    with torch.no_grad():
        walk = Walk(constant(null, text), 1.0)
        plain = last(walk_down(small_model, start, rungs[::-1], walk), start)
    torch.testing.assert_close(inverted.z0, plain, rtol=0, atol=EXACT)


def test_pti_under_prompt_to_prompt_tunes_for_the_source_and_edits_by_eq_9(small_model, picture):
    """Its source branch is PTI's reconstruction; without control its target is PTI's own edit."""
    free = dict(mask=None, cross_replace=0.0, self_replace=0.0, eta=0.7)
    both = walked(small_model, picture, "pti-p2p", **free)
    tuned = dict(init_embedding="source", source=SOURCE, mask=None)
    back = latent(small_model, picture, "pti", SOURCE, eta=0.0, **tuned)
    edit = latent(small_model, picture, "pti", eta=0.7, **tuned)
    torch.testing.assert_close(both, torch.cat([back, edit]), rtol=0, atol=EXACT)


def test_the_pivot_is_inverted_with_the_source_text_at_1(small_model, picture):
    inversion = ptinv.invert(small_model, picture, method="direct", steps=6, source=SOURCE)
    rungs = inversion.rungs
    condition = constant(small_model.embed(""), small_model.embed(SOURCE))
    expected = ddim_inversion(small_model, small_model.encode(picture), rungs, condition, 1.0)
    assert len(rungs) == 6
    assert torch.equal(inversion.trajectory, expected[:, 0])


@pytest.mark.parametrize("method", ["null-text", "direct"])
def test_what_needs_no_prompt_is_stored_without_one_and_serves_every_prompt(
    small_model, picture, method, tmp_path, caplog
):
    stored = ptinv.invert(small_model, picture, method=method, steps=6, source=SOURCE)
    assert stored.extras
    stored.save(tmp_path / "x.safetensors")
    opened = ptinv.Inversion.load(tmp_path / "x.safetensors")
    caplog.set_level("INFO")
    for prompt in (PROMPT, "a blue boat on the grass"):
        edited = latent(small_model, opened, method, prompt)
        assert torch.equal(edited, latent(small_model, picture, method, prompt))
    assert "again" not in caplog.text


@pytest.mark.parametrize("method", BOTH)
def test_a_source_text_is_required_and_said_so(small_model, picture, method):
    with pytest.raises(InputError, match="^source is missing"):
        ptinv.edit(small_model, picture, PROMPT, method=method)
    with pytest.raises(InputError, match="^source is missing"):
        ptinv.invert(small_model, picture, method=method)
    back = ptinv.reconstruct(small_model, picture, SOURCE, method=method, steps=2)
    assert back.size == picture.size  # where the prompt says what the picture shows


def test_proximal_guidance_is_less_of_the_same(small_model, picture):
    """With nothing dropped it is negative-prompt inversion; the source stays on the picture."""
    z0 = small_model.encode(picture)
    plain, prox = (walked(small_model, picture, m, mask=None) for m in ("npi", "npi-prox"))
    same = walked(small_model, picture, "npi-prox", mask=None, proximal_quantile=0.0)
    none = walked(small_model, picture, "npi-prox", mask=None, proximal_quantile=1.0)
    assert (prox[1] - plain[1]).abs().max() > 100 * EXACT
    # the latent's numbers without any guidance come from the trajectory in the end
    assert torch.equal(prox[0], z0[0]) and torch.equal(none[1], z0[0])
    assert (same[1] - plain[1]).abs().mean() < (prox[1] - plain[1]).abs().mean()


def test_what_is_made_for_ddim_s_steps_is_not_walked_with_others(small_model, picture):
    for method in ("pti", "null-text", "direct", "pti-p2p"):
        with pytest.raises(InputError, match="^sampler must be ddim here"):
            latent(small_model, picture, method, sampler="ancestral")


# Stored inversions


METHOD_PAIRS = [
    (made, used)
    for made, of in METHODS.items()
    for used, row in METHODS.items()
    if row.trajectory is of.trajectory
]


@pytest.fixture(scope="module")
def stored(small_model, picture):
    """An inversion by every method, for the prompt; the source text is told to all."""
    return {
        method: ptinv.invert(
            small_model, picture, PROMPT, method=method, steps=6, source=SOURCE, inner_steps=1
        )
        for method in METHODS
    }


@pytest.mark.parametrize("made, used", METHOD_PAIRS)
def test_an_inversion_serves_another_method_as_the_picture_does_or_it_is_said(
    small_model, picture, stored, made, used, caplog
):
    """The trajectory may be another than the method's own, which is logged; nothing else may."""
    caplog.set_level("WARNING")
    told = dict(source=SOURCE, inner_steps=1)
    served = latent(small_model, stored[made], used, **told)
    kept = {n: stored[made].settings[n] for n in ("encode_ratio", "inversion_guidance")}
    own = settings_of(picture, used, steps=6, **told)
    differs = any(getattr(own, name) != value for name, value in kept.items())
    guided = METHODS[used].trajectory is METHODS["pti"].trajectory
    if not guided:  # noise has no guidance on the way up
        kept.pop("inversion_guidance")
        differs = own.encode_ratio != kept["encode_ratio"]
    assert ("walks the inversion's trajectory" in caplog.text) == differs
    fresh = latent(small_model, picture, used, **told, **kept)
    assert torch.equal(served, fresh)


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


# Local blending


def masks_of(model, picture, **options):
    """The last mask of an edit by Prompt-to-Prompt."""
    return result(model, picture, "p2p", mask_threshold=0.6, **options).mask


def test_the_blend_shows_the_edit_where_either_branch_attends_to_its_words(small_model, picture):
    """As `p2p` has it: the words that differ, each in its own prompt."""
    target_alone = masks_of(small_model, picture, source="a car on the grass")  # nothing is lost
    named = masks_of(small_model, picture, focus="yellow", source_focus="red")
    assert torch.equal(named, masks_of(small_model, picture))
    assert not torch.equal(named, target_alone)
    wider = masks_of(small_model, picture, focus="yellow", source_focus="red car on the grass")
    assert not torch.equal(wider, named)


def test_outside_the_blend_the_edit_is_its_source_to_the_bit(small_model, picture):
    both = walked(small_model, picture, "p2p", mask_threshold=0.9)
    mask = result(small_model, picture, "p2p", mask_threshold=0.9).mask.eq(0).expand_as(both[:1])
    assert 0 < mask.float().mean() < 1
    assert torch.equal(both[1:][mask], both[:1][mask])
    assert not torch.equal(both[1:][~mask], both[:1][~mask])


def test_where_the_prompt_only_leaves_words_out_the_mask_follows_those(small_model, picture):
    """ "a red car and a blue boat" -> "a red car": the boat's places, and not the car's."""
    long, short = "a red car and a blue boat", "a red car"
    default, boat = (
        result(small_model, picture, "p2p", short, source=long, mask_threshold=0.6, **options).mask
        for options in ({}, dict(source_focus="blue boat"))
    )
    assert torch.equal(default, boat)
    assert 0 < default.mean() < 1
    car = result(small_model, picture, "p2p", short, source=long, mask_threshold=0.6, focus="car")
    assert not torch.equal(default, car.mask)


def test_the_mask_listens_before_words_are_weighed(small_model, picture):
    settings = settings_of(picture, "p2p", source=SOURCE, reweight={"yellow": 3.0})
    task = pipeline.Task(small_model, picture, PROMPT, settings, METHODS["p2p"].branches)
    listens, weighs = task.controls
    assert listens == task.attention.control
    rows = ("null", "null", "source", "target")
    assert weighs(50, rows).factors.max() == 3


def test_subtracted_words_take_their_places_from_it(small_model, picture):
    whole = masks_of(small_model, picture, mask_relative_to="map")
    less = masks_of(small_model, picture, subtract="grass")
    nothing = masks_of(small_model, picture, subtract="yellow")
    assert torch.equal(torch.minimum(whole, less), less)
    assert less.sum() < whole.sum()
    assert nothing.sum() < whole.sum()
    with pytest.raises(InputError, match='"sea" is not in the prompt'):
        masks_of(small_model, picture, subtract="sea")


# Shares of attention, as the UNet sees them


def test_inside_the_gate_the_other_words_maps_are_the_source_s_and_later_their_own(
    small_model, picture
):
    """Of a one-word edit, step by step in the walk itself."""
    seen, level = {}, small_model.unet.config.mask_level
    row = METHODS["p2p"]

    def listening(task):
        def at(k, rows):
            seen[k] = Record(level)
            return seen[k]

        return [*row.control(task), at]

    latent(
        small_model,
        picture,
        replace(row, control=listening),
        source=SOURCE,
        mask=None,
        cross_replace=0.5,
        self_replace=0.0,
    )
    (changed,) = small_model.tokenizer.find("yellow", PROMPT)
    others = [p for w in small_model.tokenizer.read(PROMPT) for p in w.positions if p != changed]
    for k, record in seen.items():
        source, target = record.total[2], record.total[3]
        same = torch.isclose(source[others], target[others], rtol=1e-5, atol=1e-6).all()
        assert same == (k > 3)  # the first three of six steps


def test_the_largest_map_that_is_replaced_is_told_in_cells_of_the_model_s_own_size(
    small_model, picture
):
    """8 of its 16 across are a quarter of the latent, whatever the picture's size."""
    for size in ((48, 32), (30, 60)):
        task = pipeline.Task(
            small_model,
            picture.resize(size),
            PROMPT,
            settings_of(picture, "p2p", source=SOURCE),
            METHODS["p2p"].branches,
        )
        height, width = task.cells
        assert task.cells_up_to(8) == height * width / 4
        assert task.cells_up_to(16) == height * width


def test_weighing_by_1_changes_nothing_and_by_2_something(small_model, picture):
    plain, one, two, gated = (
        latent(small_model, picture, "p2p", reweight=weights, cross_replace=gate)
        for weights, gate in (
            ({}, 0.8),
            ({"yellow": 1.0}, 0.8),
            ({"yellow": 2.0}, 0.8),
            ({"yellow": 2.0}, {"default": 0.8, "yellow": 0.0}),
        )
    )
    torch.testing.assert_close(one, plain, rtol=0, atol=EXACT)
    assert (two - plain).abs().max() > 100 * EXACT
    assert not torch.equal(two, gated)


def test_unequal_prompts_cannot_be_replaced_word_by_word(small_model, picture):
    with pytest.raises(InputError, match="as many words"):
        latent(small_model, picture, "p2p", source="a car", align="replace")
    assert latent(small_model, picture, "p2p", source="a car").isfinite().all()


def test_a_word_with_a_gate_must_be_in_the_prompt(small_model, picture):
    with pytest.raises(InputError, match='"boat" is not in the prompt'):
        latent(small_model, picture, "p2p", cross_replace={"boat": 0.3})


# Generated pictures


def test_two_generated_pictures_from_one_noise(small_model):
    """The source's is what it is alone, and an edit to the same prompt is that one, too."""
    make = dict(seed=3, steps=6)
    settings = pipeline.settings_of_generating(source=SOURCE, **make)
    both = pipeline.generated(small_model, PROMPT, settings)
    alone = pipeline.generated(small_model, SOURCE, pipeline.settings_of_generating(**make))
    torch.testing.assert_close(both[:1], alone, rtol=0, atol=EXACT)
    assert (both[1] - both[0]).abs().max() > 100 * EXACT
    same = pipeline.generated(small_model, SOURCE, settings)
    torch.testing.assert_close(same[1], same[0], rtol=0, atol=EXACT)
    picture = ptinv.generate(small_model, PROMPT, source=SOURCE, **make)
    assert picture.tobytes() == small_model.decode(both[1:]).tobytes()


@pytest.mark.parametrize(
    "option", [dict(focus="car"), dict(mask_from="attention"), dict(cross_replace=0.3)]
)
def test_without_a_source_there_is_nothing_to_share_or_to_mask(small_model, option):
    with pytest.raises(InputError, match="is for an edit of another prompt's picture"):
        ptinv.generate(small_model, PROMPT, steps=2, **option)


def test_a_generated_picture_has_no_mask_of_differences(small_model):
    with pytest.raises(InputError, match="no picture yet"):
        ptinv.generate(small_model, PROMPT, source=SOURCE, steps=2, mask_from="difference")
