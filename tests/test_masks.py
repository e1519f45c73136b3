"""Where an edit may show: what masks are made of, how they are joined, and when they are known."""

import itertools

import pytest
import torch
from small import PROMPT

from ptinv import ddim
from ptinv.attention import Place
from ptinv.editing.masks import (
    AttentionLog,
    attention_mask,
    combined,
    dilated,
    feathered,
    fixed,
    intersection,
    inverse,
    noise_difference,
    of_attention,
    softened,
    thresholded,
    union,
)
from ptinv.inversion.noising import fresh_noise

CROSS = Place("cross", "down", level=1, height=2, width=3)
ROWS = ("null", "source", "null", "target")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def row_of(*cells):
    """A mask of one row of cells, the same at every rung."""
    return fixed(torch.tensor(cells, dtype=torch.float32).reshape(1, 1, 1, -1))


def cells_of(mask, k=1):
    return mask(k).flatten().tolist()


def later(k):
    """A mask that can't tell before rung 5."""
    return None if k > 5 else row_of(0, 1)(k)


# Masks joined


def test_a_union_an_intersection_and_an_inverse_of_softened_masks_are_those_of_fuzzy_sets():
    a, b = row_of(0, 0.25, 1, 0.5), row_of(1, 0.5, 0, 0.5)
    assert cells_of(union(a, b)) == [1, 0.5, 1, 0.5]
    assert cells_of(intersection(a, b)) == [0, 0.25, 0, 0.5]
    assert cells_of(inverse(a)) == [1, 0.75, 0, 0.5]


TRUTH = list(itertools.product([False, True], repeat=3))


@pytest.mark.parametrize(
    "expression, meaning",
    [
        ("a", lambda a, b, c: a),
        ("~a", lambda a, b, c: not a),
        ("~~a", lambda a, b, c: a),
        ("a+b", lambda a, b, c: a or b),
        ("a*b", lambda a, b, c: a and b),
        ("a+b*c", lambda a, b, c: a or (b and c)),
        ("a*b+c", lambda a, b, c: (a and b) or c),
        ("~a*b", lambda a, b, c: (not a) and b),
        ("~a+b", lambda a, b, c: (not a) or b),
        ("a * ~b + ~ c", lambda a, b, c: (a and not b) or not c),
        ("a*b*~c", lambda a, b, c: a and b and not c),
        ("a+~b+c", lambda a, b, c: a or not b or c),
    ],
)
def test_not_binds_before_and_and_and_before_or(expression, meaning):
    """A cell for each way in which three masks can be 0 or 1."""
    named = {name: row_of(*(row[i] for row in TRUTH)) for i, name in enumerate("abc")}
    found = cells_of(combined(expression, named.__getitem__))
    assert found == [float(meaning(*row)) for row in TRUTH]


@pytest.mark.parametrize("expression", ["a+later", "later+a", "a*later", "later*a", "~later"])
def test_what_is_made_of_a_mask_that_cannot_tell_yet_cannot_either(expression):
    mask = combined(expression, {"a": row_of(1, 0), "later": later}.__getitem__)
    assert mask(6) is None
    assert mask(5) is not None
    assert softened(later, 1, 1)(6) is None
    assert cells_of(softened(later, 1, 0), 5) == [1, 1]


def test_masks_of_one_row_and_of_several_are_joined_row_by_row():
    one, two = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), torch.eye(2).reshape(2, 1, 1, 2)
    assert union(fixed(one), fixed(two))(1).tolist() == [[[[1, 0]]], [[[1, 1]]]]


# Masks made larger and softer


def test_dilation_grows_a_mask_in_all_directions_to_the_border():
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., 0, 2] = 1
    assert torch.equal(dilated(mask, 0), mask)
    assert dilated(mask, 1)[0, 0].tolist() == [
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert dilated(mask, 64).all()


def test_a_feather_averages_over_a_square_and_keeps_what_is_even():
    edge = torch.tensor([0.0, 0, 0, 1, 1, 1]).expand(1, 1, 4, 6)
    assert torch.equal(feathered(edge, 0), edge)
    thirds = torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1]).expand(1, 1, 4, 6)
    torch.testing.assert_close(feathered(edge, 1), thirds)
    assert torch.equal(feathered(torch.ones(1, 1, 4, 6), 2), torch.ones(1, 1, 4, 6))


def test_a_softened_mask_keeps_its_middle_and_fades_outside():
    """So that what is to be edited is edited whole."""
    edge = torch.zeros(1, 1, 1, 9)
    edge[..., :2] = 1
    faded = softened(fixed(edge), dilate=1, feather=1)(1).flatten()
    assert faded[:3].tolist() == [1, 1, 1]  # the mask, and a cell more
    torch.testing.assert_close(faded[3:5], torch.tensor([2 / 3, 1 / 3]))
    assert not faded[5:].any()


# Masks of attention


def test_a_mask_is_the_widened_attention_above_the_threshold():
    maps = torch.zeros(1, 4, 6)
    maps[0, 0, 0], maps[0, 3, 4] = 10, 2  # the second is a fifth of the first
    strong, both = attention_mask(maps, (4, 6), 0.3), attention_mask(maps, (4, 6), 0.1)
    assert strong[0, 0].tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert both[0, 0].tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
    ]


def test_a_mask_takes_the_latent_s_size_whatever_the_map_s():
    maps = torch.zeros(1, 4, 6)
    maps[0, 0, 0] = 1
    mask = attention_mask(maps, (8, 12), 0.3)
    assert mask.shape == (1, 1, 8, 12)
    # bilinear: along each side 1, 1, 1, ¾, ¼, 0 …; ¾ · ¾ is above the threshold, ¼ is not
    expected = torch.zeros(8, 12)
    expected[:4, :4] = 1
    assert torch.equal(mask[0, 0], expected)


@pytest.mark.parametrize("each_object", [False, True])
def test_a_mask_does_not_depend_on_how_much_attention_there_is(each_object):
    maps = normal(1, 4, 6).abs()
    once, much = (attention_mask(m, (8, 12), 0.3, each_object) for m in (maps, 64 * maps))
    assert torch.equal(once, much)


@pytest.mark.parametrize("each_object", [False, True])
def test_nothing_is_above_a_threshold_of_1(each_object):
    assert not attention_mask(normal(1, 4, 6).abs(), (4, 6), 1.0, each_object).any()


@pytest.mark.parametrize("each_object", [False, True])
def test_each_row_has_a_mask_of_its_own(each_object):
    maps = normal(2, 4, 6).abs() * torch.tensor([1.0, 1000.0]).reshape(2, 1, 1)
    both = attention_mask(maps, (8, 12), 0.3, each_object)
    alone = [attention_mask(one, (8, 12), 0.3, each_object) for one in maps.split(1)]
    assert torch.equal(both, torch.cat(alone))


FLOCK = torch.full((1, 24, 24), 0.05)  # some attention is everywhere
PLACES = {"strong": (4, 4), "middling": (4, 19), "weak": (19, 11)}
for place, peak in zip(PLACES.values(), (1.0, 0.35, 0.15), strict=True):
    FLOCK[0, place[0], place[1]] = peak


def squares(*names):
    """3 × 3 cells around the named places."""
    mask = torch.zeros(24, 24)
    for y, x in (PLACES[name] for name in names):
        mask[y - 1 : y + 2, x - 1 : x + 2] = 1
    return mask


@pytest.mark.parametrize(
    "threshold, found",
    [(0.5, ("strong",)), (0.3, ("strong", "middling")), (0.1, tuple(PLACES))],
)
def test_by_the_paper_s_rule_the_strongest_object_decides_which_are_found(threshold, found):
    assert torch.equal(attention_mask(FLOCK, (24, 24), threshold)[0, 0], squares(*found))


def test_with_a_measure_of_its_own_each_object_is_found_and_the_ground_is_not():
    mask = attention_mask(FLOCK, (24, 24), 0.3, each_object=True)
    assert torch.equal(mask[0, 0], squares(*PLACES))


def test_an_object_s_own_measure_is_that_of_its_surroundings():
    """What is faint beside something strong is its shimmer; alone it is an object."""
    maps = FLOCK.clone()
    maps[0, 4, 6] = maps[0, 12, 18] = 0.2
    mask = attention_mask(maps, (24, 24), 0.3, each_object=True)[0, 0]
    assert mask[4, 5] == 1 and mask[4, 7] == 0
    assert mask[12, 18] == 1


# The log of a walk


def attention(*cells_and_amounts, row=-1, rows=1, token=2):
    """Probabilities (b, 2 heads, 6 pixels, 77): one row looks at one token from some cells."""
    seen = torch.zeros(rows, 2, 6, 77)
    for cell, amount in cells_and_amounts:
        seen[row, :, cell, token] = amount
    return seen


def test_a_log_adds_up_the_steps_and_keeps_the_branches_and_tokens_apart():
    log, first, second = AttentionLog(level=1), *normal(2, len(ROWS), 2, 6, 77).abs()
    log.control(9, ROWS)(first, CROSS)
    log.control(8, ("null", "target", "source", "null"))(second, CROSS)
    for branch, (row, then) in {"source": (1, 2), "target": (3, 1)}.items():
        both = (first[row] + second[then]).sum(dim=0)  # over the heads
        torch.testing.assert_close(log.maps(branch), both.T.reshape(1, 77, 2, 3))
    assert log.maps("null").shape == (2, 77, 2, 3)


def test_a_log_that_heard_nothing_says_so():
    log = AttentionLog(level=7)
    with pytest.raises(LookupError, match="level 7"):
        log.maps()
    log.control(1, ROWS)
    with pytest.raises(LookupError, match="level 7"):
        log.maps()


@pytest.mark.parametrize("steps, silent", [(1, 0), (2, 0), (3, 1), (10, 2), (40, 8)])
def test_an_attention_mask_is_trusted_after_a_fifth_of_the_steps(steps, silent):
    log = AttentionLog(level=1)
    mask = of_attention(log, [2], (2, 3), steps)
    known = []
    for k in range(steps, 0, -1):
        log.control(k, ("target",))(attention((0, 1)), CROSS)
        known.append(mask(k) is not None)
    assert known == [False] * silent + [True] * (steps - silent)


def test_an_attention_mask_follows_the_target_s_branch_and_all_of_its_words():
    log = AttentionLog(level=1)
    words = attention((0, 1), rows=4) + attention((5, 1), rows=4, token=3)
    others = attention((2, 9), rows=4, token=7) + attention((3, 9), row=1, rows=4)
    log.control(1, ROWS)(words + others, CROSS)
    for tokens, ends in [([2], (1, 0)), ([3], (0, 1)), ([2, 3], (1, 1))]:
        mask = of_attention(log, tokens, (4, 9), steps=1)(1)[0, 0]
        assert (mask[0, 0], mask[-1, -1]) == ends


def test_an_attention_mask_sums_the_attention_of_all_steps_so_far():
    log = AttentionLog(level=1)
    mask = of_attention(log, tokens=[2], size=(4, 6), steps=2, threshold=0.9)
    for k, seen in [(2, attention((0, 2))), (1, attention((5, 1)))]:
        log.control(k, ("target",))(seen, CROSS)
    assert mask(1)[0, 0, 0, 0] == 1 and mask(1)[0, 0, -1, -1] == 0


# Masks of differences


class Pattern:
    """Predicts a pattern times the number that a context is filled with; notes what it is asked."""

    def __init__(self, *channels):
        self.pattern = torch.tensor(channels)[None, :, None]  # (1, c, 1, w)
        self.asked = []

    def predict_noise(self, z, t, context):
        self.asked.append((z, t, context))
        return self.pattern * context[:, :1, :1, None]


def context_of(number):
    return torch.full((1, 77, 8), float(number))


def difference(model, reference, target, draws=10, **options):
    z0 = torch.zeros(1, *model.pattern.shape[1:])
    noise = fresh_noise(0, 2, z0.shape)
    contexts = context_of(reference), context_of(target)
    return noise_difference(model, z0, *contexts, 50, noise, draws, **options)


@pytest.mark.parametrize(
    "clamp, expected", [(3.0, [1 / 9, 1 / 9, 1 / 9, 1]), (2.0, [1 / 6, 1 / 6, 1 / 6, 1])]
)
def test_differences_are_cut_at_some_times_their_mean_and_made_shares_of_that(clamp, expected):
    """Over two channels they average to 1, 1, 1 and 9, a mean of 3; their signs do not matter."""
    model = Pattern([1.0, -2.0, 0.0, 9.0], [-1.0, 0.0, 2.0, 9.0])
    shares = difference(model, 2, 3, clamp=clamp)
    torch.testing.assert_close(shares.flatten(), torch.tensor(expected))
    assert torch.equal(difference(model, 3, 2, clamp=clamp), shares)


def test_a_threshold_leaves_zeros_and_ones():
    shares = torch.tensor([0.0, 0.49, 0.5, 0.51, 1.0])
    assert thresholded(shares, 0.5).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("scale", [0.3, 7.5])
def test_guidance_multiplies_all_differences_alike_and_so_changes_nothing(scale):
    """∅ + ω (c - ∅) of two texts differs by ω times as much as c does."""
    model = Pattern([1.0, 2.0, 0.5, 9.0])
    guided = difference(model, 5 + scale * 1, 5 + scale * 3)
    torch.testing.assert_close(guided, difference(model, 6, 8))


@pytest.mark.parametrize("draws, chunk", [(10, 8), (10, 1), (3, 100), (1, 2)])
def test_both_texts_are_asked_about_each_noise_half_the_way_and_few_at_once(draws, chunk):
    model = Pattern([1.0, 2.0, 0.5, 9.0])
    difference(model, 0, 1, draws, chunk=chunk)
    (rung,) = [rung for rung in ddim.ladder(50) if rung.k == 25]
    halves, noise = [], fresh_noise(0, 2, (1, 1, 1, 4))
    for z, t, context in model.asked:
        assert t == rung.t == 481
        assert len(z) <= max(chunk, 2)
        there, here = z.chunk(2)
        assert torch.equal(there, here)
        assert context[:, 0, 0].tolist() == [0] * len(here) + [1] * len(here)
        halves.append(here)
    expected = [ddim.add_noise(torch.zeros(1), noise(i), rung.alpha) for i in range(draws)]
    assert torch.equal(torch.cat(halves), torch.cat(expected))


@pytest.fixture(scope="module")
def texts(small_model):
    return small_model.embed(""), small_model.embed(PROMPT)


@pytest.mark.parametrize("size", [(4, 4), (6, 10)])
def test_how_many_go_through_the_network_at_once_changes_rounding_alone(small_model, texts, size):
    z0, noise = normal(1, 4, *size), fresh_noise(0, 2, (1, 4, *size))
    whole, *parts = (
        noise_difference(small_model, z0, *texts, 10, noise, draws=5, chunk=chunk)
        for chunk in (100, 8, 4, 1)
    )
    assert whole.shape == (1, 1, *size)
    assert 0 < whole.min() < whole.max() <= 1
    for shares in parts:
        # float32's, in differences a hundred times smaller than the noise that they are taken of
        torch.testing.assert_close(shares, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [2, 8, 100])
def test_between_equal_texts_there_is_no_difference(small_model, texts, chunk):
    """Not a NaN either, as 0 / 0 would be."""
    z0, noise = normal(1, 4, 6, 10), fresh_noise(0, 2, (1, 4, 6, 10))
    shares = noise_difference(small_model, z0, texts[1], texts[1], 10, noise, chunk=chunk)
    assert torch.equal(shares, torch.zeros(1, 1, 6, 10))
