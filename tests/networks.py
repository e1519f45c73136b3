"""Networks filled without a checkpoint, and the recorded numbers that they should then give.

`data/README.md` says how the numbers were made.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data.fill import draw, filled
from torch import Tensor, nn

SD_V1_4 = {  # its three config.json, but for versions and class names
    "unet": {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    },
    "vae": {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder": {
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 1,
        "vocab_size": 49408,
    },
}
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


# bfloat16 keeps 8 bits of mantissa and float16 11. Hundreds of layers, each rounding its output,
# were measured to err by about 4 units in the last place of the largest value; twice that is
# allowed, which is 0.0625 and 0.0078.
HALF_TOLERANCE = {dtype: 8 * torch.finfo(dtype).eps for dtype in (torch.bfloat16, torch.float16)}

halves = pytest.mark.parametrize("dtype", HALF_TOLERANCE, ids=["bfloat16", "float16"])


def assert_near_float32(device, dtype, function):
    """Compares each tensor that `function` returns under autocast with what it is without."""
    expected = function()
    with torch.autocast(device, dtype):
        actual = function()
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == torch.float32
        assert relative_error(a, b) < HALF_TOLERANCE[dtype]
