"""Metrics equal what scikit-image and scipy measure; tests/data/record_metrics.py asked them."""

import json

import numpy as np
import pytest
import torch
from data.record_metrics import OUT, features, levels
from evaluation import metrics
from PIL import Image

import ptinv

RECORDED = json.loads(OUT.read_text())
A, B = (Image.fromarray(levels(48, 40, seed)) for seed in (0, 1))


def region(rows: slice, columns: slice) -> torch.Tensor:
    where = torch.zeros(48, 40, dtype=torch.bool)
    where[rows, columns] = True
    return where


def test_psnr_is_scikit_image_s_whole_and_over_a_region():
    assert metrics.psnr(A, B) == pytest.approx(RECORDED["psnr"])
    where = region(slice(8, 30), slice(5, 33))
    assert metrics.psnr(A, B, where) == pytest.approx(RECORDED["psnr_region"])


def test_ssim_is_scikit_image_s():
    assert metrics.ssim(A, B) == pytest.approx(RECORDED["ssim"], abs=1e-6)


def test_ssim_where_windows_lie_within_the_region_is_scikit_image_s_map():
    crop = (14 - 5, 16 - 5, 26 + 5, 32 + 5)  # five pixels around rows 16 … 32, columns 14 … 26
    found = metrics.ssim(A.crop(crop), B.crop(crop))
    assert found == pytest.approx(RECORDED["ssim_middle"], abs=1e-6)


def test_the_frechet_distance_is_scipy_s():
    x, y = (torch.from_numpy(features(n, 8, seed)) for n, seed in ((60, 0), (50, 1)))
    assert metrics.frechet(x, y) == pytest.approx(RECORDED["frechet"], rel=1e-6)


def test_the_frechet_distance_of_shifted_and_scaled_gaussians_is_its_closed_form():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(5000, 4)))
    x = (x - x.mean(0)) @ torch.linalg.inv(
        torch.linalg.cholesky(torch.cov(x.T))
    ).T  # exactly N(0,1)
    shift, scale = torch.tensor([1.0, -2.0, 0.0, 0.5]), torch.tensor([1.0, 2.0, 3.0, 0.5])
    wanted = float(shift.square().sum() + (scale - 1).square().sum())
    assert metrics.frechet(x, x * scale + shift) == pytest.approx(wanted)
    assert metrics.frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_csfid_is_the_mean_over_classes_of_the_squared_distance_of_their_means():
    edits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]])
    means = {7: torch.tensor([1.0, 3.0]), 2: torch.tensor([5.0, 4.0])}
    assert metrics.csfid(edits, [7, 7, 2], means) == pytest.approx((9 + 1) / 2)
    with pytest.raises(ptinv.InputError, match="no mean of class 5 is known"):
        metrics.csfid(edits, [7, 5, 2], means)
