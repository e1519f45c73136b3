"""Records what well-kept libraries measure, for tests/tools/test_recorded_metrics.py.

    pip install numpy scipy scikit-image && python tests/data/record_metrics.py

Pictures and features are made by integer formulas, so that every machine makes the same.
"""

import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).with_name("metrics.json")


def levels(height: int, width: int, seed: int) -> np.ndarray:
    """A picture (height, width, 3) of waves and a little noise, in bytes."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    wave = (x * 3 + y * (5 + c)) % 256 // 2
    noise = (x * 7919 + y * 104729 + c * 1299709 + seed * 15485863) % 64
    return (wave + noise).astype(np.uint8)


def features(count: int, width: int, seed: int) -> np.ndarray:
    """Features (count, width) in [0, 1)."""
    n, i = np.meshgrid(np.arange(count), np.arange(width), indexing="ij")
    return ((n * n * 31 + i * 17 + n * i * 7 + seed * 13) % 101) / 101


def main() -> None:
    from scipy.linalg import sqrtm
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    a, b = levels(48, 40, 0), levels(48, 40, 1)
    how = dict(channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5)
    whole, each = structural_similarity(a, b, use_sample_covariance=False, full=True, **how)
    x, y = features(60, 8, 0), features(50, 8, 1)
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    root = np.real(sqrtm(cov_x @ cov_y))
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    found = {
        "psnr": peak_signal_noise_ratio(a, b, data_range=255),
        "psnr_region": peak_signal_noise_ratio(a[8:30, 5:33], b[8:30, 5:33], data_range=255),
        "ssim": float(whole),
        "ssim_middle": float(each[16:32, 14:26].mean()),
        "frechet": float(apart + np.trace(cov_x + cov_y - 2 * root)),
    }
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
