"""Masks evaluated at each step of an edit, from its words and the attention so far."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from small import PROMPT
from tensors import row_of

import ptinv
from ptinv import ddim
from ptinv.core.attention import Place
from ptinv.methods.controls import AttentionStore
from ptinv.methods.edit import Edit
from ptinv.methods.masks import fixed_masks, mask_at, softened, words_mask
from ptinv.methods.words import Words
from ptinv.settings import Settings

CROSS = Place("cross", "down", level=1, height=2, width=3)
ROWS = ("null", "source", "null", "target")


# The attention of an edit so far


def attention(*cells_and_amounts, row=-1, rows=1, token=2):
    """Probabilities (b, 2 heads, 6 pixels, 77): one row looks at one token from some cells."""
    seen = torch.zeros(rows, 2, 6, 77)
    for cell, amount in cells_and_amounts:
        seen[row, :, cell, token] = amount
    return seen


def edit_about(tokens, size=(2, 3), steps=1, branches=("target",), **settings):
    """An edit whose mask follows some tokens; it needs no model."""
    focus = settings.pop("focus", {"target": tokens} if tokens else {})
    words = Words(focus, settings.pop("subtracted", {}), gates=None, factors=None)
    settings = Settings(**{"mask_from": "attention", **settings})
    nothing = torch.zeros(1, 77, 8)
    return Edit(
        None,
        PROMPT,
        settings,
        branches,
        ddim.schedule(steps),
        size,
        z0=None,
        empty=nothing,
        null=nothing,
        target=nothing,
        source=nothing,
        words=words,
    )


@pytest.mark.parametrize("expression", ["attention", "attention+file", "file*~attention"])
@pytest.mark.parametrize("steps, unknown", [(1, 0), (2, 0), (3, 1), (10, 2), (40, 8)])
def test_an_attention_mask_is_trusted_after_a_fifth_of_the_steps(steps, unknown, expression):
    """And until then no mask that it is part of is known."""
    mask = Image.new("L", (24, 16), "white") if "file" in expression else "auto"
    edit = edit_about([2], steps=steps, mask=mask, mask_from=expression)
    store, file = AttentionStore(level=1), row_of(0, 1, 0)
    known = []
    for k in range(steps, 0, -1):
        store.control(k, ("target",))(attention((0, 1)), CROSS)
        known.append(mask_at(edit, dict(file=file), store, k) is not None)
    assert known == [False] * unknown + [True] * (steps - unknown)


def test_an_attention_mask_follows_the_target_s_branch_and_all_of_its_words():
    store = AttentionStore(level=1)
    words = attention((0, 1), rows=4) + attention((5, 1), rows=4, token=3)
    others = attention((2, 9), rows=4, token=7) + attention((3, 9), row=1, rows=4)
    store.control(1, ROWS)(words + others, CROSS)
    for tokens, ends in [([2], (1, 0)), ([3], (0, 1)), ([2, 3], (1, 1))]:
        mask = words_mask(edit_about(tokens, size=(4, 9)), store)[0, 0]
        assert (mask[0, 0], mask[-1, -1]) == ends


def test_an_attention_mask_sums_the_attention_of_all_steps_so_far():
    store = AttentionStore(level=1)
    edit = edit_about([2], size=(4, 6), steps=2, mask_threshold=0.9)
    for k, seen in [(2, attention((0, 2))), (1, attention((5, 1)))]:
        store.control(k, ("target",))(seen, CROSS)
        mask = mask_at(edit, {}, store, k)[0, 0]
        assert mask[0, 0] == 1 and mask[-1, -1] == 0


def test_a_source_s_own_words_widen_the_mask_and_subtracted_words_narrow_it():
    """By the attention of the branch that each word stands in."""
    store = AttentionStore(level=1)
    of_target = attention((0, 1), rows=4) + attention((1, 1), rows=4, token=5)
    of_source = attention((5, 1), rows=4, row=1, token=3) + attention((4, 1), rows=4, row=1)
    store.control(1, ROWS)(of_target + of_source, CROSS)
    size, pair = (2, 30), ("source", "target")
    ends = {}
    for name, words in {
        "target": {},
        "source": dict(focus={"source": [3]}),
        "either": dict(focus={"target": [2], "source": [3]}),
        "less": dict(
            focus={"target": [2], "source": [3]}, subtracted={"target": [2], "source": [2]}
        ),
    }.items():
        mask = words_mask(edit_about([2], size, branches=pair, **words), store)
        ends[name] = mask[0, 0, 0, 0].item(), mask[0, 0, -1, -1].item()
    assert ends == dict(target=(1, 0), source=(0, 1), either=(1, 1), less=(0, 1))


def test_a_mask_that_follows_no_word_is_everywhere():
    """Which is no mask, unless it is part of another."""
    edit = replace(edit_about([], size=(1, 2)), model=SimpleNamespace(device="cpu"))
    fixed, store = fixed_masks(edit), AttentionStore(1)
    assert torch.equal(fixed["attention"], torch.ones(1, 1, 1, 2))
    assert mask_at(edit, fixed, store, 1) is None
    joined = replace(edit, settings=Settings(mask_from="attention*~difference"))
    mask = mask_at(joined, fixed | dict(difference=row_of(1, 0)), store, 1)
    assert torch.equal(mask, row_of(0, 1))


def test_an_edit_s_mask_is_softened_last():
    edit = edit_about([], size=(1, 5), mask_from="difference", mask_dilate=1, mask_feather=1)
    difference = row_of(1, 0, 0, 0, 0)
    mask = mask_at(edit, dict(difference=difference), AttentionStore(1), 1)
    assert torch.equal(mask, softened(difference, 1, 1))
    inverse = replace(edit, settings=replace(edit.settings, mask_from="~difference"))
    mask = mask_at(inverse, dict(difference=difference), AttentionStore(1), 1)
    assert torch.equal(mask, softened(1 - difference, 1, 1))


@pytest.mark.parametrize("method", ["ddim-edit", "p2p"])
def test_an_edit_is_blended_from_the_step_on_that_its_mask_is_known_at(
    small_model, picture, method
):
    """Until then it is the edit that nothing masks."""
    options = dict(steps=5, encode_ratio=1.0, source="a red car on the grass")
    masked, free = (
        list(ptinv.steps(small_model, picture, PROMPT, method, **options, **more))
        for more in ({}, dict(mask=None))
    )
    assert [step.mask is not None for step in masked] == [False] + [True] * 4
    assert not any(step.mask is not None for step in free)
    # attention that is recorded is not computed by the fused kernel: float32's rounding
    torch.testing.assert_close(masked[0].z, free[0].z, rtol=0, atol=1e-4)
    for step in masked[1:]:
        assert step.mask.shape == (1, 1, *step.z.shape[2:])
        assert step.mask.unique().tolist() in ([0], [1], [0, 1])
