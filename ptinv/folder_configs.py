"""The JSON files of a diffusers folder: read, checked, and made into the networks' tables.

Every key that can change what is computed is in one of two tables: those that the networks take,
each of a kind, and those that they have one value for. So a folder is opened as what it says it
is, or refused by the key that makes it something else.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .tensors import CheckpointError
from .text import LENGTH, SD_V1_TEXT
from .unet import UNetConfig
from .vae import VAEConfig

SD_V1_LATENT_SCALE = 0.18215
ONLY = "only Stable Diffusion v1 can be opened"
UNET, VAE, TEXT = (f"{part}/config.json" for part in ("unet", "vae", "text_encoder"))
SCHEDULER, PIPELINE = "scheduler/scheduler_config.json", "model_index.json"
BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")  # a level that attends, and one that doesn't


class Kind(NamedTuple):
    """What a key's value must be."""

    title: str
    fits: Callable[[Any], bool]


def _is_count(x: Any) -> bool:
    return type(x) is int and x > 0  # a bool is no count


COUNT = Kind("a whole number above 0", _is_count)
COUNTS = Kind(
    "a list of whole numbers above 0",
    lambda x: isinstance(x, list) and x != [] and all(map(_is_count, x)),
)
NUMBER = Kind("a number above 0", lambda x: type(x) in (int, float) and 0 < x < math.inf)
LEVELS = Kind(
    f"a list of {BLOCKS[1]} and at least one {BLOCKS[0]}",
    lambda x: isinstance(x, list) and BLOCKS[0] in x and all(kind in BLOCKS for kind in x),
)
ACTIVATION = Kind("quick_gelu or gelu", lambda x: x in ("quick_gelu", "gelu"))

TAKEN = {
    UNET: {
        "block_out_channels": COUNTS,
        "down_block_types": LEVELS,
        "layers_per_block": COUNT,
        "attention_head_dim": COUNT,  # diffusers' name for their number, in v1 files
        "cross_attention_dim": COUNT,
        "norm_num_groups": COUNT,
        "in_channels": COUNT,
        "out_channels": COUNT,
        "sample_size": COUNT,
    },
    VAE: {
        "block_out_channels": COUNTS,
        "layers_per_block": COUNT,
        "norm_num_groups": COUNT,
        "latent_channels": COUNT,
        "sample_size": COUNT,
        "scaling_factor": NUMBER,
    },
    TEXT: {key: COUNT for key in SD_V1_TEXT} | {"hidden_act": ACTIVATION},
}
USUAL = {  # what the files of sd-v1-4's time leave out
    UNET: {"norm_num_groups": 32},
    VAE: {"norm_num_groups": 32, "scaling_factor": SD_V1_LATENT_SCALE, "sample_size": 512},
}
COMPUTED = {  # absent and null stand for the same
    UNET: {
        "act_fn": "silu",
        "addition_embed_type": None,
        "attention_type": "default",
        "center_input_sample": False,
        "class_embed_type": None,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": None,
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_only_cross_attention": False,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "num_attention_heads": None,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "resnet_out_scale_factor": 1,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        "transformer_layers_per_block": 1,
    },
    VAE: {
        "act_fn": "silu",
        "in_channels": 3,
        "latents_mean": None,
        "latents_std": None,
        "mid_block_add_attention": True,
        "out_channels": 3,
        "shift_factor": None,
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    },
    TEXT: {"layer_norm_eps": 1e-5, "max_position_embeddings": LENGTH},
    SCHEDULER: {
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "rescale_betas_zero_snr": False,
        "trained_betas": None,
    },
}


class FolderConfigs(NamedTuple):
    """What a folder's networks are built from."""

    unet: UNetConfig
    vae: VAEConfig
    text: dict
    latent_scale: float


def read_configs(folder: Path) -> FolderConfigs:
    """Reads what a folder says of its networks.

    Raises CheckpointError naming what the folder is, if it is known but isn't Stable Diffusion v1;
    else the subfolder or file that it lacks, or the key that is wrong.
    """
    said = {file: USUAL.get(file, {}) | _json(folder / file) for file in (*COMPUTED, PIPELINE)}
    if kind := _other_kind(folder, said):
        raise CheckpointError(f"{folder} is {kind}; {ONLY}")
    for file in TAKEN:
        path = folder / file
        if not path.is_file():
            lacks = file if path.parent.is_dir() else f"the subfolder {path.parent.name}"
            raise CheckpointError(f"{folder} lacks {lacks}; fetch the whole checkpoint")
    for file, key, right, met in _demands(said):
        if not met:
            value = json.dumps(said[file][key])[:60] if key in said[file] else "missing"
            raise CheckpointError(f"{folder / file}: {key} must be {right} but is {value}; {ONLY}")
    unet, vae, text = said[UNET], said[VAE], said[TEXT]
    return FolderConfigs(
        unet=UNetConfig(
            channels=tuple(unet["block_out_channels"]),
            attends=tuple(kind == BLOCKS[0] for kind in unet["down_block_types"]),
            layers=unet["layers_per_block"],
            heads=unet["attention_head_dim"],
            context_channels=unet["cross_attention_dim"],
            groups=unet["norm_num_groups"],
            latent_channels=unet["in_channels"],
            trained_size=unet["sample_size"],
        ),
        vae=VAEConfig(
            channels=tuple(vae["block_out_channels"]),
            layers=vae["layers_per_block"],
            groups=vae["norm_num_groups"],
            latent_channels=vae["latent_channels"],
        ),
        text={key: text[key] for key in text if key in SD_V1_TEXT or key.endswith("_token_id")},
        latent_scale=vae["scaling_factor"],
    )


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(said, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch it again")
    return said


def _other_kind(folder: Path, said: dict[str, dict]) -> str | None:
    """What a folder is by the name that people know it by, if that isn't Stable Diffusion v1."""
    unet, predicts = said[UNET], said[SCHEDULER].get("prediction_type")
    context = unet.get("cross_attention_dim")
    if (folder / "transformer").is_dir():
        return "a model with a transformer in the UNet's place"
    if (
        (folder / "text_encoder_2").is_dir()
        or "XL" in str(said[PIPELINE].get("_class_name"))
        or unet.get("addition_embed_type") == "text_time"
        or context == 2048
    ):
        return "Stable Diffusion XL"
    if predicts not in (None, "epsilon"):
        return f"a model that predicts {predicts}, not noise"
    if unet.get("in_channels") == 9:
        return "an inpainting model (its UNet has 9 input channels)"
    if context == 1024 or unet.get("use_linear_projection"):
        return "Stable Diffusion 2"
    return None


def _demands(said: dict[str, dict]) -> Iterator[tuple[str, str, str, bool]]:
    """The file and key of each demand, what the key must be, and whether it is.

    In this order: each relies on those before it being met.
    """
    for file, keys in COMPUTED.items():
        for key, value in keys.items():
            yield file, key, json.dumps(value), said[file].get(key) in (None, value)
    for file, keys in TAKEN.items():
        for key, kind in keys.items():
            yield file, key, kind.title, kind.fits(said[file].get(key))
    divisors = (UNET, "norm_num_groups"), (UNET, "attention_head_dim"), (VAE, "norm_num_groups")
    for file, key in divisors:
        divides = all(width % said[file][key] == 0 for width in said[file]["block_out_channels"])
        yield file, key, "a divisor of block_out_channels", divides
    divides = said[TEXT]["hidden_size"] % said[TEXT]["num_attention_heads"] == 0
    yield TEXT, "num_attention_heads", "a divisor of hidden_size", divides
    level_for_level = len(said[UNET]["down_block_types"]) == len(said[UNET]["block_out_channels"])
    yield UNET, "down_block_types", "as long as block_out_channels", level_for_level
    for file, key, other, theirs in (
        (UNET, "out_channels", UNET, "in_channels"),
        (VAE, "latent_channels", UNET, "in_channels"),
        (TEXT, "hidden_size", UNET, "cross_attention_dim"),
    ):
        yield file, key, f"the {theirs} of {other}", said[file][key] == said[other][theirs]
