"""The tensor names of the original (CompVis) single-file layout, as those of diffusers' folders.

A dictionary translates parts of the names. A single file has no configuration, either: its networks
are those of Stable Diffusion v1, `SD_V1`.
"""

from ..core.model import Configs
from ..core.text import LENGTH
from ..core.unet import UNetConfig
from ..core.vae import VAEConfig

# fmt: off
SD_V1_TEXT = dict(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
    num_attention_heads=12, max_position_embeddings=LENGTH, hidden_act="quick_gelu",
)
SD_V1_LATENT_SCALE = 0.18215
SD_V1 = Configs(UNetConfig(), VAEConfig(), SD_V1_TEXT, SD_V1_LATENT_SCALE)

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
