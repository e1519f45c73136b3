"""The two layouts of a checkpoint: a folder's JSON files, checked, and a single file's names.

Every key of a folder that can change what is computed without changing a tensor's name or shape is
in one of two tables: those that the networks take, each of a kind, and those that they have one
value for; it is what its files describe, or refused by the key that makes it something else. Keys
that come with other tensors are not listed: `checkpoint.py` refuses the tensors. A single file in
the original (CompVis) layout has no configuration: its networks are `SD_V1`.
"""

import json
import math
from pathlib import Path
from typing import Any

from ..core.ddim import TRAIN_STEPS
from ..core.model import Configs, configs_of
from ..core.text import LENGTH
from ..core.unet import UNetConfig
from ..core.vae import VAEConfig
from ..errors import CheckpointError
from .files import MOST, parse

ONLY = "only Stable Diffusion v1 can be opened"
UNET, VAE, TEXT = (f"{part}/config.json" for part in ("unet", "vae", "text_encoder"))
SCHEDULER, PIPELINE = "scheduler/scheduler_config.json", "model_index.json"
BY_INPUTS = {8: "InstructPix2Pix (8 input channels)", 9: "an inpainting model (9 input channels)"}
BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")  # a level that attends, and one that doesn't

# fmt: off
# kinds of values: their name in a sentence, and the test, by which a bool is no number
COUNT, FEW, SIDE = ((f"a whole number from 1 to {most}",
    lambda x, most=most: type(x) is int and 0 < x <= most) for most in (100_000, 32, 128))
COUNTS = ("a list of 1 to 6 even numbers up to 100000", lambda x: isinstance(x, list)
    and 0 < len(x) <= 6 and all(COUNT[1](n) and n % 2 == 0 for n in x))
NUMBER = ("a number above 0", lambda x: type(x) in (int, float) and 0 < x < math.inf)
LEVELS = (f"a list of {BLOCKS[1]} and at least one {BLOCKS[0]}",
    lambda x: isinstance(x, list) and BLOCKS[0] in x and all(kind in BLOCKS for kind in x))
ACTIVATION = ("quick_gelu or gelu", lambda x: x in ("quick_gelu", "gelu"))

SD_V1_TEXT = dict(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
    num_attention_heads=12, max_position_embeddings=LENGTH, hidden_act="quick_gelu",
)
SD_V1 = Configs(UNetConfig(), VAEConfig(), SD_V1_TEXT, latent_scale=0.18215)
SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": TRAIN_STEPS,
}
TAKEN = {
    UNET: {
        "block_out_channels": COUNTS, "down_block_types": LEVELS, "layers_per_block": FEW,
        "attention_head_dim": COUNT,  # diffusers' name for the number of heads, in v1 files
        "cross_attention_dim": COUNT, "norm_num_groups": COUNT, "in_channels": COUNT,
        "sample_size": SIDE,
    },
    VAE: {
        "block_out_channels": COUNTS, "layers_per_block": FEW, "norm_num_groups": COUNT,
        "latent_channels": COUNT, "scaling_factor": NUMBER,
    },
    TEXT: dict.fromkeys(SD_V1_TEXT, COUNT) | {"hidden_act": ACTIVATION, "num_hidden_layers": FEW},
}
OPTIONAL = ("norm_num_groups", "scaling_factor")  # which the files of sd-v1-4's time leave out
COMPUTED = {  # absent and null stand for the same
    UNET: {
        "act_fn": "silu", "center_input_sample": False, "class_embed_type": None,
        "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
        "mid_block_only_cross_attention": False, "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-5, "num_attention_heads": None,
        "only_cross_attention": False, "resnet_out_scale_factor": 1, "resnet_skip_time_act": False,
        "time_embedding_act_fn": None, "timestep_post_act": None,
    },
    VAE: {
        "act_fn": "silu", "latents_mean": None, "latents_std": None, "shift_factor": None,
        "mid_block_add_attention": True, "use_post_quant_conv": True, "use_quant_conv": True,
    },
    TEXT: {"layer_norm_eps": 1e-5, "max_position_embeddings": LENGTH},
    SCHEDULER: SCHEDULE | {"rescale_betas_zero_snr": False, "trained_betas": None},
}
# fmt: on


def read_configs(folder: Path) -> Configs:
    """Reads a folder's tables. Raises CheckpointError naming what it is, lacks, or has wrong."""
    said = {file: read_json(folder / file) for file in (*COMPUTED, PIPELINE)}
    for key, value in said[UNET].items():  # some files spell one value as a list of it by level
        by_level = isinstance(value, list) and len(value) > 1 and value == value[:1] * len(value)
        if by_level and TAKEN[UNET].get(key) not in (COUNTS, LEVELS):
            said[UNET][key] = value[0]
    _check_kind(folder, said)
    for file in TAKEN:
        path = folder / file
        if not path.is_file():
            lacks = file if path.parent.is_dir() else f"the subfolder {path.parent.name}"
            raise CheckpointError(f"{folder} lacks {lacks}; fetch the whole checkpoint")

    def demand(file: str, key: str, right: str, met: bool) -> None:
        if not met:
            value = json.dumps(said[file][key])[:60] if key in said[file] else "missing"
            raise CheckpointError(f"{folder / file}: {key} must be {right} but is {value}; {ONLY}")

    # each relies on those before it being met
    for file, keys in COMPUTED.items():
        for key, value in keys.items():
            demand(file, key, json.dumps(value), said[file].get(key) in (None, value))
    for file, keys in TAKEN.items():
        for key, (kind, fits) in keys.items():
            left_out = key in OPTIONAL and key not in said[file]
            demand(file, key, kind, left_out or fits(said[file].get(key)))
    configs = configs_of(said[UNET], said[VAE], said[TEXT])
    unet, vae, text, _ = configs
    width, heads, channels = text["hidden_size"], text["num_attention_heads"], "block_out_channels"
    context, same = unet.context_channels, unet.latent_channels == vae.latent_channels
    as_long = len(unet.attends) == len(unet.channels)
    unet_gcd, vae_gcd = math.gcd(*unet.channels), math.gcd(*vae.channels)
    demand(UNET, "norm_num_groups", f"a divisor of {channels}", unet_gcd % unet.groups == 0)
    demand(UNET, "attention_head_dim", f"a divisor of {channels}", unet_gcd % unet.heads == 0)
    demand(VAE, "norm_num_groups", f"a divisor of {channels}", vae_gcd % vae.groups == 0)
    demand(TEXT, "num_attention_heads", "a divisor of hidden_size", width % heads == 0)
    demand(UNET, "down_block_types", f"as long as {channels}", as_long)
    demand(UNET, "in_channels", f"the latent_channels of {VAE}", same)
    demand(TEXT, "hidden_size", f"the cross_attention_dim of {UNET}", width == context)
    return configs


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read(MOST))
    except ValueError as error:  # also of what is not UTF-8
        raise CheckpointError(f"{path} is not a JSON object; fetch it again") from error


def _check_kind(folder: Path, said: dict[str, dict]) -> None:
    """Raises CheckpointError naming the model, if it is known and isn't Stable Diffusion v1."""
    unet, predicts = said[UNET], said[SCHEDULER].get("prediction_type")
    context = unet.get("cross_attention_dim")
    kinds = {
        "a model with a transformer in the UNet's place": (folder / "transformer").is_dir(),
        "Stable Diffusion XL": (folder / "text_encoder_2").is_dir()
        or "XL" in str(said[PIPELINE].get("_class_name"))
        or unet.get("addition_embed_type") == "text_time"
        or context == 2048,
        f"a model that predicts {predicts}, not noise": predicts not in (None, "epsilon"),
        **{kind: unet.get("in_channels") == count for count, kind in BY_INPUTS.items()},
        "Stable Diffusion 2": context == 1024 or unet.get("use_linear_projection"),
    }
    for kind in (kind for kind, is_it in kinds.items() if is_it):
        raise CheckpointError(f"{folder} is {kind}; {ONLY}")


# fmt: off
LEFT_OUT = (  # schedule buffers, averages of the weights, the VAE's training loss: not needed
    "model_ema.", "first_stage_model.loss.", "first_stage_model.model_ema.", "alphas_cumprod",
    "betas", "ddim_", "log_one_minus", "logvar", "lvlb", "posterior_", "sqrt_",
)
OF_CLIP = ("embeddings.position_ids", "logit_scale", "text_projection", "text_projection.weight")
PARTS = {  # parts of names, between dots; those that number blocks and levels are added below
    "model.diffusion_model": "unet", "first_stage_model": "vae",
    "cond_stage_model.transformer": "text_encoder",  # inside, the names are the same
    # the UNet
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1", "skip_connection": "conv_shortcut",
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2",
    # the VAE
    "norm_out": "conv_norm_out", "block": "resnets", "nin_shortcut": "conv_shortcut",
    "encoder.down": "encoder.down_blocks", "downsample": "downsamplers.0",
    "upsample": "upsamplers.0",
    "mid.block_1": "mid_block.resnets.0", "mid.block_2": "mid_block.resnets.1",
    "mid.attn_1.norm": "mid_block.attentions.0.group_norm",
    "mid.attn_1.proj_out": "mid_block.attentions.0.to_out.0",
    "mid.attn_1": "mid_block.attentions.0", "q": "to_q", "k": "to_k", "v": "to_v",
}
BARE_TEXT = {f"text_encoder.{part}": f"text_encoder.text_model.{part}"  # NovelAI's are bare, and
    for part in ("embeddings", "encoder", "final_layer_norm")}  # what transformers 5 makes anew
# fmt: on
for n in range(12):  # the original counts blocks through all levels, three in each of the four
    level, i = divmod(n, 3)  # on the way down, the last of the three halves the map
    down, up = f"down_blocks.{level}", f"up_blocks.{level}"
    PARTS |= {  # a longer part comes first
        f"input_blocks.{n + 1}.0.op": f"{down}.downsamplers.0.conv",
        f"input_blocks.{n + 1}.0": f"{down}.resnets.{i}",
        f"input_blocks.{n + 1}.1": f"{down}.attentions.{i}",
        f"output_blocks.{n}.2.conv": f"{up}.upsamplers.0.conv",
        f"output_blocks.{n}.1.conv": f"{up}.upsamplers.0.conv",  # no attention
        f"output_blocks.{n}.0": f"{up}.resnets.{i}",
        f"output_blocks.{n}.1": f"{up}.attentions.{i}",
    }
# the original counts the decoder's levels from the picture
PARTS |= {f"decoder.up.{level}": f"decoder.up_blocks.{3 - level}" for level in range(4)}


def is_left_out(key: str) -> bool:
    """True for a tensor that training leaves behind and inference does not need."""
    return key.startswith(LEFT_OUT) or key.endswith(OF_CLIP)


def rename(key: str, parts: dict[str, str] = PARTS) -> str:
    """Maps an original tensor name to the network and our name, such as "unet.conv_in.bias". What
    isn't in `parts` stays as it is, and so is of no network."""
    name = f".{key}"
    for theirs, ours in parts.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name[1:]
