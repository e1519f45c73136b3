"""The tensor names of the original (CompVis) single-file layout, as those of diffusers' folders.

Original names number the UNet's blocks in one row and count the VAE's decoder from the picture; the
rest is a dictionary. `rename` is the whole map. A single file has no configuration, either: its
networks are those of Stable Diffusion v1, `SD_V1`.
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

NETWORKS = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.transformer.": "text_encoder",
}
LEFT_OUT = (  # schedule buffers, the average of the weights, the VAE's training loss: not needed
    "model_ema.", "first_stage_model.loss.", "alphas_cumprod", "betas", "ddim_", "log_one_minus",
    "logvar", "lvlb", "posterior_", "sqrt_",
)
UNET_ENDS = {
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
}
RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}
VAE_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
VAE_ATTENTION = {
    "norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0",
}
# fmt: on


def is_left_out(key: str) -> bool:
    """True for a tensor that training leaves behind and inference computes for itself."""
    return key.startswith(LEFT_OUT) or key.endswith("embeddings.position_ids")


def unet_modules(config: UNetConfig) -> dict[str, str]:
    """Maps original module names to ours. The original counts blocks 0 … 11 down, 0 … 11 up."""
    table = UNET_ENDS | {"middle_block.1": "mid_block.attentions.0"}
    resnets = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    a_level = config.layers + 1  # blocks: on the way down, the last of them halves the map
    for level, attends in enumerate(config.attends):
        for i in range(config.layers):
            n = 1 + level * a_level + i  # block 0 is conv_in
            resnets[f"input_blocks.{n}.0"] = f"down_blocks.{level}.resnets.{i}"
            if attends:
                table[f"input_blocks.{n}.1"] = f"down_blocks.{level}.attentions.{i}"
        table[f"input_blocks.{n + 1}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    for level, attends in enumerate(reversed(config.attends)):  # the coarsest is up_blocks.0
        for i in range(a_level):
            n = level * a_level + i
            resnets[f"output_blocks.{n}.0"] = f"up_blocks.{level}.resnets.{i}"
            if attends:
                table[f"output_blocks.{n}.1"] = f"up_blocks.{level}.attentions.{i}"
        last = 2 if attends else 1
        table[f"output_blocks.{n}.{last}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return table | _nested(resnets, RESNET)


def vae_modules(config: VAEConfig) -> dict[str, str]:
    """Maps original module names to ours. The original counts decoder levels from the picture."""
    table = {name: name for name in ("quant_conv", "post_quant_conv")}
    resnets, top = {}, len(config.channels) - 1
    for half in ("encoder", "decoder"):
        table |= _nested({half: half}, VAE_ENDS)
        table |= _nested({f"{half}.mid.attn_1": f"{half}.mid_block.attentions.0"}, VAE_ATTENTION)
        for i in range(2):
            resnets[f"{half}.mid.block_{i + 1}"] = f"{half}.mid_block.resnets.{i}"
    for level in range(top + 1):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{top - level}"
        table[f"encoder.down.{level}.downsample"] = f"{down}.downsamplers.0"
        table[f"decoder.up.{level}.upsample"] = f"{up}.upsamplers.0"
        for i in range(config.layers + 1):
            resnets[f"encoder.down.{level}.block.{i}"] = f"{down}.resnets.{i}"
            resnets[f"decoder.up.{level}.block.{i}"] = f"{up}.resnets.{i}"
    return table | resnets | _nested(resnets, {"nin_shortcut": "conv_shortcut"})


def _nested(outer: dict[str, str], inner: dict[str, str]) -> dict[str, str]:
    return {f"{a}.{b}": f"{x}.{y}" for a, x in outer.items() for b, y in inner.items()}


def rename(key: str, modules: dict[str, dict[str, str]]) -> tuple[str, str] | None:
    """Maps an original tensor name to (network, our name); None if no network has it."""
    prefix = next((prefix for prefix in NETWORKS if key.startswith(prefix)), None)
    if prefix is None:
        return None
    network, name = NETWORKS[prefix], key.removeprefix(prefix)
    if network not in modules:  # the text encoder, whose names are the same in both layouts
        return network, name
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):  # the longest module name first
        if module := modules[network].get(".".join(parts[:cut])):
            return network, ".".join([module, *parts[cut:]])
    return None
