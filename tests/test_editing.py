"""What an edit plugs into the walk: conditions, attention controls and masks, each on its own."""

import pytest
import torch
from PIL import Image
from small import PROMPT

from ptinv import images, pipeline
from ptinv.attention import Place
from ptinv.ddim import ladder
from ptinv.editing.conditions import constant, interpolated
from ptinv.editing.controls import Chain, Record, Reweight, chained, reweight, rows_of
from ptinv.editing.masks import AttentionLog, attention_mask, fixed, of_attention
from ptinv.editing.rules import blended
from ptinv.inverting import settings_of
from ptinv.sampling import Step

ROWS = ("null", "source", "null", "target")
CROSS = Place("cross", "down", level=1, height=2, width=3)
ELSEWHERE = [
    Place("self", "down", level=1, height=2, width=3),
    Place("cross", "down", level=0, height=4, width=6),
    Place("self", "mid", level=0, height=4, width=6),
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def probabilities(seed=0, place=CROSS):
    return normal(len(ROWS), 2, place.height * place.width, 77, seed=seed).softmax(dim=-1)


# Conditions


NULL, TARGET = normal(1, 77, 8, seed=1), normal(1, 77, 8, seed=3)
TUNED = normal(3, 1, 77, 8, seed=2)


def test_a_constant_condition_is_the_same_on_every_rung():
    condition = constant(NULL, TARGET)
    assert condition(1) == condition(40) == (NULL, TARGET)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_interpolation_is_exact_at_both_ends_and_between_them_a_mixture(k):
    c_t = TUNED[k - 1]
    for eta, expected in [(0.0, c_t), (1.0, TARGET)]:
        null, c = interpolated(NULL, TUNED, TARGET, eta)(k)
        assert null is NULL
        assert torch.equal(c, expected)
    _, c = interpolated(NULL, TUNED, TARGET, 0.9)(k)
    torch.testing.assert_close(c, 0.9 * TARGET + 0.1 * c_t)


@pytest.mark.parametrize("eta", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_interpolation_between_equals_changes_nothing(eta):
    _, c = interpolated(NULL, TARGET.expand(3, 1, -1, -1), TARGET, eta)(2)
    assert torch.equal(c, TARGET)


# Controls


def test_rows_of_a_branch_are_found_by_its_name():
    assert rows_of("null", ROWS) == [0, 2]
    assert rows_of("target", ROWS) == [3]
    assert rows_of("other", ROWS) == []


def test_a_record_listens_to_the_cross_attention_of_its_level():
    record = Record(level=1)
    assert record.wants(CROSS)
    assert not any(record.wants(place) for place in ELSEWHERE)


def test_a_record_sums_over_heads_and_layers_and_changes_nothing():
    record = Record(level=1)
    first, second = probabilities(1), probabilities(2)
    assert record(first, CROSS) is first
    assert record(second, CROSS) is second
    expected = torch.zeros(len(ROWS), 77, 2, 3)
    for layer in (first, second):
        for row in range(len(ROWS)):
            for head in range(2):
                for token in (2, 5):
                    expected[row, token] += layer[row, head, :, token].reshape(2, 3)
    torch.testing.assert_close(record.total[:, [2, 5]], expected[:, [2, 5]])


def test_reweighting_multiplies_its_rows_and_leaves_the_others_to_the_bit():
    factors = torch.ones(77)
    factors[[2, 5]] = torch.tensor([2.0, 0.0])
    given = probabilities()
    out = Reweight([3], factors)(given, CROSS)
    assert torch.equal(out[:3], given[:3])
    assert torch.equal(out[3, ..., 2], 2 * given[3, ..., 2])
    assert not out[3, ..., 5].any()
    untouched = [i for i in range(77) if i not in (2, 5)]
    assert torch.equal(out[3][..., untouched], given[3][..., untouched])


def test_reweighting_is_at_work_in_all_cross_attention_and_no_other():
    control = reweight(torch.ones(77))(5, ROWS)
    assert control.rows == [3]
    assert control.wants(CROSS) and control.wants(ELSEWHERE[1])
    assert not control.wants(ELSEWHERE[0])


def test_a_factor_of_1_changes_nothing():
    given = probabilities()
    assert torch.equal(Reweight([1, 3], torch.ones(77))(given, CROSS), given)


def test_a_chain_passes_what_one_control_made_to_the_next_that_wants_it():
    doubled, record = Reweight([3], torch.full((77,), 2.0)), Record(1)
    chain = Chain((doubled, record))
    given = probabilities()
    assert torch.equal(chain(given, CROSS)[3], 2 * given[3])
    torch.testing.assert_close(record.total[3, 2].flatten(), 2 * given[3, :, :, 2].sum(dim=0))
    assert chain.wants(ELSEWHERE[1])  # the re-weighting does
    chain(probabilities(place=ELSEWHERE[1]), ELSEWHERE[1])
    assert record.total.shape == (len(ROWS), 77, 2, 3)  # the record was not shown it
    assert not chain.wants(ELSEWHERE[0])


def test_a_chain_is_made_anew_for_each_call_and_none_is_none():
    made = chained([lambda k, rows: Record(k)])
    first, second = made(7, ROWS), made(6, ROWS)
    assert [chain.controls[0].level for chain in (first, second)] == [7, 6]
    assert chained([]) is None


# Masks


RUNGS = ladder(10)


def reached(k, z):
    """The step that has led from rung k to the latent z."""
    return Step(RUNGS[k - 1], z, z, z)


def test_blending_is_exact_where_the_mask_is_0_or_1_and_a_mixture_between():
    trajectory, z = normal(11, 1, 4, 1, 3, seed=2), normal(1, 4, 1, 3, seed=1)
    mask = fixed(torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3))
    out, pivot = blended(trajectory, mask)(reached(8, z)), trajectory[7]
    assert torch.equal(out[..., 0], pivot[..., 0])
    assert torch.equal(out[..., 2], z[..., 2])
    torch.testing.assert_close(out[..., 1], 0.25 * z[..., 1] + 0.75 * pivot[..., 1])


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


def test_a_mask_does_not_depend_on_how_much_attention_there_is():
    maps = normal(1, 4, 6).abs()
    assert torch.equal(attention_mask(maps, (8, 12), 0.3), attention_mask(100 * maps, (8, 12), 0.3))


def test_local_blending_follows_the_words_after_a_fifth_of_the_steps():
    trajectory, log = normal(11, 1, 4, 4, 6), AttentionLog(level=1)
    seen_masks = []
    mask = of_attention(log, tokens=[2], size=(4, 6), steps=10, threshold=0.3)
    rule = blended(trajectory, mask, seen_masks.append)
    seen = torch.zeros(len(ROWS), 2, 6, 77)
    seen[3, :, 0, 2] = 1  # the target looks at the word from the corner,
    seen[:3, :, 5, 2] = 9  # other branches from the opposite one
    for step, k in enumerate(range(10, 0, -1), start=1):
        log.control(k, ROWS)(seen, CROSS)
        z = normal(1, 4, 4, 6, seed=step)
        out = rule(reached(k, z))
        if step <= 2:
            assert out is z
            continue
        inside = seen_masks[-1][0, 0].bool()
        assert inside[0, 0] and not inside[-1, -1]
        assert torch.equal(out[..., inside], z[..., inside])
        assert torch.equal(out[..., ~inside], trajectory[k - 1][..., ~inside])


def test_an_attention_mask_sums_the_attention_of_all_steps_so_far():
    log = AttentionLog(level=1)
    mask = of_attention(log, tokens=[2], size=(4, 6), steps=2, threshold=0.9)
    here, there = torch.zeros(2, 1, 1, 6, 77)
    here[..., 0, 2], there[..., 5, 2] = 2, 1
    for k, seen in [(2, here), (1, there)]:
        log.control(k, ("target",))(seen, CROSS)
    assert mask(1)[0, 0, 0, 0] == 1 and mask(1)[0, 0, -1, -1] == 0


def test_a_log_that_heard_nothing_says_so():
    with pytest.raises(LookupError, match="level 7"):
        AttentionLog(level=7).maps()


# Masks in an edit


STEPS = dict(steps=4, encode_ratio=1.0)


def latent(model, picture, method="pti", **options):
    settings = settings_of(picture, method, **STEPS, **options)
    return pipeline.run(model, picture, PROMPT, method, settings).z0


def test_a_mask_that_is_white_everywhere_is_no_mask(small_model, picture):
    white = Image.new("L", picture.size, "white")
    everywhere = latent(small_model, picture, "ddim-global")
    for method in ("ddim-edit", "diffedit"):
        assert torch.equal(latent(small_model, picture, method, mask=white), everywhere)


@pytest.mark.parametrize("method", ["pti", "diffedit"])
def test_where_a_mask_is_black_the_encoded_picture_comes_back(small_model, picture, method):
    mask = Image.new("L", picture.size, "black")
    mask.putpixel((0, 0), 255)
    edited, z0 = latent(small_model, picture, method, mask=mask), small_model.encode(picture)
    outside = images.to_mask(mask, z0.shape[:1:-1]).eq(0).expand_as(z0)
    assert outside.float().mean() > 0.9
    assert torch.equal(edited[outside], z0[outside])
    assert not torch.equal(edited[~outside], z0[~outside])
