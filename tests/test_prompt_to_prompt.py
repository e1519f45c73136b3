"""Prompt-to-Prompt changes the target's maps as the paper says, when it says, and nothing else.

On random maps, and through the small untrained UNet.
"""

import pytest
import torch

from ptinv import ddim
from ptinv.attention import Place
from ptinv.editing.alignment import replacement, word_tokens
from ptinv.editing.controls import Record, chained, reweight
from ptinv.editing.gates import token_gates
from ptinv.editing.prompt_to_prompt import (
    between,
    cross_attention,
    paired,
    prompt_to_prompt,
    rebalance,
    refine,
    replace,
    self_attention,
)
from ptinv.errors import InputError
from ptinv.sampling import Walk, last, predictions, walk_down

ROWS = ("null", "null", "source", "target")
SOURCE = "a yellow car on the grass"
SWAPPED = "a red car on the grass"
LONGER = "a yellow car and a red boat on the grass"
CROSS = Place("cross", "down", level=1, height=2, width=3)
SELF = Place("self", "down", level=1, height=2, width=3)
STEPS = 10
ALWAYS = token_gates(1.0, None)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def maps(rows=4, tokens=77, seed=0, dtype=torch.float32):
    return normal(rows, 2, 6, tokens, seed=seed).to(dtype).softmax(dim=-1)


def sums(probabilities):
    return probabilities.sum(dim=-1)


def assert_sums_to_1(probabilities):
    torch.testing.assert_close(sums(probabilities), torch.ones(probabilities.shape[:-1]))


class Pair:
    """A source and a target prompt, as the controls want them."""

    def __init__(self, model, source, target):
        self.model, self.source, self.target = model, source, target
        self.find = lambda phrase: model.tokenizer.find(phrase, target)
        self.words = word_tokens([word.positions for word in model.tokenizer.read(target)])

    def change(self, align="auto"):
        return between(self.model.tokenizer, self.source, self.target, align)

    def contexts(self):
        """∅ and c for the source and the target."""
        null = self.model.embed("").expand(2, -1, -1)
        return null, self.model.embed([self.source, self.target])

    def everything(self, gate=1.0, self_gate=1.0, factors=None, align="auto"):
        gates = token_gates(gate, self.find)
        args = self.change(align), gates, self.words, STEPS, self_gate, 16 * 16
        weighed = [] if factors is None else [reweight(factors, gates, STEPS)]
        return chained([prompt_to_prompt(*args), *weighed])


@pytest.fixture
def same(small_model):
    return Pair(small_model, SOURCE, SOURCE)


@pytest.fixture
def swap(small_model):
    return Pair(small_model, SOURCE, SWAPPED)


@pytest.fixture
def longer(small_model):
    return Pair(small_model, SOURCE, LONGER)


# The equations


def test_replacing_sums_the_source_s_maps_with_the_mapper_s_weights():
    source, mapper = maps(1, tokens=5), normal(5, 5, seed=1).abs()
    out = replace(source, mapper)
    for n in range(5):
        expected = sum(source[..., w] * mapper[w, n] for w in range(5))
        torch.testing.assert_close(out[..., n], expected)


def test_refining_takes_the_source_s_map_where_there_is_an_answer():
    source, own = maps(1, tokens=5, seed=1), maps(1, tokens=5, seed=2)
    out = refine(source, own, torch.tensor([0, -1, 1, -1, 4]))
    for n, (given, i) in enumerate([(source, 0), (own, 1), (source, 1), (own, 3), (source, 4)]):
        assert torch.equal(out[..., n], given[..., i])


def test_rebalancing_goes_to_the_tokens_of_no_word():
    words = torch.tensor([False, True, True, False, False])
    given = maps(3, tokens=5, seed=1) * torch.tensor([1, 0.9, 1.3, 1, 0.7])
    out = rebalance(given, words)
    assert_sums_to_1(out)
    assert torch.equal(out[..., words], given[..., words])
    factor = out[..., ~words] / given[..., ~words]  # one for all of them
    torch.testing.assert_close(factor, factor[..., :1].expand_as(factor))


def test_rebalancing_scales_words_only_if_they_want_more_than_there_is():
    words = torch.tensor([False, True, True])
    given = torch.tensor([[0.1, 0.8, 0.8], [0.0, 1.0, 0.0], [0.5, 0.3, 0.2]])
    out = rebalance(given[None, None], words)[0, 0]
    assert out.tolist() == [[0, 0.5, 0.5], [0, 1, 0], pytest.approx([0.5, 0.3, 0.2])]


# The gates


def test_a_word_takes_the_source_s_map_only_while_its_own_gate_is_open(swap):
    gates = token_gates({"default": 0.8, "red": (0.2, 0.5)}, swap.find)
    control = cross_attention(swap.change(), gates, swap.words, STEPS)
    given = maps()
    for k in range(STEPS, 0, -1):
        now, done = control(k, ROWS), STEPS - k
        assert now.wants(CROSS) == (done < 8)
        if done >= 8:
            continue
        out = now(given, CROSS)[3]
        of_source = 2 <= done < 5
        torch.testing.assert_close(out[..., 2], given[2 if of_source else 3][..., 2])
        torch.testing.assert_close(out[..., 3], given[2][..., 3])
        assert_sums_to_1(out)


# The controls on random maps


@pytest.mark.parametrize("align", ["replace", "refine"])
def test_a_single_word_edit_leaves_the_other_words_maps_equal_to_the_source_s(swap, align):
    control = cross_attention(swap.change(align), ALWAYS, swap.words, STEPS)(STEPS, ROWS)
    given = maps()
    out = control(given, CROSS)
    others = [1, 3, 4, 5, 6]
    assert torch.equal(out[3][..., others], given[2][..., others])
    expected = given[2] if align == "replace" else given[3]
    assert torch.equal(out[3][..., 2], expected[..., 2])
    assert_sums_to_1(out)


def test_a_word_of_more_tokens_shares_the_old_one_s_attention_and_later_words_keep_theirs():
    source, target = [(1,), (2,), (3,), (4,)], [(1,), (2, 3), (4,), (5,)]
    mapper, words = replacement(source, target), word_tokens(target)
    control = cross_attention(lambda old, own: replace(old, mapper), ALWAYS, words, STEPS)
    given = maps()
    out = control(STEPS, ROWS)(given, CROSS)
    torch.testing.assert_close(out[3][..., 2:4], given[2][..., [2, 2]] / 2)
    assert torch.equal(out[3][..., 4:6], given[2][..., 3:5])
    assert_sums_to_1(out)


def test_a_longer_prompt_keeps_its_new_words_own_maps(longer):
    out = cross_attention(longer.change(), ALWAYS, longer.words, STEPS)(STEPS, ROWS)(
        given := maps(), CROSS
    )
    for word, position in [("yellow", 2), ("car", 3), ("on", 4), ("the", 5), ("grass", 6)]:
        (here,) = longer.find(word)
        assert torch.equal(out[3][..., here], given[2][..., position])
    for word in ("and", "red", "boat"):
        (here,) = longer.find(word)
        assert torch.equal(out[3][..., here], given[3][..., here])
    assert_sums_to_1(out)


def test_more_words_are_refined_and_as_many_are_replaced_unless_asked_otherwise(swap, longer):
    source, own = maps(1, seed=1), maps(1, seed=2)
    assert torch.equal(swap.change()(source, own), source)  # the identity here
    assert torch.equal(swap.change("refine")(source, own)[..., 2], own[..., 2])
    assert torch.equal(longer.change()(source, own), longer.change("refine")(source, own))
    with pytest.raises(InputError, match="as many words"):
        longer.change("replace")


def test_self_attention_is_the_source_s_in_small_maps():
    control = self_attention(0.5, STEPS, cells=6)(STEPS, ROWS)
    assert control.wants(SELF)
    assert not control.wants(CROSS)
    assert not control.wants(Place("self", "up", level=0, height=4, width=6))
    given = maps(tokens=6)
    out = control(given, SELF)
    assert torch.equal(out[3], given[2])
    assert torch.equal(out[:3], given[:3])


def test_reweighting_is_gated_by_the_word_and_wants_nothing_when_it_would_change_nothing(swap):
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
    assert not control(2, ROWS).wants(CROSS)
    assert not reweight(torch.ones(77), gates, STEPS)(STEPS, ROWS).wants(CROSS)


@pytest.mark.parametrize("rows", [ROWS, ("target", "null", "source", "null")])
def test_all_other_rows_are_untouched_to_the_bit_and_so_is_what_was_given(longer, rows):
    given, given_self = maps(), maps(tokens=6)
    copy, copy_self = given.clone(), given_self.clone()
    control = longer.everything(factors=torch.full((77,), 2.0))(STEPS, rows)
    out, out_self = control(given, CROSS), control(given_self, SELF)
    assert torch.equal(given, copy) and torch.equal(given_self, copy_self)
    target = rows.index("target")
    for before, after in [(given, out), (given_self, out_self)]:
        for row in range(4):
            assert torch.equal(before[row], after[row]) == (row != target)


@pytest.mark.parametrize("pair", ["same", "swap", "longer"])
def test_rows_sum_to_1_before_reweighting(pair, request):
    pair = request.getfixturevalue(pair)
    for gate in (1.0, {"default": 1.0, "grass": 0.0}, {"default": 0.0, "grass": 1.0}):
        control = pair.everything(gate)(STEPS, ROWS)
        assert_sums_to_1(control(maps(), CROSS))


def test_gradients_reach_source_and_target(longer):
    control = longer.everything(factors=torch.full((77,), 2.0))(STEPS, ROWS)
    logits = normal(4, 2, 6, 77).requires_grad_()
    (control(logits.softmax(dim=-1), CROSS)[3] * normal(2, 6, 77, seed=1)).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[2].any() and logits.grad[3].any()
    assert not logits.grad[:2].any()


def test_gradients_are_the_right_ones(longer):
    change = cross_attention(longer.change(), ALWAYS, longer.words, STEPS)(STEPS, ROWS)
    logits = normal(4, 1, 2, 77).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: change(x.softmax(dim=-1), CROSS)[..., ::7], logits, fast_mode=True
    )


# Branches


def test_targets_are_paired_with_the_one_source_or_each_with_its_own():
    branches = ("source", "target")
    assert paired(branches, ROWS) == ([2], [3])
    assert paired(branches, ("source", "target", "target")) == ([0, 0], [1, 2])
    assert paired(branches, ("source", "target", "source", "target")) == ([0, 2], [1, 3])
    for rows in [("null", "target"), ("source", "null"), ("source",) * 2 + ("target",) * 3]:
        with pytest.raises(ValueError, match="source"):
            paired(branches, rows)


def test_two_targets_of_different_prompts_at_once_are_as_each_alone(swap, longer):
    rows = ("null",) * 3 + ("source", "first", "second")
    given, alone = maps(6), []
    controls = []
    for pair, name in [(swap, "first"), (longer, "second")]:
        args = pair.change(), ALWAYS, pair.words, STEPS
        controls.append(prompt_to_prompt(*args, branches=("source", name)))
        alone.append(prompt_to_prompt(*args)(STEPS, ROWS))
    out = chained(controls)(STEPS, rows)(given, CROSS)
    assert torch.equal(out[:4], given[:4])
    for row, control in zip((4, 5), alone, strict=True):
        assert torch.equal(out[row], control(given[[0, 1, 3, row]], CROSS)[3])


# Through the UNet


RUNG = ddim.ladder(STEPS)[-1]


def guided(model, z, contexts, control, branches):
    """ε̃ of Eq. 5 for each row, from one call."""
    return ddim.guide(*predictions(model, z, RUNG, contexts, 7.5, control, branches), 7.5)


def noise(pair, size, control, branches=("source", "target"), z=None):
    """ε of the small UNet for each branch, from one call."""
    null, cond = pair.contexts()
    if z is None:
        z = normal(1, 4, *size).expand(2, -1, -1, -1)
    return guided(pair.model, z, (null, cond), control, branches)


SIZES = pytest.mark.parametrize("size", [(16, 16), (12, 20), (24, 8)])
KINDS = {
    "replace": lambda pair: cross_attention(pair.change("replace"), ALWAYS, pair.words, STEPS),
    "refine": lambda pair: cross_attention(pair.change("refine"), ALWAYS, pair.words, STEPS),
    "self": lambda pair: self_attention(1.0, STEPS),
    "reweight": lambda pair: reweight(torch.ones(77), ALWAYS, STEPS),
    "everything": lambda pair: pair.everything(factors=torch.ones(77)),
    "by word": lambda pair: pair.everything({"default": 0.0, "car": 1.0}),
}


@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_source_s_prompt_the_target_is_the_source(same, size, kind):
    control = KINDS[kind](same)
    out = noise(same, size, control)
    torch.testing.assert_close(out[1], out[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out, noise(same, size, None), rtol=1e-4, atol=1e-4)


@SIZES
def test_an_edit_moves_the_target_towards_the_source_and_leaves_the_source(swap, size):
    plain, controlled = noise(swap, size, None), noise(swap, size, swap.everything())
    torch.testing.assert_close(controlled[0], plain[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(controlled[1], plain[1], rtol=1e-2, atol=1e-2)


@SIZES
@pytest.mark.parametrize("gate", [0.0, (0.0, 0.0), {"default": 0.0, "red": (0.5, 0.5)}])
def test_a_gate_of_zero_length_changes_no_bit(swap, size, gate):
    factors = torch.full((77,), 2.0)
    control = swap.everything(gate, self_gate=0.0, factors=factors)
    assert torch.equal(noise(swap, size, control), noise(swap, size, None))


def test_a_gate_that_shuts_changes_no_bit_from_then_on(swap):
    control = swap.everything(0.4, self_gate=0.2)
    for rung in ddim.ladder(STEPS)[::-1]:
        wanted = [control(rung.k, ROWS).wants(place) for place in (CROSS, SELF)]
        done = STEPS - rung.k
        assert wanted == [done < 4, done < 2]


class Spy:
    """Keeps the maps that a control leaves behind."""

    def __init__(self):
        self.seen = []

    def wants(self, place):
        return place.kind == "cross"

    def __call__(self, probabilities, place):
        self.seen.append(probabilities)
        return probabilities


@SIZES
def test_in_every_layer_the_other_words_maps_are_the_source_s(swap, size):
    spy = Spy()
    noise(swap, size, chained([swap.everything(), lambda k, rows: spy]))
    assert len(spy.seen) > 1
    for seen in spy.seen:
        assert_sums_to_1(seen)
        others = [1, 3, 4, 5, 6]
        torch.testing.assert_close(seen[3][..., others], seen[2][..., others])


def test_a_walk_under_control_with_equal_prompts_ends_in_two_equal_latents(same):
    z = normal(1, 4, 16, 16).expand(2, -1, -1, -1)
    control = same.everything(0.8, self_gate=0.4)
    rungs = ddim.ladder(STEPS)[::-1]
    contexts = same.contexts()
    with torch.no_grad():
        walk = Walk(lambda k: contexts, 7.5, control, branches=("source", "target"))
        z = last(walk_down(same.model, z, rungs, walk), z)
    torch.testing.assert_close(z[1], z[0], rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_the_unet_to_both_contexts(longer):
    null, cond = longer.contexts()
    cond = cond.clone().requires_grad_()
    z = normal(2, 4, 16, 16)
    branches = ("source", "target")
    eps = guided(longer.model, z, (null, cond), longer.everything(), branches)
    (eps[1] ** 2).sum().backward()
    assert cond.grad.isfinite().all()
    assert cond.grad[0].any() and cond.grad[1].any()  # the target looks at the source


def test_what_is_recorded_last_is_what_the_target_was_given(swap):
    level = swap.model.unet.config.mask_level
    record = Record(level)
    noise(swap, (12, 20), chained([swap.everything(), lambda k, rows: record]))
    assert record.total.shape == (4, 77, 6, 10)
    torch.testing.assert_close(record.total[3, 3], record.total[2, 3])  # car, in both
