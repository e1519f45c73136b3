"""Networks filled without a checkpoint, and the recorded numbers that they should then give.

`data/README.md` says how the numbers were made.
"""

import json
from pathlib import Path

import numpy as np
import torch
from data.fill import draw, filled
from torch import Tensor, nn

DATA = Path(__file__).parent / "data"
KEYS = json.loads((DATA / "keys.json").read_text())


def recorded(file: str) -> dict[str, Tensor]:
    with np.load(DATA / file) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def drawn(name: str, *shape: int) -> Tensor:
    """A recorded run's input, float32."""
    return torch.from_numpy(draw(f"golden/{name}", shape))


def fill(network: nn.Module, shapes: dict[str, list[int]]) -> nn.Module:
    """Gives a network that was built on the meta device its drawn tensors, frozen."""
    network.load_state_dict(filled(shapes), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    actual, expected = actual.detach().double().cpu(), expected.double().cpu()
    assert actual.shape == expected.shape
    return ((actual - expected).abs().max() / expected.abs().max()).item()
