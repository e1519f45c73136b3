"""The figures that an edit is measured by."""

import math

import numpy as np
import pytest
from PIL import Image

from ptinv.core.pictures import to_tensor
from ptinv.metrics import psnr


def plain(color=(10, 20, 30), size=(32, 24)) -> Image.Image:
    return Image.new("RGB", size, color)


def noise(width=32, height=24, seed=0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_psnr_by_hand():
    a, b = plain((10, 20, 30)), plain((13, 20, 34))
    expected = 10 * math.log10(255**2 / (25 / 3))  # squared differences 9, 0, 16
    assert expected == pytest.approx(38.9226, abs=1e-4)
    assert psnr(a, b) == pytest.approx(expected, rel=1e-6)
    assert psnr(to_tensor(a), b) == pytest.approx(expected, rel=1e-6)
    assert psnr(plain((0, 0, 0)), plain((255, 255, 255))) == 0


def test_psnr_of_equals_and_of_different_sizes():
    assert psnr(noise(), noise()) == math.inf
    assert psnr(noise(), to_tensor(noise())) == math.inf
    with pytest.raises(ValueError, match="differ in size"):
        psnr(noise(32, 24), noise(24, 32))
