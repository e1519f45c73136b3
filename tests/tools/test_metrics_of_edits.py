"""What the tables of edits are made of: SSIM, agreement of masks, verdicts and intervals."""

import math

import numpy as np
import pytest
import torch
from evaluation import metrics, networks, tables
from PIL import Image
from world.scenes import read


def grey(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")


NOISE = np.random.default_rng(0).integers(0, 256, (48, 40)).astype(float)


def test_ssim_of_a_picture_with_itself_is_1_and_of_flat_ones_is_that_of_their_brightness():
    assert metrics.ssim(grey(NOISE), grey(NOISE)) == pytest.approx(1)
    flat, other = np.full((32, 32), 100.0), np.full((32, 32), 140.0)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)
    assert metrics.ssim(grey(flat), grey(other)) == pytest.approx(expected)


def test_ssim_of_a_negative_is_far_below_0():
    assert metrics.ssim(grey(NOISE), grey(255 - NOISE)) < -0.9


def test_only_a_region_s_own_pixels_count():
    spoilt = NOISE.copy()
    spoilt[:, 20:] = 0
    where = torch.zeros(48, 40, dtype=torch.bool)
    where[:, :20] = True
    assert metrics.ssim(grey(NOISE), grey(spoilt), where) == pytest.approx(1)
    assert metrics.ssim(grey(NOISE), grey(spoilt), ~where) < 0.2
    assert metrics.psnr(grey(NOISE), grey(spoilt), where) == math.inf
    nowhere = torch.zeros_like(where)
    assert metrics.psnr(grey(NOISE), grey(spoilt), nowhere) is None
    assert metrics.ssim(grey(NOISE), grey(spoilt), nowhere) is None


def test_the_psnr_of_a_region_is_that_of_its_crop():
    other = (NOISE + 9).clip(max=255)
    where = torch.zeros(48, 40, dtype=torch.bool)
    where[8:24, 4:36] = True
    crop = [grey(levels[8:24, 4:36]) for levels in (NOISE, other)]
    whole = metrics.psnr(grey(NOISE), grey(other), where)
    assert whole == pytest.approx(metrics.psnr(*crop))


def test_masks_overlap_by_the_share_of_what_either_covers():
    mask, truth = torch.zeros(4, 4), torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :2] = 1
    truth[:, 2:6] = True
    assert metrics.overlap(mask, truth) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "seen, success, preservation",
    [
        ("a red dog and a blue car in the snow", True, True),
        ("a green dog and a blue car in the snow", False, True),  # nothing was done
        ("a red dog in the snow", True, False),
        ("a red dog and a blue car by the sea", True, False),
        ("a red dog, a green dog and a blue car in the snow", False, True),  # the old one is there
        ("a red dog and a blue car and a pink house in the snow", True, False),
        ("a blue car in the snow", False, True),
    ],
)
def test_a_verdict_tells_what_was_asked_for_from_what_was_to_stay(seen, success, preservation):
    before, wanted = (
        "a green dog and a blue car in the snow",
        "a red dog and a blue car in the snow",
    )
    verdict = metrics.verdict(*map(read, (before, wanted, seen)))
    assert verdict == (success, preservation)
    assert verdict.right == (success and preservation)


def test_an_interval_holds_the_mean_and_narrows_with_the_number_of_items():
    few, many = (np.random.default_rng(1).normal(5, 2, n) for n in (20, 2000))
    for values in (few, many):
        found = tables.estimate(values)
        assert found.mean == pytest.approx(values.mean()) and found.low < values.mean() < found.high
        half = 1.96 * values.std() / math.sqrt(len(values))  # of the normal distribution
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
        assert tables.estimate(values) == found
    assert tables.estimate([3.0, 3.0]) == (3, 3, 3)
    assert tables.estimate([]) is None


def test_a_difference_is_of_the_items_that_both_have():
    found = tables.difference({1: 2.0, 2: 5.0, 3: 9.0}, {2: 1.0, 1: 1.0})
    assert found.mean == 2.5 and (found.low, found.high) == (1, 4)


def with_features(case: int, made: list[float], before: list[float], **more) -> tables.Item:
    kept = {"features": made, "features_before": before}
    packed = {name: networks.packed(torch.tensor(values)) for name, values in kept.items()}
    return tables.Item(case, "class", packed | more)


def test_a_report_has_the_distances_of_sets_where_features_and_means_of_classes_are():
    row = [with_features(i, [x, 3.0], [x, 0.0], classes=[0, 7]) for i, x in enumerate((1.0, 3.0))]
    other = [tables.Item(0, "class", {"psnr": 1.0})]
    means = {7: torch.tensor([2.0, 1.0])}
    rows = {"pti": row, "nothing": other}
    with_means, without = tables.report(rows, "pti", means), tables.report(rows, "pti")
    # a shift by 3, with the covariance as it was; the mean (2, 3) is 2 from its class's
    assert with_means.endswith("| pti | 9.00 | 4.00 |\n| nothing | not measured | not measured |")
    assert "| pti | 9.00 | not measured |" in without
    assert "Fréchet" not in tables.report({"nothing": other}, "pti", means)
