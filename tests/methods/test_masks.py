"""Where an edit may show: what masks are made of, how they are joined, and when they are known."""

import itertools

import pytest
import torch
from tensors import normal, row_of

from ptinv.methods.masks import attention_mask, combined, dilated, softened

# Masks joined


def test_a_union_an_intersection_and_an_inverse_of_softened_masks_are_those_of_fuzzy_sets():
    masks = dict(a=row_of(0, 0.25, 1, 0.5), b=row_of(1, 0.5, 0, 0.5))
    assert combined("a+b", masks).flatten().tolist() == [1, 0.5, 1, 0.5]
    assert combined("a*b", masks).flatten().tolist() == [0, 0.25, 0, 0.5]
    assert combined("~a", masks).flatten().tolist() == [1, 0.75, 0, 0.5]


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
    cells = combined(expression, named).flatten().tolist()
    assert cells == [float(meaning(*row)) for row in TRUTH]


def test_a_long_expression_is_read_as_a_short_one():
    one = dict(a=row_of(0, 0.25, 1))
    for expression in ("a+" * 4000 + "a", "a*" * 4000 + "a", "~ " * 4000 + "a"):
        assert torch.equal(combined(expression, one), one["a"])
    assert torch.equal(combined("~" * 4001 + "a", one), 1 - one["a"])


def test_masks_of_one_row_and_of_several_are_joined_row_by_row():
    one, two = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), torch.eye(2).reshape(2, 1, 1, 2)
    assert combined("one+two", dict(one=one, two=two)).tolist() == [[[[1, 0]]], [[[1, 1]]]]


# Masks made of shares, larger and softer


def test_a_threshold_leaves_zeros_and_ones():
    shares = torch.tensor([[[0.0, 0.49, 0.5, 0.51, 1.0]]])
    mask = attention_mask(shares, (1, 5), 0.5, widened=False)
    assert mask.flatten().tolist() == [0, 0, 0, 1, 1]


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
    edge = torch.tensor([0.0, 0, 0, 0, 1, 1]).expand(1, 1, 4, 6)
    assert torch.equal(softened(edge, 0, 0), edge)
    thirds = torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1]).expand(1, 1, 4, 6)  # grown by one cell
    torch.testing.assert_close(softened(edge, 0, 1), thirds)
    assert torch.equal(softened(torch.ones(1, 1, 4, 6), 0, 2), torch.ones(1, 1, 4, 6))


def test_a_softened_mask_keeps_its_middle_and_fades_outside():
    """So that what is to be edited is edited whole."""
    edge = torch.zeros(1, 1, 1, 9)
    edge[..., :2] = 1
    faded = softened(edge, dilate=1, feather=1).flatten()
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
