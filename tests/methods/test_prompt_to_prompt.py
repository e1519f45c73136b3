"""Prompt-to-Prompt changes the target's maps as the paper says, when it says, and nothing else.

On random maps; `test_prompt_to_prompt_unet.py` goes through a small UNet.
"""

import pytest
import torch
from pairs import (
    ALWAYS,
    CROSS,
    ROWS,
    SELF,
    STEPS,
)
from tensors import normal

from ptinv.core.attention import Place
from ptinv.errors import InputError
from ptinv.methods.controls import reweight, token_gates
from ptinv.methods.prompt_to_prompt import (
    cross_attention,
    replacement,
    self_attention,
)
from ptinv.methods.words import Word


def maps(rows=4, tokens=77, seed=0, dtype=torch.float32):
    return normal(rows, 2, 6, tokens, seed=seed).to(dtype).softmax(dim=-1)


# The equations


def changed(mapper, source, own):
    """The target's maps, by `cross_attention`."""
    control = cross_attention(mapper, ALWAYS, STEPS)(STEPS, ("source", "target"))
    return control(torch.cat([source, own]), CROSS)[1:]


def test_words_get_the_sum_of_the_source_s_maps_with_the_mapper_s_weights():
    source, own, mapper = maps(1), maps(1, seed=2), normal(77, 77, seed=1).abs() / 77
    out = changed(mapper, source, own)
    for n in range(77):
        expected = sum(source[..., w] * mapper[w, n] for w in range(77))
        torch.testing.assert_close(out[..., n], expected)


def test_words_get_the_map_of_the_token_that_answers_and_keep_theirs_where_none_does():
    source, own, mapper = maps(1, seed=1), maps(1, seed=2), torch.eye(77)
    mapper[:, 1:5] = 0
    mapper[0, 1] = mapper[1, 3] = 1
    out = changed(mapper, source, own)
    for n, (given, i) in enumerate([(source, 0), (source, 0), (own, 2), (source, 1), (own, 4)]):
        assert torch.equal(out[..., n], given[..., i])


# The gates


def test_a_word_takes_the_source_s_map_only_while_its_own_gate_is_open(swap):
    gates = token_gates({"default": 0.8, "red": (0.2, 0.5)}, swap.find)
    control = cross_attention(swap.mapper(), gates, STEPS)
    given = maps()
    for k in range(STEPS, 0, -1):
        now, done = control(k, ROWS), STEPS - k
        assert (now is not None) == (done < 8)
        if done >= 8:
            continue
        out = now(given, CROSS)[3]
        of_source = 2 <= done < 5
        torch.testing.assert_close(out[..., 2], given[2 if of_source else 3][..., 2])
        torch.testing.assert_close(out[..., 3], given[2][..., 3])


# The controls on random maps


@pytest.mark.parametrize("align", ["replace", "refine"])
def test_a_single_word_edit_leaves_the_other_words_maps_equal_to_the_source_s(swap, align):
    control = cross_attention(swap.mapper(align), ALWAYS, STEPS)(STEPS, ROWS)
    given = maps()
    out = control(given, CROSS)
    others = [1, 3, 4, 5, 6]
    assert torch.equal(out[3][..., others], given[2][..., others])
    expected = given[2] if align == "replace" else given[3]
    assert torch.equal(out[3][..., 2], expected[..., 2])


def test_a_word_of_more_tokens_shares_the_old_one_s_attention_and_later_words_keep_theirs():
    source = [Word("old", (i,)) for i in (1, 2, 3, 4)]
    target = [Word("new", positions) for positions in [(1,), (2, 3), (4,), (5,)]]
    control = cross_attention(replacement(source, target), ALWAYS, STEPS)
    given = maps()
    out = control(STEPS, ROWS)(given, CROSS)
    torch.testing.assert_close(out[3][..., 2:4], given[2][..., [2, 2]] / 2)
    assert torch.equal(out[3][..., 4:6], given[2][..., 3:5])


def test_a_longer_prompt_keeps_its_new_words_own_maps(longer):
    out = cross_attention(longer.mapper(), ALWAYS, STEPS)(STEPS, ROWS)(given := maps(), CROSS)
    for word, position in [("yellow", 2), ("car", 3), ("on", 4), ("the", 5), ("grass", 6)]:
        (here,) = longer.find(word)
        assert torch.equal(out[3][..., here], given[2][..., position])
    for word in ("and", "red", "boat"):
        (here,) = longer.find(word)
        assert torch.equal(out[3][..., here], given[3][..., here])


def test_more_words_are_refined_and_as_many_are_replaced_unless_align_names_one(swap, longer):
    assert torch.equal(swap.mapper(), torch.eye(77))
    assert not swap.mapper("refine")[:, 2].any()
    assert torch.equal(longer.mapper(), longer.mapper("refine"))
    with pytest.raises(InputError, match="as many words"):
        longer.mapper("replace")


def test_self_attention_is_the_source_s_in_small_maps():
    control = self_attention(0.5, STEPS, area=6)(STEPS, ROWS)
    assert control.wants(SELF)
    assert not control.wants(CROSS)
    assert not control.wants(Place("self", "up", level=0, height=4, width=6))
    given = maps(tokens=6)
    out = control(given, SELF)
    assert torch.equal(out[3], given[2])
    assert torch.equal(out[:3], given[:3])


def test_reweighting_is_gated_by_the_word_and_acts_nowhere_if_it_would_change_nothing(swap):
    factors = torch.ones(77)
    factors[swap.find("red car")] = 2
    gates = token_gates({"default": 0.8, "red": 0.3}, swap.find)
    control = reweight(factors, gates, STEPS)
    given = maps()
    early, late = (control(k, ROWS)(given, CROSS) for k in (8, 7))
    assert torch.equal(early[3][..., 2:4], 2 * given[3][..., 2:4])
    assert torch.equal(late[3][..., 2], given[3][..., 2])
    assert torch.equal(late[3][..., 3], 2 * given[3][..., 3])
    assert torch.equal(early[3][..., 4:], given[3][..., 4:])
    assert control(2, ROWS) is None
    assert reweight(torch.ones(77), gates, STEPS)(STEPS, ROWS) is None


@pytest.mark.parametrize("rows", [ROWS, ("target", "null", "source", "null")])
def test_rows_other_than_the_target_s_are_untouched_to_the_bit_and_so_is_the_input(longer, rows):
    given, given_self = maps(), maps(tokens=6)
    copy, copy_self = given.clone(), given_self.clone()
    control = longer.everything(factors=torch.full((77,), 2.0))(STEPS, rows)
    out, out_self = control(given, CROSS), control(given_self, SELF)
    assert torch.equal(given, copy) and torch.equal(given_self, copy_self)
    target = rows.index("target")
    for before, after in [(given, out), (given_self, out_self)]:
        for row in range(4):
            assert torch.equal(before[row], after[row]) == (row != target)


@pytest.mark.parametrize("gate", [1.0, {"default": 1.0, "grass": 0.0}])
def test_rows_of_the_same_prompt_are_the_source_s_where_the_gates_are_open(same, gate):
    given = maps()
    out = same.everything(gate)(STEPS, ROWS)(given, CROSS)
    own = same.find("grass") if isinstance(gate, dict) else []
    for n in range(77):
        assert torch.equal(out[3][..., n], given[3 if n in own else 2][..., n])


def test_gradients_reach_source_and_target(longer):
    control = longer.everything(factors=torch.full((77,), 2.0))(STEPS, ROWS)
    logits = normal(4, 2, 6, 77).requires_grad_()
    (control(logits.softmax(dim=-1), CROSS)[3] * normal(2, 6, 77, seed=1)).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[2].any() and logits.grad[3].any()
    assert not logits.grad[:2].any()


def test_gradients_are_the_right_ones(longer):
    change = cross_attention(longer.mapper(), ALWAYS, STEPS)(STEPS, ROWS)
    logits = normal(4, 1, 2, 77).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: change(x.softmax(dim=-1), CROSS)[..., ::7], logits, fast_mode=True
    )


# Branches


def test_each_of_several_targets_takes_the_maps_of_its_own_source(longer):
    given, control = maps(6), longer.everything()
    rows = ("null", "null", "source", "target", "source", "target")
    out = control(STEPS, rows)(given, CROSS)
    for pair in ([2, 3], [4, 5]):
        alone = control(STEPS, ROWS)(given[[0, 1, *pair]], CROSS)
        assert torch.equal(out[pair], alone[2:])
