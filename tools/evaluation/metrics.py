"""Measures of an edit: fidelity over a region, agreement of masks, and what a judge sees."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from world.scenes import Content

import ptinv
from ptinv import metrics

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, as Wang et al. have it
K1, K2 = 0.01, 0.03


def pixels(picture: Image.Image) -> Tensor:
    """An RGB picture's levels 0 … 255, (1, 3, H, W) in float64."""
    array = np.asarray(picture.convert("RGB"), np.float64)
    return torch.from_numpy(array).movedim(2, 0)[None]


def region(mask: Image.Image) -> Tensor:
    """Pixels where a mask picture is white, (H, W) booleans."""
    return torch.from_numpy(np.asarray(mask.convert("L")) > 127)


def psnr(a: Image.Image, b: Image.Image, where: Tensor | None = None) -> float | None:
    """The PSNR in dB over a region's own pixels (all of them: None); None for an empty region."""
    x, y = (pixels(picture) / 127.5 - 1 for picture in (a, b))
    if where is None:
        return metrics.psnr(x, y)
    return metrics.psnr(x[..., where], y[..., where]) if where.any() else None


def ssim(a: Image.Image, b: Image.Image, where: Tensor | None = None) -> float | None:
    """The structural similarity (Wang et al. 2004) over a region's own pixels (all of them: None).

    A window's statistics are weighted by its Gaussian, and only the region's pixels count in them.
    The mean is over channels and over the region's pixels whose window lies in the picture; None if
    there is no such pixel.
    """
    x, y = pixels(a), pixels(b)
    weight = torch.ones_like(x[0, 0]) if where is None else where.double()
    total = _blurred(weight[None, None])

    def local(values: Tensor) -> Tensor:
        return _blurred(values * weight) / total.clamp(min=1e-12)

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    cov = local(x * y) - mean_x * mean_y
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    reach = WINDOW // 2
    inner = weight[reach:-reach, reach:-reach] > 0
    if not inner.any():
        return None
    return float((luminance * structure)[..., inner].mean())


def _blurred(values: Tensor) -> Tensor:
    """(1, c, H, W) averaged by the Gaussian window, where it lies in the picture."""
    distance = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = torch.exp(-(distance**2) / (2 * SIGMA**2))
    bell = (bell / bell.sum()).expand(values.shape[1], 1, 1, -1)
    rows = F.conv2d(values, bell, groups=values.shape[1])
    return F.conv2d(rows, bell.mT, groups=values.shape[1])


def overlap(mask: Tensor, truth: Tensor) -> float:
    """The IoU of a mask over the latent (h, w), cut at ½, with one over the pixels (H, W)."""
    wide = F.interpolate(mask[None, None].float().cpu(), truth.shape, mode="nearest")[0, 0] > 0.5
    return float((wide & truth).sum() / (wide | truth).sum())


def csfid(features: Tensor, classes: list[int], means: dict[int, Tensor]) -> float:
    """CSFID as the field computes it, FlexIT's "simplified" one: the mean over the target classes
    of ‖mean of its edits - mean of the class‖², without covariances. features: (n, d) of the edits;
    classes: of each, the target's; means: (d,) of real pictures by class. Raises InputError where
    one has no mean."""
    if missing := set(classes) - means.keys():
        raise ptinv.InputError(f"no mean of class {min(missing)} is known; name a file of all")
    of = torch.tensor(classes)
    found = [(features[of == c].mean(0) - means[c]).square().sum() for c in dict.fromkeys(classes)]
    return float(torch.stack(found).mean())


def frechet(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance between the Gaussians of two sets of features, (n, d) and (m, d):
    ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), the FID (Heusel et al., arXiv 1706.08500)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # Σ_a Σ_b has the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float(apart + cov_a.trace() + cov_b.trace() - 2 * cross)


class Verdict(NamedTuple):
    """Findings of a judge; both together are that an edit shows the target, and no more."""

    success: bool  # what was to change is as asked for, and what it replaces is gone
    preservation: bool  # all else is there, in its colour and number, and nothing has come

    @property
    def right(self) -> bool:
        return self.success and self.preservation


def verdict(before: Content, wanted: Content, seen: Content) -> Verdict:
    """Compares `seen` with `wanted`, apart where the two texts differ and where they agree."""

    def facts(content: Content) -> dict:
        return {**content.groups, "place": content.background}

    was, want, see = facts(before), facts(wanted), facts(seen)
    success = preservation = True
    for fact in was.keys() | want.keys() | see.keys():
        if want.get(fact) != see.get(fact):
            if was.get(fact) != want.get(fact):
                success = False
            else:
                preservation = False
    return Verdict(success, preservation)
